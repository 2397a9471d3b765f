//! The operating system's keychain as the place of the ring's key: the Secret Service of freedesktop.org, asked through
//! its own program `secret-tool`.
//!
//! Promises: the key is in no argument and no file; an entry that is there but locked is never replaced by a new one.

use crate::kek::RingKey;
use crate::{SealError, Secret};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tipstaff_model::Entropy;

/// The program.
const PROGRAM: &str = "secret-tool";
/// How long a person may take to unlock the keychain, in looks.
const LOOKS: u32 = 2400;
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);
/// The longest answer that is read, in bytes.
const ANSWER: u64 = 4096;

/// What the program answered.
struct Answer {
    good: bool,
    output: Secret<String>,
}

/// The key in the entry `service`/`account`; a new one when there is no such entry. `lock` keeps two processes from
/// making two.
pub(crate) fn load(
    service: &str,
    account: &str,
    lock: &Path,
    entropy: &dyn Entropy,
) -> Result<RingKey, SealError> {
    let unlocked = |source| SealError::KeyFileIo { path: lock.to_owned(), doing: "locked", source };
    let held =
        File::options().create(true).truncate(false).write(true).mode(0o600).open(lock).map_err(unlocked)?;
    held.lock().map_err(unlocked)?;
    let entry = ["service", service, "account", account];
    let found = ask("lookup", &[], &entry, None)?;
    if found.good && !found.output.expose().is_empty() {
        return RingKey::from_hex(&found.output);
    }
    // A search also lists what is locked; it fails only when no keychain answers.
    let there = ask("search", &["--all"], &entry, None)?;
    if !there.good {
        return Err(refused("no keychain service answers"));
    }
    if !there.output.expose().trim().is_empty() {
        return Err(refused("it is locked or access was denied"));
    }
    let key = RingKey::generate(entropy);
    let stored = ask("store", &["--label=Tipstaff encryption key"], &entry, Some(&key.to_hex()))?;
    if !stored.good {
        return Err(refused("it did not take the key"));
    }
    Ok(key)
}

fn refused(reason: &str) -> SealError {
    SealError::Keychain { reason: reason.to_owned() }
}

/// Runs the program; `input` goes to its standard input, never into its arguments.
#[expect(
    clippy::disallowed_methods,
    reason = "the keychain's own program is asked here and nowhere else; its answer has no other way to us"
)]
fn ask(
    verb: &str,
    options: &[&str],
    entry: &[&str],
    input: Option<&Secret<String>>,
) -> Result<Answer, SealError> {
    let started = Command::new(PROGRAM)
        .arg(verb)
        .args(options)
        .args(entry)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SealError::KeychainAbsent),
        Err(_) => return Err(refused("its program can't be started")),
    };
    let told = (|| {
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            pipe.write_all(input.expose().as_bytes())?;
        }
        Ok::<(), io::Error>(())
    })();
    let ended = wait(&mut child);
    let mut output = String::new();
    if let Some(pipe) = child.stdout.take() {
        // Its answers are short; the pipe holds them after its end.
        let _what_is_no_text = pipe.take(ANSWER).read_to_string(&mut output);
    }
    let output = Secret::new(output);
    match ended {
        Some(good) => Ok(Answer { good: good && told.is_ok(), output }),
        None => Err(refused("nobody unlocked it in time")),
    }
}

/// Whether the program ended well; `None` when it had to be ended.
#[expect(
    clippy::disallowed_methods,
    reason = "waiting for a program that has no other way to be waited for in time"
)]
fn wait(child: &mut Child) -> Option<bool> {
    for _ in 0..LOOKS {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) => std::thread::sleep(LOOK),
            Err(_) => break,
        }
    }
    // It is gone, or goes now.
    let _ended = child.kill();
    let _reaped = child.wait();
    None
}
