//! Reading many objects through one `git cat-file --batch`.
//!
//! Promises: an object is handed on piece by piece as git inflates it, so memory does not grow with its size; the reader
//! works on a thread of its own, so that looking through gigabytes holds up no other connection; one time bound holds
//! for all of it.

use crate::error::BrokerError;
use crate::git::GitCommand;
use crate::pack::{ObjectId, ObjectKind};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// Longest line before an object: a path of the request and a word.
const LONGEST_LINE: usize = 8 * 1024;

/// Who takes the objects, in the order of the requests.
pub(super) trait Reader: Send + 'static {
    /// The next object; `None` when there is none of that name.
    fn begin(&mut self, object: Option<(ObjectId, ObjectKind, u64)>);
    /// A piece of it.
    fn piece(&mut self, bytes: &[u8]);
    /// Its end.
    fn end(&mut self);
    /// Whether the rest need not be read.
    fn has_enough(&self) -> bool;
}

/// Reads the objects that `requests` name, each an id or `<commit>:<path>`.
pub(super) async fn read<R: Reader>(
    command: GitCommand<'_>,
    requests: &[Vec<u8>],
    time: Duration,
    reader: R,
) -> Result<R, BrokerError> {
    if requests.is_empty() {
        return Ok(reader);
    }
    let unexpected = || BrokerError::GitUnexpected { command: "cat-file" };
    let mut input = requests.join(&b'\n');
    input.push(b'\n');
    let mut child = command.args(["--batch", "--buffer"]).spawn()?;
    let (stdin, stdout) = (child.take_stdin(), child.take_stdout());
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let machine = Machine { reader, at: At::Line(Vec::new()), left: requests.len() };
    let worker = tokio::task::spawn_blocking(move || machine.take_all(receiver));
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A git that stops reading says why by its exit code, or was told to stop.
            let _ = stdin.write_all(&input).await;
            let _ = stdin.shutdown().await;
        }
    };
    let pass = async move {
        let Some(mut stdout) = stdout else { return };
        loop {
            let mut buffer = BytesMut::with_capacity(PIECE);
            match stdout.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) if sender.send(buffer.freeze()).await.is_ok() => {}
                Ok(_) => return,
            }
        }
    };
    let work = async {
        tokio::join!(feed, pass);
        worker.await.map_err(|_| unexpected())
    };
    let machine = tokio::time::timeout(time, work)
        .await
        .map_err(|_| BrokerError::GitTimeout { command: "cat-file", seconds: time.as_secs() })??;
    child.kill();
    // Reaped here, so that no process of a judged push stays behind it.
    let _ = child.wait().await;
    match machine {
        Some(machine) if machine.left == 0 || machine.reader.has_enough() => Ok(machine.reader),
        _ => Err(unexpected()),
    }
}

struct Machine<R> {
    reader: R,
    at: At,
    /// Objects that have not ended.
    left: usize,
}

enum At {
    Line(Vec<u8>),
    Content(u64),
    /// The line break behind an object.
    Break,
}

impl<R: Reader> Machine<R> {
    fn take_all(mut self, mut pieces: mpsc::Receiver<Bytes>) -> Option<Self> {
        while let Some(bytes) = pieces.blocking_recv() {
            self.take(&bytes)?;
            if self.left == 0 || self.reader.has_enough() {
                break;
            }
        }
        Some(self)
    }

    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() && self.left > 0 {
            match &mut self.at {
                At::Line(line) => {
                    let end = memchr::memchr(b'\n', bytes);
                    let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    if line.len() + part.len() > LONGEST_LINE {
                        return None;
                    }
                    line.extend_from_slice(part);
                    bytes = rest;
                    if end.is_some() {
                        bytes = bytes.get(1..).unwrap_or_default();
                        let line = std::mem::take(line);
                        self.line(&line)?;
                    }
                }
                At::Content(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at(take);
                    *left -= u64::try_from(take).unwrap_or(0);
                    bytes = rest;
                    let done = *left == 0;
                    self.reader.piece(part);
                    if done {
                        self.ends();
                    }
                }
                At::Break => {
                    bytes = bytes.strip_prefix(b"\n")?;
                    self.at = At::Line(Vec::new());
                    self.left -= 1;
                }
            }
        }
        Some(())
    }

    fn line(&mut self, line: &[u8]) -> Option<()> {
        if line.ends_with(b" missing") {
            self.reader.begin(None);
            self.left -= 1;
            return Some(());
        }
        let text = std::str::from_utf8(line).ok()?;
        let mut words = text.split(' ');
        let id = ObjectId::from_hex(words.next()?.as_bytes())?;
        let kind = match words.next()? {
            "commit" => ObjectKind::Commit,
            "tree" => ObjectKind::Tree,
            "blob" => ObjectKind::Blob,
            "tag" => ObjectKind::Tag,
            _ => return None,
        };
        let size = words.next()?.parse().ok()?;
        self.reader.begin(Some((id, kind, size)));
        if size == 0 {
            self.ends();
        } else {
            self.at = At::Content(size);
        }
        Some(())
    }

    fn ends(&mut self) {
        self.reader.end();
        self.at = At::Break;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Reader for Told {
        fn begin(&mut self, object: Option<(ObjectId, ObjectKind, u64)>) {
            self.0.push(object.map_or("none".to_owned(), |(_, kind, size)| format!("{kind:?} {size} ")));
        }
        fn piece(&mut self, bytes: &[u8]) {
            self.0.last_mut().unwrap().push_str(&String::from_utf8_lossy(bytes));
        }
        fn end(&mut self) {
            self.0.last_mut().unwrap().push('.');
        }
        fn has_enough(&self) -> bool {
            false
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cut in prop::collection::vec(1_usize..20, 1..40)) {
            let id = "1".repeat(40);
            let text = format!("{id} blob 5\nab\ncd\nx y:z missing\n{id} tree 0\n\n{id} commit 3\nabc\n");
            let mut machine = Machine { reader: Told::default(), at: At::Line(Vec::new()), left: 4 };
            let mut rest = text.as_bytes();
            for length in cut.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*length).min(rest.len()));
                prop_assert!(machine.take(part).is_some());
                rest = after;
            }
            prop_assert_eq!(machine.left, 0);
            prop_assert_eq!(machine.reader.0, ["Blob 5 ab\ncd.", "none", "Tree 0 .", "Commit 3 abc."]);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut machine = Machine { reader: Told::default(), at: At::Line(Vec::new()), left: 9 };
            let _ = machine.take(&bytes);
        }
    }
}
