//! The export: it verifies with the public key alone, and hostile files do no harm.

use crate::support::{Log, Row};
use proptest::prelude::*;
use std::io::{self, BufReader, Read};
use tipstaff_seal::log::{
    BadKind, Checkpoint, EXPORT_LINE_LIMIT, Hash, LogRecord, RecordBody, Tail, VerifyReport,
    export_checkpoint_line, export_record_line, verify_export,
};

fn export(log: &Log) -> String {
    let mut out = String::new();
    let mut notes = log.notes.iter().peekable();
    for row in &log.rows {
        out.push_str(&export_record_line(&row.record()).unwrap());
        while let Some(note) = notes.next_if(|note| Checkpoint::parse(note).unwrap().size() <= row.seq + 1) {
            out.push_str(&export_checkpoint_line(note).unwrap());
        }
    }
    out
}

fn verify(log: &Log, text: &[u8]) -> VerifyReport {
    verify_export(text, log.key, Tail::Sealed, None).unwrap()
}

#[test]
fn it_verifies_offline_with_and_without_the_pinned_checkpoint() {
    let mut log = Log::honest(40, 7);
    let row = &mut log.rows[5];
    row.erased = Some(Hash::commitment(&row.salt, &row.canonical));
    let text = export(&log);
    let report = verify(&log, text.as_bytes());
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.records, report.erased, report.checkpoints), (40, 1, 6));
    assert!(!text.lines().nth(5).unwrap().contains("done"), "the erased text is not in it");
    let pinned = verify_export(text.as_bytes(), log.key, Tail::Sealed, Some(&log.notes[2])).unwrap();
    assert!(pinned.is_good());
    // The last newline may be missing, and an empty export is an empty log.
    assert!(verify(&log, text.trim_end().as_bytes()).is_good());
    assert!(verify(&log, b"").is_good());
}

#[test]
fn lines_that_were_cut_moved_or_added_are_found() {
    let log = Log::honest(40, 7);
    let text = export(&log);
    let lines: Vec<&str> = text.lines().collect();
    for at in 0..lines.len() {
        let mut fewer = lines.clone();
        let gone = fewer.remove(at);
        let report = verify(&log, fewer.join("\n").as_bytes());
        // Without one of its inner checkpoints the log is as good as with it.
        let inner = gone.contains("checkpoint") && at + 1 < lines.len();
        assert_eq!(report.is_good(), inner, "{at}: {gone}");
    }
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    assert_eq!(verify(&log, swapped.join("\n").as_bytes()).first_bad.unwrap().position, 3);
    for added in [
        "{}",
        "[]",
        "null",
        "",
        "{\"seq\":40}",
        "{\"checkpoint\":1}",
        "{\"checkpoint\":\"x\",\"seq\":1}",
        "x",
    ] {
        let mut more = lines.clone();
        more.insert(10, added);
        let bad = verify(&log, more.join("\n").as_bytes()).first_bad.unwrap();
        assert_eq!((bad.kind, bad.position), (BadKind::Malformed, 9), "{added}");
    }
}

#[test]
fn nothing_unsigned_rides_along() {
    let log = Log::honest(3, 3);
    let text = export(&log);
    for (from, to) in [
        ("{\"seq\":0,", "{\"note\":\"approved by the board\",\"seq\":0,"),
        ("{\"seq\":0,", "{\"seq\":0,\"seq\":0,"),
        ("\"record\":{", "\"record\":{\"extra\":1,"),
        ("\"record\":{", "\"record\": {"),
        ("\"actor\":\"system\"", "\"actor\": \"system\""),
        ("\"actor\":\"system\"", "\"actor\":\"syste\\u006d\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let report = verify(&log, changed.as_bytes());
        let spaces_around_the_value_only = to == "\"record\": {";
        assert_eq!(report.is_good(), spaces_around_the_value_only, "{to}");
    }
}

#[test]
fn every_flipped_bit_of_an_export_is_found() {
    let log = Log::honest(3, 2);
    let text = export(&log).into_bytes();
    let last_newline = text.len() - 1;
    for bit in 0..text.len() * 8 {
        let mut changed = text.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let good = verify(&log, &changed).is_good();
        // White space after the last value says nothing.
        assert!(!good || (bit / 8 == last_newline), "bit {bit}: {}", String::from_utf8_lossy(&changed));
    }
}

#[test]
fn lines_are_as_long_as_the_limit_and_no_longer() {
    let log = Log::honest(1, 1);
    let text = export(&log);
    let (record, checkpoint) = text.trim_end().split_once('\n').unwrap();
    for (length, good) in [(EXPORT_LINE_LIMIT, true), (EXPORT_LINE_LIMIT + 1, false)] {
        let padded = format!("{record}\n{checkpoint}{}", " ".repeat(length - checkpoint.len()));
        assert_eq!(verify(&log, padded.as_bytes()).is_good(), good, "{length}");
    }
}

struct Endless(u64);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'[');
        self.0 += buffer.len() as u64;
        Ok(buffer.len())
    }
}

#[test]
fn an_endless_line_is_given_up_on() {
    let log = Log::honest(1, 1);
    let mut endless = Endless(0);
    let report = verify_export(BufReader::new(&mut endless), log.key, Tail::Sealed, None).unwrap();
    assert_eq!(report.first_bad.unwrap().kind, BadKind::Malformed);
    assert!(endless.0 < 2 * EXPORT_LINE_LIMIT as u64);
}

#[test]
fn a_reader_that_fails_is_an_error_not_a_verdict() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let log = Log::honest(1, 1);
    let error = verify_export(BufReader::new(Broken), log.key, Tail::Sealed, None).unwrap_err();
    assert_eq!(error.code(), "export-read");
}

#[test]
fn stored_bytes_that_are_no_json_are_not_exported_as_if_they_were() {
    let log = Log::honest(1, 1);
    let Row { salt, leaf, .. } = log.rows[0];
    for canonical in [&b"not json"[..], b"{}\n{}", b"", b"\xff"] {
        let record = LogRecord { seq: 0, body: RecordBody::Kept { salt, canonical }, leaf };
        assert_eq!(export_record_line(&record), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let log = Log::honest(2, 2);
        let _ = verify(&log, &bytes);
    }

    #[test]
    fn any_json_gives_an_answer(
        lines in proptest::collection::vec(
            "\\{(\"(seq|salt|leaf|commitment|record|checkpoint)\":([0-9]{1,25}|-1|null|\"[A-Za-z0-9+/=]{0,44}\"|\\{\\}|\\[\\[\\[),?){0,6}\\}", 0..6),
    ) {
        let log = Log::honest(2, 2);
        prop_assert!(lines.is_empty() || !verify(&log, lines.join("\n").as_bytes()).is_good());
    }

    #[test]
    fn any_splice_of_an_export_gives_an_answer(
        from in any::<prop::sample::Index>(), length in 0..100_usize, put in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let log = Log::honest(5, 2);
        let honest = export(&log).into_bytes();
        let start = from.index(honest.len());
        let end = (start + length).min(honest.len());
        let mut changed = honest.clone();
        changed.splice(start..end, put);
        let report = verify(&log, &changed);
        prop_assert!(report.records <= 6);
    }
}
