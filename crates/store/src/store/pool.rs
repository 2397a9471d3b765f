//! Connections of one kind: a bounded number, given out in the order in which they are asked for.
//!
//! Promises: giving one back costs no trip to the server and no task; whoever is dropped while it holds one gives its
//! place back; a connection that is broken or too old does not come back.

use crate::sql::driver::{Cause, DriverError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long connections are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Since they were opened.
    pub(crate) lifetime: Duration,
    /// Since they were used last.
    pub(crate) idle: Duration,
}

struct Idle<C> {
    connection: C,
    opened: Instant,
    used: Instant,
}

struct Shared<C> {
    places: Arc<Semaphore>,
    limit: u32,
    idle: Mutex<Vec<Idle<C>>>,
    /// For ever when absent.
    keep: Option<Keep>,
}

impl<C> Shared<C> {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle<C>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections. Cheap to clone.
pub(crate) struct Pool<C>(Arc<Shared<C>>);

impl<C> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Pool<C> {
    /// For at most `limit` connections.
    pub(crate) fn new(limit: u32, keep: Option<Keep>) -> Self {
        let places = Arc::new(Semaphore::new(limit as usize));
        Self(Arc::new(Shared { places, limit, idle: Mutex::new(Vec::new()), keep }))
    }

    /// Waits until `deadline` for a place. It has the connection that was used last, or none yet.
    pub(crate) async fn take(&self, deadline: Instant) -> Result<Held<C>, DriverError> {
        let place = Arc::clone(&self.0.places).acquire_owned();
        let place = tokio::time::timeout_at(deadline, place)
            .await
            .map_err(|_| DriverError(Cause::NoneFree))?
            .map_err(|_| DriverError(Cause::Closed))?;
        let idle = self.0.idle().pop();
        let opened = idle.as_ref().map(|idle| idle.opened);
        Ok(Held { connection: idle.map(|idle| idle.connection), opened, pool: self.clone(), place })
    }

    /// Lets go of every connection that is not in use: one of them was found broken, and the others are likely to be.
    pub(crate) fn forget_idle(&self) {
        let idle = std::mem::take(&mut *self.0.idle());
        drop(idle);
    }

    /// Waits for all connections to come back and closes them. Whoever asks for one after that is told so.
    pub(crate) async fn close(&self) {
        let all = self.0.places.acquire_many(self.0.limit).await;
        self.0.places.close();
        self.forget_idle();
        drop(all);
    }
}

/// A place in the pool, and the connection in it.
pub(crate) struct Held<C> {
    connection: Option<C>,
    opened: Option<Instant>,
    pool: Pool<C>,
    /// Given back after the connection: fields are dropped in this order, and [`Drop`] runs before.
    #[expect(dead_code, reason = "held for its drop")]
    place: OwnedSemaphorePermit,
}

impl<C> Held<C> {
    /// The connection.
    ///
    /// # Errors
    /// When there is none: not yet opened, or taken out.
    pub(crate) fn connection(&mut self) -> Result<&mut C, DriverError> {
        self.connection.as_mut().ok_or(DriverError(Cause::Closed))
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Puts a connection into the place.
    pub(crate) fn fill(&mut self, connection: C) {
        self.opened = Some(Instant::now());
        self.connection = Some(connection);
    }

    /// Puts a connection back that was taken out.
    pub(crate) fn restore(&mut self, connection: C) {
        self.connection = Some(connection);
    }

    /// Takes the connection out: it does not come back to the pool by itself.
    pub(crate) fn discard(&mut self) -> Option<C> {
        self.connection.take()
    }
}

impl<C> Drop for Held<C> {
    fn drop(&mut self) {
        let shared = &self.pool.0;
        let (Some(connection), Some(opened)) = (self.connection.take(), self.opened) else { return };
        if shared.places.is_closed() {
            return;
        }
        let Some(keep) = shared.keep else {
            // Nothing looks at these moments.
            shared.idle().push(Idle { connection, opened, used: opened });
            return;
        };
        let now = Instant::now();
        if now.duration_since(opened) > keep.lifetime {
            return;
        }
        let mut idle = shared.idle();
        // The one that has not been used for longest stands first.
        let old = idle.iter().take_while(|one| now.duration_since(one.used) > keep.idle).count();
        let old: Vec<Idle<C>> = idle.drain(..old).collect();
        idle.push(Idle { connection, opened, used: now });
        drop(idle);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_come_back() {
        let pool = Pool::new(2, None);
        let (mut first, second) = (pool.take(soon()).await.unwrap(), pool.take(soon()).await.unwrap());
        assert!(!first.is_open() && first.connection().is_err());
        first.fill("one");
        assert!(matches!(pool.take(soon()).await.err(), Some(DriverError(Cause::NoneFree))));
        drop(first);
        assert_eq!(pool.take(soon()).await.unwrap().connection().ok(), Some(&mut "one"));
        // One that was taken out does not come back, its place does.
        assert_eq!(pool.take(soon()).await.unwrap().discard(), Some("one"));
        assert!(!pool.take(soon()).await.unwrap().is_open());
        drop(second);
        pool.close().await;
        assert!(matches!(pool.take(soon()).await.err(), Some(DriverError(Cause::Closed))));
    }

    #[tokio::test(start_paused = true)]
    async fn old_and_idle_ones_are_let_go() {
        let keep = Keep { lifetime: Duration::from_secs(100), idle: Duration::from_secs(10) };
        let pool = Pool::new(3, Some(keep));
        let mut held = Vec::new();
        for name in ["a", "b", "c"] {
            let mut one = pool.take(soon()).await.unwrap();
            one.fill(name);
            held.push(one);
        }
        drop(held);
        tokio::time::advance(Duration::from_secs(11)).await;
        // The one used last is taken and comes back; the others have been idle for too long.
        assert_eq!(pool.take(soon()).await.unwrap().connection().ok(), Some(&mut "c"));
        assert_eq!(pool.0.idle().len(), 1);
        tokio::time::advance(Duration::from_secs(100)).await;
        drop(pool.take(soon()).await.unwrap());
        assert!(pool.0.idle().is_empty());
    }

    #[tokio::test]
    async fn closing_waits_for_those_that_are_in_use() {
        let pool = Pool::new(2, None);
        let mut held = pool.take(soon()).await.unwrap();
        held.fill(1);
        let closing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.close().await }
        });
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        drop(held);
        closing.await.unwrap();
        assert!(pool.0.idle().is_empty());
    }
}
