//! The scope gateway: a transaction that is bound to one org from its first statement to its last.
//!
//! Promises: `$1` of every tenant statement is the scope's org, bound here and nowhere else; on PostgreSQL the
//! transaction also carries the org in `app.org_id`, which row-level security compares with; a transaction with a
//! failed statement can't be committed, on either engine; dropping a transaction undoes it.

use crate::config::Engine;
use crate::error::StoreError;
use crate::scope::OrgScope;
use crate::signal::Topic;
use crate::sql::driver::DriverError;
use crate::sql::postgres::{begin_read_with_setting, begin_with_setting};
use crate::sql::{Link, Row, Scoped, ScopedRows, Value};
use crate::store::{Db, Inner};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tipstaff_model::{AuditDraft, OrgId, TaskId};

/// A transaction that sees one org's rows as of its first read, and writes nothing.
///
/// ```compile_fail,E0599
/// # async fn write(mut read: tipstaff_store::OrgRead, draft: tipstaff_store::TaskDraft) {
/// read.task_add(draft).await;
/// # }
/// ```
///
/// Nor does it, or [`OrgTx`], run a text that is handed to it:
///
/// ```compile_fail,E0624
/// # async fn peek(mut tx: tipstaff_store::OrgTx) {
/// tx.all(tipstaff_store::scoped!("select id from task where org_id = $1"), &[]).await;
/// # }
/// ```
pub struct OrgRead {
    pub(crate) link: Link,
    pub(crate) inner: Arc<Inner>,
    pub(crate) scope: OrgScope,
    org: String,
    pub(crate) broken: bool,
}

/// A transaction that reads and writes one org's rows. Every method of [`OrgRead`] is here too.
pub struct OrgTx {
    read: OrgRead,
    pub(crate) topics: Vec<Topic>,
    /// The lease that was checked in this transaction; its task's row is locked until the end.
    pub(crate) fenced: Option<(TaskId, i64)>,
    /// Set when the ring changed in this transaction: the cached one is dropped when it is committed.
    pub(crate) ring_changed: bool,
    /// What goes to the audit log at the commit.
    pub(crate) noted: Vec<AuditDraft>,
    /// The head of the audit log as this transaction wrote it.
    pub(crate) new_head: Option<Vec<u8>>,
}

impl fmt::Debug for OrgRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrgRead").field("org", &self.scope.org()).finish_non_exhaustive()
    }
}

impl fmt::Debug for OrgTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrgTx").field("org", &self.scope.org()).finish_non_exhaustive()
    }
}

impl Deref for OrgTx {
    type Target = OrgRead;
    fn deref(&self) -> &OrgRead {
        &self.read
    }
}

impl DerefMut for OrgTx {
    fn deref_mut(&mut self) -> &mut OrgRead {
        &mut self.read
    }
}

impl OrgRead {
    pub(crate) async fn begin(inner: &Arc<Inner>, scope: &OrgScope) -> Result<Self, StoreError> {
        let org = scope.org().to_string();
        let link = match &inner.db {
            Db::Sqlite { readers, .. } => readers.begin().await,
            Db::Postgres { app, .. } => app.begin(begin_read_with_setting("app.org_id", &org)?).await,
        };
        let link = link.map_err(|error| inner.driver(error))?;
        Ok(Self { link, inner: Arc::clone(inner), scope: scope.clone(), org, broken: false })
    }

    /// The org.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.scope.org()
    }

    pub(crate) const fn engine(&self) -> Engine {
        match self.link {
            Link::Sqlite(_) => Engine::Sqlite,
            Link::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs a statement with the org as `$1` and `values` from `$2` on.
    pub(crate) async fn all(
        &mut self,
        statement: Scoped,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let values = scoped_values(&self.org, values);
        let answer = self.link.fetch_all(statement.text, &values).await;
        self.checked(answer)
    }

    /// The first row of a statement with the org as `$1`.
    pub(crate) async fn first(
        &mut self,
        statement: Scoped,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, StoreError> {
        let values = scoped_values(&self.org, values);
        let answer = self.link.fetch_optional(statement.text, &values).await;
        self.checked(answer)
    }

    pub(crate) fn checked<T>(&mut self, answer: Result<T, DriverError>) -> Result<T, StoreError> {
        answer.map_err(|error| {
            self.broken = true;
            self.inner.driver(error)
        })
    }
}

fn scoped_values<'v>(org: &'v str, values: &[Value<'v>]) -> Vec<Value<'v>> {
    let mut all = Vec::with_capacity(values.len() + 1);
    all.push(Value::from(org));
    all.extend_from_slice(values);
    all
}

impl OrgTx {
    pub(crate) async fn begin(inner: &Arc<Inner>, scope: &OrgScope) -> Result<Self, StoreError> {
        let org = scope.org().to_string();
        let link = match &inner.db {
            Db::Sqlite { writer, .. } => writer.begin().await,
            Db::Postgres { app, .. } => app.begin(begin_with_setting("app.org_id", &org)?).await,
        };
        let link = link.map_err(|error| inner.driver(error))?;
        Ok(Self::over(link, inner, scope))
    }

    /// A transaction over a link that is already bound to the scope: [`crate::identity`] makes the org in it.
    pub(crate) fn over(link: Link, inner: &Arc<Inner>, scope: &OrgScope) -> Self {
        let org = scope.org().to_string();
        let read = OrgRead { link, inner: Arc::clone(inner), scope: scope.clone(), org, broken: false };
        Self {
            read,
            topics: Vec::new(),
            fenced: None,
            ring_changed: false,
            noted: Vec::new(),
            new_head: None,
        }
    }

    /// Runs a statement with the org as `$1`; the number of rows it changed.
    pub(crate) async fn change(
        &mut self,
        statement: Scoped,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let read = &mut self.read;
        let values = scoped_values(&read.org, values);
        let answer = read.link.execute(statement.text, &values).await;
        read.checked(answer)
    }

    /// Inserts many rows; `shared` are the values from `$2` on that all rows have in common.
    pub(crate) async fn insert_rows(
        &mut self,
        statement: &'static ScopedRows,
        shared: &[Value<'_>],
        rows: &[Vec<Value<'_>>],
    ) -> Result<u64, StoreError> {
        let read = &mut self.read;
        let shared = scoped_values(&read.org, shared);
        let answer = read.link.insert_rows(statement, &shared, rows).await;
        read.checked(answer)
    }

    /// Notes that somebody may be waiting for what this transaction writes.
    pub(crate) fn announce(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// Makes everything in this transaction durable, what was noted for the audit log included, and wakes those who
    /// wait for it.
    ///
    /// # Errors
    /// Those of [`OrgTx::audit_append`] when something was noted;
    /// `transaction-broken` when a statement of it failed; `disk-full`, `storage-failed`, `database-locked`,
    /// `contention`. Nothing of it was kept then; after `database-unreachable` it may have been.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        if !self.read.broken && !self.noted.is_empty() {
            let noted = std::mem::take(&mut self.noted);
            self.audit_append(noted).await?;
        }
        let Self { read, topics, ring_changed, new_head, .. } = self;
        let OrgRead { link, inner, scope, broken, .. } = read;
        if broken {
            // A failed roll-back closes the connection, which undoes it as well.
            let _ = link.rollback().await;
            return Err(StoreError::TransactionBroken);
        }
        link.commit().await.map_err(|error| inner.driver(error))?;
        if ring_changed {
            inner.rings.forget(scope.org());
        }
        if new_head.is_some() {
            inner.rings.change(scope.org(), |keys| keys.trusted_head = new_head);
        }
        inner.signals.publish(&inner, &topics);
        Ok(())
    }

    /// Undoes everything in this transaction. Dropping it does the same, a little later.
    ///
    /// # Errors
    /// `database-unreachable`, `storage-failed`; it is undone even then.
    pub async fn rollback(self) -> Result<(), StoreError> {
        let OrgRead { link, inner, .. } = self.read;
        link.rollback().await.map_err(|error| inner.driver(error))
    }
}
