//! The export of a log as lines of JSON, and its verification without the database.
//!
//! A record is `{"seq":…,"salt":"…","leaf":"…","record":{…}}`, an erased one
//! `{"seq":…,"commitment":"…","leaf":"…"}`, a checkpoint `{"checkpoint":"…"}`. `record` holds the canonical bytes as
//! they are: what a reader sees is what was committed to. Unknown fields are refused, so nothing unsigned rides along
//! in a file that verifies. A checkpoint stands after the last record that it covers.
//!
//! Promises: hostile files give a verdict or an error, never a panic, in constant memory (lines are bounded).

use super::{Hash, LogKey, LogRecord, LogVerifier, RecordBody, Salt, Step, Tail, VerifyReport};
use crate::error::SealError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::{BufRead, Read as _};

/// The longest line of an export, in bytes.
pub const EXPORT_LINE_LIMIT: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<Salt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commitment: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaf: Option<Hash>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<String>,
}

const EMPTY: Line<'static> =
    Line { seq: None, salt: None, commitment: None, leaf: None, record: None, checkpoint: None };

fn line(value: &Line<'_>) -> Option<String> {
    let mut text = serde_json::to_string(value).ok()?;
    text.push('\n');
    Some(text)
}

/// One record as a line, newline included. `None` when the stored bytes aren't JSON, which no intact record is.
#[must_use]
pub fn export_record_line(record: &LogRecord<'_>) -> Option<String> {
    let (seq, leaf) = (Some(record.seq), Some(record.leaf));
    match &record.body {
        RecordBody::Kept { salt, canonical } => {
            let raw: &RawValue = serde_json::from_slice(canonical).ok()?;
            line(&Line { seq, leaf, salt: Some(*salt), record: Some(raw), ..EMPTY })
        }
        RecordBody::Erased { commitment } => {
            line(&Line { seq, leaf, commitment: Some(*commitment), ..EMPTY })
        }
    }
}

/// One checkpoint as a line, newline included.
#[must_use]
pub fn export_checkpoint_line(note: &str) -> Option<String> {
    line(&Line { checkpoint: Some(note.to_owned()), ..EMPTY })
}

fn feed(verifier: &mut LogVerifier, text: &[u8], number: u64, seen: &mut impl FnMut(&[u8])) -> Step {
    let parsed: Line<'_> = match serde_json::from_slice(text) {
        Ok(parsed) => parsed,
        Err(_) => return verifier.malformed(format!("line {number} is not a line of an audit export")),
    };
    let record = match parsed {
        Line {
            checkpoint: Some(note),
            seq: None,
            salt: None,
            commitment: None,
            leaf: None,
            record: None,
        } => {
            return verifier.checkpoint(&note);
        }
        Line {
            seq: Some(seq),
            leaf: Some(leaf),
            salt: Some(salt),
            record: Some(raw),
            commitment: None,
            checkpoint: None,
        } => {
            seen(raw.get().as_bytes());
            LogRecord { seq, leaf, body: RecordBody::Kept { salt, canonical: raw.get().as_bytes() } }
        }
        Line {
            seq: Some(seq),
            leaf: Some(leaf),
            commitment: Some(commitment),
            salt: None,
            record: None,
            checkpoint: None,
        } => LogRecord { seq, leaf, body: RecordBody::Erased { commitment } },
        _ => {
            return verifier
                .malformed(format!("line {number} is neither a record, an erased record nor a checkpoint"));
        }
    };
    verifier.record(&record)
}

/// Verifies an export with nothing but the log's public key, and a checkpoint kept elsewhere if there is one.
///
/// # Errors
/// `checkpoint-…` when the pinned checkpoint itself doesn't verify; `export-read` when reading fails.
pub fn verify_export(
    reader: impl BufRead,
    key: LogKey,
    tail: Tail,
    pinned: Option<&str>,
) -> Result<VerifyReport, SealError> {
    verify_export_reading(reader, key, tail, pinned, |_| {})
}

/// The same, and hands out the canonical bytes of each record as it is read. They are worth something only once the
/// whole export was found good: keep what is of interest, and look at the verdict first.
///
/// # Errors
/// As [`verify_export`].
pub fn verify_export_reading(
    mut reader: impl BufRead,
    key: LogKey,
    tail: Tail,
    pinned: Option<&str>,
    mut seen: impl FnMut(&[u8]),
) -> Result<VerifyReport, SealError> {
    let mut verifier = LogVerifier::new(key, tail);
    if let Some(note) = pinned {
        verifier.pin(note)?;
    }
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        let limit = EXPORT_LINE_LIMIT as u64 + 1;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut text).map_err(SealError::ExportRead)?;
        if read == 0 {
            break;
        }
        let step = if text.len() > EXPORT_LINE_LIMIT {
            verifier.malformed(format!("line {number} is longer than {EXPORT_LINE_LIMIT} bytes"))
        } else {
            feed(&mut verifier, &text, number, &mut seen)
        };
        if step == Step::Stop {
            break;
        }
    }
    Ok(verifier.finish())
}
