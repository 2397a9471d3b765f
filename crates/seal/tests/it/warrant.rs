//! The signed warrant: whatever is changed, it verifies no more.

use crate::support::{signing_key, warrant};
use serde_json::Value;
use tipstaff_seal::{Domain, Signature, SignedWarrant, SigningKey, SystemEntropy, VerifyingKey};

fn signed() -> (SignedWarrant, VerifyingKey) {
    let key = signing_key(1);
    (SignedWarrant::sign(&warrant(), &key).unwrap(), key.verifying_key())
}

/// All other values that a leaf could be given, one at a time.
fn variants(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![Value::from("x"), Value::from("01890a5d-ac96-774b-bcce-b302099a8057")],
        Value::Bool(b) => vec![Value::Bool(!b), Value::Null],
        Value::Number(n) => {
            let n = n.as_i64().unwrap();
            [n + 1, n - 1, n * 2 + 1, 0, 2]
                .iter()
                .filter(|other| **other != n)
                .map(|n| Value::from(*n))
                .collect()
        }
        Value::String(text) => {
            let mut all = vec![Value::Null, Value::from(format!("{text}x")), Value::from(format!("x{text}"))];
            if let Some(last) = text.chars().next_back() {
                let shorter = &text[..text.len() - last.len_utf8()];
                all.push(Value::from(shorter));
                all.extend(
                    ['0', '1', 'a', 'A', '*']
                        .iter()
                        .filter(|c| **c != last)
                        .map(|c| Value::from(format!("{shorter}{c}"))),
                );
            }
            for word in ["ops", "review", "gardener", "other/name", "refs/heads/main", "**", "evil.example"] {
                if word != text {
                    all.push(Value::from(word));
                }
            }
            all
        }
        Value::Array(items) => {
            let mut all = vec![Value::Array([items.clone(), items.clone()].concat())];
            if !items.is_empty() {
                all.push(Value::Array(Vec::new()));
            }
            all
        }
        Value::Object(map) => {
            let mut wider = map.clone();
            wider.insert("extra".to_owned(), Value::from(1));
            let mut all = vec![Value::Null, Value::Object(wider)];
            all.extend(map.keys().map(|key| {
                let mut less = map.clone();
                less.remove(key);
                Value::Object(less)
            }));
            all
        }
    }
}

/// Calls `visit` with every document that differs from `document` in one value.
fn each_change(document: &Value, visit: &mut dyn FnMut(&str, Value)) {
    fn walk(root: &Value, pointer: &str, visit: &mut dyn FnMut(&str, Value)) {
        let here = root.pointer(pointer).unwrap();
        for variant in variants(here) {
            let mut changed = root.clone();
            *changed.pointer_mut(pointer).unwrap() = variant;
            if changed != *root {
                visit(pointer, changed);
            }
        }
        match here {
            Value::Object(map) => {
                map.keys().for_each(|key| walk(root, &format!("{pointer}/{key}"), visit));
            }
            Value::Array(items) => {
                (0..items.len()).for_each(|index| walk(root, &format!("{pointer}/{index}"), visit));
            }
            _ => {}
        }
    }
    walk(document, "", visit);
}

#[test]
fn it_round_trips_and_hands_out_what_was_signed() {
    let (signed, key) = signed();
    let read = SignedWarrant::from_json(&signed.to_json().unwrap()).unwrap();
    assert_eq!(read, signed);
    assert_eq!(*read.verify(&key).unwrap(), warrant());
}

#[test]
fn every_single_change_breaks_it() {
    let (signed, key) = signed();
    let document: Value = serde_json::from_str(&signed.to_json().unwrap()).unwrap();
    let (mut unreadable, mut refused) = (0, 0);
    each_change(&document, &mut |pointer, changed| match SignedWarrant::from_json(&changed.to_string()) {
        Err(_) => unreadable += 1,
        Ok(read) if read == signed => {
            // Another spelling of the same value; the bytes that are verified are the same.
            panic!("{pointer}: two spellings of one warrant: {changed}");
        }
        Ok(read) => {
            refused += 1;
            assert!(read.verify(&key).is_err(), "{pointer}: {changed}");
        }
    });
    assert!(unreadable > 100 && refused > 100, "the test must reach both: {unreadable} {refused}");
}

#[test]
fn a_fitting_digest_and_canonical_text_do_not_help_without_the_key() {
    let (honest, key) = signed();
    let mut wider = warrant();
    wider.paths.protected.clear();
    // Everything made anew, except that the attacker has another key and names the honest one.
    let mut forged = SignedWarrant::sign(&wider, &signing_key(2)).unwrap();
    assert_eq!(forged.verify(&key).unwrap_err().code(), "signature-by-other");
    forged.key_id = honest.key_id;
    assert_eq!(forged.verify(&key).unwrap_err().code(), "signature-wrong");
    // The honest signed bytes with a wider warrant beside them.
    let mut beside = honest.clone();
    beside.warrant = wider;
    assert_eq!(beside.verify(&key).unwrap_err().code(), "warrant-altered");
    let mut digest = honest.clone();
    digest.digest = forged.digest;
    assert_eq!(digest.verify(&key).unwrap_err().code(), "warrant-altered");
}

#[test]
fn a_signature_for_one_purpose_is_worth_nothing_for_another() {
    let key = SigningKey::generate(&SystemEntropy);
    let domains = [Domain::Warrant, Domain::Approval, Domain::Receipt];
    for signed_for in domains {
        let signature = key.sign(signed_for, b"message");
        for asked in domains {
            let verdict = key.verifying_key().verify(asked, b"message", &signature);
            assert_eq!(verdict.is_ok(), asked == signed_for, "{signed_for:?} {asked:?}");
        }
        assert!(key.verifying_key().verify(signed_for, b"messagf", &signature).is_err());
        // Nor when the purpose's name is moved into the message.
        let smuggled = [signed_for.prefix(), b"message"].concat();
        assert!(key.verifying_key().verify(signed_for, &smuggled, &signature).is_err());
    }
}

#[test]
fn weak_keys_and_loose_spellings_are_refused() {
    // Points of small order: with them one signature verifies for many messages.
    let mut identity = [0_u8; 32];
    identity[0] = 1;
    for weak in [[0; 32], identity] {
        assert_eq!(VerifyingKey::from_bytes(&weak).unwrap_err().code(), "signing-key");
    }
    let key = signing_key(3);
    let public = key.verifying_key().to_string();
    assert_eq!(public.parse::<VerifyingKey>().unwrap(), key.verifying_key());
    for bad in [format!("{public}="), public[1..].to_owned(), String::new()] {
        assert!(bad.parse::<VerifyingKey>().is_err());
    }
    let signature = key.sign(Domain::Warrant, b"x");
    assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
    // S + L is the same scalar: a lax verifier takes both spellings.
    let mut bytes = *signature.as_bytes();
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0_u16;
    for (slot, add) in bytes[32..].iter_mut().zip(order) {
        carry += u16::from(*slot) + u16::from(add);
        *slot = carry as u8;
        carry >>= 8;
    }
    let malleable = Signature::from_bytes(bytes);
    assert!(key.verifying_key().verify(Domain::Warrant, b"x", &malleable).is_err());
}
