//! An agent's standard input: lines on their way to it, bounded in bytes.
//!
//! Promise: writing never waits. An agent that does not read keeps nobody up; what it does not read in time is the end of
//! the conversation with it.

use crate::RunnerError;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::sync::mpsc;

/// What may wait for an agent to read it, in bytes: two of the longest lines that it may send, and more.
pub(crate) const WAITING: usize = 16 * 1024 * 1024;

/// The agent reads too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread;

/// The near end of an agent's standard input.
pub(crate) struct Input {
    lines: Option<mpsc::UnboundedSender<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl Input {
    /// Takes the write end of the pipe.
    pub(crate) fn new(pipe: OwnedFd) -> Result<Self, RunnerError> {
        let mut pipe = Sender::from_owned_fd(pipe).map_err(RunnerError::io("opening the agent's input"))?;
        let (lines, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let (waiting, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (left, closed) = (Arc::clone(&waiting), Arc::clone(&gone));
        tokio::spawn(async move {
            while let Some(line) = queue.recv().await {
                let written = pipe.write_all(&line).await;
                left.fetch_sub(line.len(), Ordering::Relaxed);
                if written.is_err() {
                    closed.store(true, Ordering::Relaxed);
                    return;
                }
            }
        });
        Ok(Self { lines: Some(lines), waiting, gone })
    }

    /// Puts a line behind those that wait. Into an input that is closed nothing is put.
    ///
    /// # Errors
    /// [`Unread`] when too much waits already.
    pub(crate) fn send(&self, line: &str) -> Result<(), Unread> {
        let Some(lines) = &self.lines else { return Ok(()) };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        let length = bytes.len();
        if self.waiting.fetch_add(length, Ordering::Relaxed).saturating_add(length) > WAITING {
            return Err(Unread);
        }
        // Whoever closed the other end is gone, or soon will be.
        let _gone = lines.send(bytes);
        Ok(())
    }

    /// Closes it once what waits is written.
    pub(crate) fn close(&mut self) {
        self.lines = None;
    }

    /// Whether we closed it.
    pub(crate) const fn is_closed(&self) -> bool {
        self.lines.is_none()
    }

    /// Whether the agent closed its end.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (read, write) = std::io::pipe().unwrap();
        (read.into(), write.into())
    }

    #[tokio::test]
    async fn what_is_sent_arrives_in_order_and_ends_with_the_end() {
        let (read, write) = pipe();
        let mut input = Input::new(write).unwrap();
        let long = "x".repeat(1024 * 1024);
        for line in ["one", &long, "two"] {
            input.send(line).unwrap();
        }
        input.close();
        input.send("never").unwrap();
        let mut text = String::new();
        let mut read = tokio::net::unix::pipe::Receiver::from_owned_fd(read).unwrap();
        read.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, format!("one\n{long}\ntwo\n"));
        assert!(input.is_closed() && !input.is_gone());
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_is_given_up_at_the_bound() {
        let (_read, write) = pipe();
        let input = Input::new(write).unwrap();
        let line = "x".repeat(1024 * 1024);
        let sent = (0..100).take_while(|_| input.send(&line).is_ok()).count();
        assert!((15..=16).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn an_agent_that_closed_its_end_is_noticed() {
        let (read, write) = pipe();
        let input = Input::new(write).unwrap();
        drop(read);
        input.send("hello").unwrap();
        while !input.is_gone() {
            tokio::task::yield_now().await;
        }
        input.send("again").unwrap();
    }
}
