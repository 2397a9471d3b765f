//! No secret shows in what is printed: every public type is formatted and searched.

use crate::support::{CountingEntropy, Log, org, signing_key, warrant};
use std::fmt::{Debug, Display};
use tipstaff_model::{Entropy as _, FixedClock};
use tipstaff_seal::log::{Checkpoint, Hash, LogVerifier, Salt, Tail};
use tipstaff_seal::scrub::{Colours, Scrubber};
use tipstaff_seal::token::{Token, TokenKind};
use tipstaff_seal::{
    KekSource, Ring, RingKey, SealContext, SealError, Secret, SignedWarrant, SystemClock, SystemEntropy,
};

const PLAIN: &str = "correct-horse-battery-staple";

/// Every way in which bytes might be printed.
fn spellings(bytes: &[u8]) -> Vec<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let list = format!("{bytes:?}");
    vec![
        hex.to_uppercase(),
        hex,
        list.trim_matches(['[', ']']).to_owned(),
        STANDARD_NO_PAD.encode(bytes),
        URL_SAFE_NO_PAD.encode(bytes),
        String::from_utf8_lossy(bytes).into_owned(),
    ]
}

struct Shown(String);

impl Shown {
    fn debug(&mut self, value: &dyn Debug) {
        self.0.push_str(&format!("{value:?}\n{value:#?}\n"));
    }

    fn error(&mut self, error: &SealError) {
        self.0.push_str(&format!("{error}\n{error:?}\n{error:#?}\n{}\n", error.code()));
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            self.0.push_str(&format!("{inner}\n{inner:?}\n"));
            source = inner.source();
        }
    }

    fn display(&mut self, value: &dyn Display) {
        self.0.push_str(&format!("{value}\n"));
    }
}

#[test]
fn no_secret_is_printed() {
    let (entropy, clock) = (CountingEntropy::default(), FixedClock::at(1_700_000_000_000));
    let mut shown = Shown(String::new());
    let place = SealContext { org: org(), table: "secret", row: "1", column: "value" };

    let key = RingKey::generate(&entropy); // 00 … 1f
    let hex = key.to_hex();
    let (ring, wrapped) = Ring::create(org(), "main", &key, &clock, &entropy).unwrap(); // id 20..24, key 24 … 43
    let sealed = ring.seal(&place, PLAIN.as_bytes(), &entropy).unwrap();
    let opened = ring.open(&place, sealed.as_str()).unwrap();
    let signing = signing_key(0x5a);
    let token = Token::new(TokenKind::Person, org(), &entropy);
    let text_secret = Secret::new(PLAIN.to_owned());
    let source = KekSource::Hex(Secret::new(hex.expose().clone()));
    let private = signing.to_secret();
    let signed = SignedWarrant::sign(&warrant(), &signing).unwrap();

    let values: Vec<&dyn Debug> = vec![
        &key,
        &hex,
        &ring,
        &wrapped,
        &sealed,
        &opened,
        &signing,
        &private,
        &token,
        &text_secret,
        &source,
        &place,
        &signed,
    ];
    values.into_iter().for_each(|value| shown.debug(value));
    shown.debug(&signing.verifying_key());
    shown.debug(&signing.sign(tipstaff_seal::Domain::Receipt, b"x"));
    shown.debug(&(SystemClock, SystemEntropy, token.hash(), token.kind(), ring.current(), signing.id()));
    shown.debug(&(Scrubber::new(Colours::Keep), Salt::random(&entropy), Hash::EMPTY));
    shown.debug(&LogVerifier::new(Log::honest(1, 1).key, Tail::Open));
    shown.debug(&Checkpoint::new(org(), 1, Hash::EMPTY));
    shown.display(&source.describe());
    let displays: Vec<&dyn Display> = vec![&sealed, &wrapped, ring.current()];
    displays.into_iter().for_each(|value| shown.display(value));
    shown.display(&token.hash());

    // Errors on every path that had a secret in hand.
    let stranger = RingKey::generate(&SystemEntropy);
    let (other_ring, _) = Ring::create(org(), "main", &stranger, &clock, &SystemEntropy).unwrap();
    let elsewhere = SealContext { row: "2", ..place };
    let big = PLAIN.repeat(100_000);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ring.key");
    std::fs::write(&file, format!("{}x", hex.expose())).unwrap();
    let errors: Vec<Option<SealError>> = vec![
        ring.open(&elsewhere, sealed.as_str()).err(),
        other_ring.open(&place, sealed.as_str()).err(),
        ring.open(&place, PLAIN).err(),
        ring.seal(&place, big.as_bytes(), &entropy).err(),
        Ring::open_ring(org(), "main", &stranger, wrapped.id(), [&wrapped]).err(),
        Ring::open_ring(org(), "other", &key, wrapped.id(), [&wrapped]).err(),
        ring.retire(ring.current()).err(),
        RingKey::from_hex(&Secret::new(format!("{}x", hex.expose()))).err(),
        KekSource::Hex(text_secret.clone()).load(&entropy).err(),
        KekSource::File(file).load(&entropy).err(),
        Token::parse(&format!("{}x", token.expose())).err(),
        signed.verify(&signing_key(1).verifying_key()).err(),
        tipstaff_seal::SigningKey::from_secret(&Secret::new(PLAIN.as_bytes().to_vec())).err(),
        PLAIN.parse::<tipstaff_seal::WrappedKey>().err(),
        SignedWarrant::from_json(PLAIN).err(),
    ];
    for error in &errors {
        shown.error(error.as_ref().expect("each of these must fail"));
    }

    let data_key: Vec<u8> = (0x24..0x44).collect();
    let secrets: Vec<Vec<u8>> = vec![
        (0x00..0x20).collect(),
        data_key,
        PLAIN.as_bytes().to_vec(),
        private.expose().clone(),
        token.expose().as_bytes().to_vec(),
        token.expose().as_bytes()[17..60].to_vec(),
        hex.expose().as_bytes().to_vec(),
    ];
    for secret in secrets {
        for spelling in spellings(&secret) {
            assert!(!shown.0.contains(&spelling), "{spelling} shows in:\n{}", shown.0);
        }
    }

    // The search itself works: the data key is where it was taken to be.
    let mut again = [0; 68];
    CountingEntropy::default().fill(&mut again);
    assert_eq!(again[0x24..0x44].to_vec(), (0x24..0x44).collect::<Vec<u8>>());
    assert!(spellings(&[0xab, 0xcd]).contains(&"abcd".to_owned()));
}
