//! Prints how many records per second the log appends and verifies: `cargo run --release --example verify_rate`.

use std::io::Write as _;
use tipstaff_model::{AuditAction, AuditDraft, AuditRecord, Clock as _, OrgId};
use tipstaff_seal::log::{
    Checkpoint, Frontier, Hash, LogKey, LogRecord, RecordBody, Salt, Tail, export_checkpoint_line,
    export_record_line, verify_export, verify_log,
};
use tipstaff_seal::{SealError, SigningKey, SystemClock, SystemEntropy};

const RECORDS: u64 = 400_000;
const CHECKPOINT_EVERY: u64 = 1_000;

fn rate(since: i64) -> i64 {
    let elapsed = (SystemClock.monotonic_ms() - since).max(1);
    i64::try_from(RECORDS).unwrap_or(0) * 1_000 / elapsed
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let org = OrgId::from_bytes([7; 16]);
    let signing = SigningKey::generate(&SystemEntropy);
    let key = LogKey::new(org, signing.verifying_key());
    let mut out = std::io::stdout().lock();

    let mut bodies = Vec::new();
    for seq in 0..RECORDS {
        let draft = AuditDraft::new(
            "run:01890a5d-ac96-774b-bcce-b302099a805a",
            AuditAction::RunState,
            "run:01890a5d",
        )
        .with("from", "preparing")
        .with("to", "running and a few words more");
        bodies.push((
            Salt::random(&SystemEntropy),
            AuditRecord::place(draft, org, seq, 1_700_000_000_000).canonical_bytes()?,
        ));
    }
    let bytes: usize = bodies.iter().map(|(_, body)| body.len()).sum();

    let started = SystemClock.monotonic_ms();
    let (mut frontier, mut notes, mut leaves) = (Frontier::empty(), Vec::new(), Vec::new());
    for (salt, body) in &bodies {
        let leaf = Hash::leaf(&Hash::commitment(salt, body));
        frontier.append(leaf)?;
        leaves.push(leaf);
        if frontier.size().is_multiple_of(CHECKPOINT_EVERY) {
            notes.push(Checkpoint::new(org, frontier.size(), frontier.root()).sign(org, &signing)?);
        }
    }
    writeln!(out, "records of {} bytes on average", bytes / bodies.len())?;
    writeln!(out, "append (hashing, no database): {} records/s", rate(started))?;

    let records = || {
        (0..).zip(bodies.iter().zip(&leaves)).map(|(seq, ((salt, canonical), leaf))| LogRecord {
            seq,
            body: RecordBody::Kept { salt: *salt, canonical },
            leaf: *leaf,
        })
    };
    let started = SystemClock.monotonic_ms();
    let report = verify_log(key, Tail::Sealed, None, notes.iter().map(String::as_str), records())?;
    assert!(report.is_good());
    writeln!(out, "verify: {} records/s, a checkpoint every {CHECKPOINT_EVERY}", rate(started))?;

    let mut export = String::new();
    for (record, at) in records().zip(1_u64..) {
        export.push_str(&export_record_line(&record).ok_or(SealError::HashFormat)?);
        if at.is_multiple_of(CHECKPOINT_EVERY)
            && let Some(note) = notes.get(usize::try_from(at / CHECKPOINT_EVERY - 1)?)
        {
            export.push_str(&export_checkpoint_line(note).ok_or(SealError::HashFormat)?);
        }
    }
    let started = SystemClock.monotonic_ms();
    assert!(verify_export(export.as_bytes(), key, Tail::Sealed, None)?.is_good());
    writeln!(out, "verify an export: {} records/s", rate(started))?;
    Ok(())
}
