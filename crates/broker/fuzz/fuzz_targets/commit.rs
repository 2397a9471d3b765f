//! Any bytes as a commit: whatever can be attested verifies afterwards, and nothing else does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::attest::{Attestation, attest, claims, read, verify};
use tipstaff_model::RunId;
use tipstaff_seal::{Secret, SigningKey, WarrantDigest};

fuzz_target!(|bytes: &[u8]| {
    assert!(verify(bytes).is_err(), "nobody signed this");
    let _ = claims(bytes);
    let Some(commit) = read(bytes) else { return };
    let Ok(key) = SigningKey::from_secret(&Secret::new(vec![7; 32])) else { return };
    let (run, warrant) = (RunId::from_bytes([1; 16]), WarrantDigest::of(b"a warrant"));
    let attestation = Attestation { run, warrant, key: &key };
    let made = attest(&commit, &commit.parents.clone(), &attestation);
    let vouched = verify(&made).expect("what was attested verifies");
    assert!(vouched.run == run && vouched.warrant == warrant && vouched.key == key.verifying_key());
    let again = read(&made).map(|commit| attest(&commit, &commit.parents.clone(), &attestation));
    assert_eq!(again.as_deref(), Some(made.as_slice()), "attesting twice changes nothing");
});
