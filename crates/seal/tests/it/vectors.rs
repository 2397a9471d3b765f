//! Golden vectors: formats that are stored or handed out can't drift unnoticed.
//!
//! The entropy counts 00 01 02 …, the clock stands at 2023-11-14T22:13:20Z, the org's id is sixteen times 07.

use crate::support::{CountingEntropy, Log, org, signing_key, warrant};
use std::fmt::Write as _;
use tipstaff_model::FixedClock;
use tipstaff_seal::log::{
    Checkpoint, Frontier, Hash, LogRecord, RecordBody, Salt, export_checkpoint_line, export_record_line,
};
use tipstaff_seal::token::{Token, TokenKind};
use tipstaff_seal::{Ring, RingKey, SealContext, SignedWarrant};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn formats_do_not_drift() {
    let (entropy, clock) = (CountingEntropy::default(), FixedClock::at(1_700_000_000_000));
    let mut out = String::new();

    let key = RingKey::generate(&entropy);
    writeln!(out, "ring key id: {}", key.id()).unwrap();
    let (ring, wrapped) = Ring::create(org(), "main", &key, &clock, &entropy).unwrap();
    writeln!(out, "wrapped key: {wrapped}").unwrap();
    let place = SealContext { org: org(), table: "secret", row: "42", column: "value" };
    let sealed = ring.seal(&place, b"hunter2", &entropy).unwrap();
    writeln!(out, "sealed value: {sealed}").unwrap();

    let signing = signing_key(1);
    writeln!(out, "signing key id: {}", signing.id()).unwrap();
    writeln!(out, "public key: {}", signing.verifying_key()).unwrap();
    let signed = SignedWarrant::sign(&warrant(), &signing).unwrap();
    writeln!(out, "warrant digest: {}", signed.digest).unwrap();
    writeln!(out, "warrant signature: {}", signed.signature).unwrap();

    let salt = Salt::random(&entropy);
    let canonical = br#"{"org":"07070707-0707-0707-0707-070707070707","seq":0,"v":1}"#;
    let commitment = Hash::commitment(&salt, canonical);
    let leaf = Hash::leaf(&commitment);
    writeln!(out, "salt: {salt}\ncommitment: {commitment}\nleaf: {leaf}").unwrap();
    let mut frontier = Frontier::empty();
    for _ in 0..3 {
        frontier.append(leaf).unwrap();
    }
    writeln!(out, "frontier of 3: {}\nroot of 3: {}", hex(&frontier.to_bytes()), frontier.root()).unwrap();
    let note = Checkpoint::new(org(), 3, frontier.root()).sign(org(), &signing).unwrap();
    writeln!(out, "log key: {}\ncheckpoint:\n{note}", Log::honest(1, 1).key).unwrap();
    let kept = LogRecord { seq: 0, body: RecordBody::Kept { salt, canonical }, leaf };
    let erased = LogRecord { seq: 0, body: RecordBody::Erased { commitment }, leaf };
    writeln!(
        out,
        "export:\n{}{}{}",
        export_record_line(&kept).unwrap(),
        export_record_line(&erased).unwrap(),
        export_checkpoint_line(&note).unwrap()
    )
    .unwrap();

    let token = Token::new(TokenKind::Worker, org(), &CountingEntropy::default());
    writeln!(out, "token: {}\ntoken hash: {}", token.expose(), token.hash()).unwrap();
    insta::assert_snapshot!(out);
}
