//! A sealed value opens in its own place under its own key, and nowhere and with nothing else.

use proptest::prelude::*;
use tipstaff_model::{FixedClock, FixedEntropy, OrgId};
use tipstaff_seal::ring::SEALED_PLAINTEXT_LIMIT;
use tipstaff_seal::{Ring, RingKey, SealContext, WrappedKey, key_id_of, rewrap};

const PLACE: SealContext<'static> =
    SealContext { org: OrgId::from_bytes([7; 16]), table: "secret", row: "42", column: "value" };

struct Fixture {
    entropy: FixedEntropy,
    clock: FixedClock,
    key: RingKey,
    ring: Ring,
    wrapped: WrappedKey,
}

fn fixture(seed: u64) -> Fixture {
    let (entropy, clock) = (FixedEntropy::seeded(seed), FixedClock::at(1_700_000_000_000));
    let key = RingKey::generate(&entropy);
    let (ring, wrapped) = Ring::create(PLACE.org, "main", &key, &clock, &entropy).unwrap();
    Fixture { entropy, clock, key, ring, wrapped }
}

fn code<T>(result: Result<T, tipstaff_seal::SealError>) -> &'static str {
    result.err().expect("must fail").code()
}

#[test]
fn the_same_value_seals_differently_each_time() {
    let f = fixture(1);
    let first = f.ring.seal(&PLACE, b"x", &f.entropy).unwrap();
    let second = f.ring.seal(&PLACE, b"x", &f.entropy).unwrap();
    assert_ne!(first, second);
    assert_eq!(key_id_of(first.as_str()).unwrap(), *f.ring.current());
}

#[test]
fn every_other_place_org_and_key_has_its_error() {
    let f = fixture(1);
    let sealed = f.ring.seal(&PLACE, b"hunter2", &f.entropy).unwrap();
    let sealed = sealed.as_str();
    for other in [
        SealContext { table: "secrets", ..PLACE },
        SealContext { row: "43", ..PLACE },
        SealContext { column: "name", ..PLACE },
        // The same letters divided differently.
        SealContext { table: "secret4", row: "2", ..PLACE },
        SealContext { row: "42v", column: "alue", ..PLACE },
    ] {
        assert_eq!(code(f.ring.open(&other, sealed)), "sealed-altered", "{other:?}");
    }
    let other_org = SealContext { org: OrgId::from_bytes([8; 16]), ..PLACE };
    assert_eq!(code(f.ring.open(&other_org, sealed)), "sealed-org");
    assert_eq!(code(f.ring.seal(&other_org, b"x", &f.entropy)), "sealed-org");

    // A ring of another org that holds the very same key: what the database's owner could arrange by copying rows.
    assert_eq!(
        code(Ring::open_ring(other_org.org, "main", &f.key, f.wrapped.id(), [&f.wrapped])),
        "wrapped-altered"
    );
    assert_eq!(
        code(Ring::open_ring(PLACE.org, "other", &f.key, f.wrapped.id(), [&f.wrapped])),
        "wrapped-altered"
    );

    let stranger = fixture(2);
    assert_eq!(code(stranger.ring.open(&PLACE, sealed)), "key-unknown");
}

#[test]
fn a_value_can_not_be_passed_off_under_another_key_of_the_ring() {
    let f = fixture(1);
    let old = f.ring.seal(&PLACE, b"x", &f.entropy).unwrap();
    let (ring, _) = f.ring.rotate(&f.key, &f.clock, &f.entropy).unwrap();
    let relabelled = old.as_str().replace(f.ring.current().as_str(), ring.current().as_str());
    assert_ne!(relabelled, old.as_str());
    assert_eq!(code(ring.open(&PLACE, &relabelled)), "sealed-altered");
}

#[test]
fn rotation_moves_values_and_can_run_again_after_an_interruption() {
    let f = fixture(1);
    let places: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let mut stored: Vec<String> = places
        .iter()
        .map(|row| {
            f.ring.seal(&SealContext { row, ..PLACE }, row.as_bytes(), &f.entropy).unwrap().into_string()
        })
        .collect();

    f.clock.advance(1_000);
    let (rotated, new_wrapped) = f.ring.rotate(&f.key, &f.clock, &f.entropy).unwrap();
    assert!(new_wrapped.id() > f.wrapped.id(), "ids sort by time");

    // Half of it, then the process dies: the ring is read again from what was stored.
    for (row, value) in places.iter().zip(&mut stored).take(5) {
        let context = SealContext { row, ..PLACE };
        *value = rotated.reseal(&context, value, &f.entropy).unwrap().unwrap().into_string();
    }
    let wrapped: Vec<WrappedKey> =
        [&f.wrapped, &new_wrapped].iter().map(|key| key.to_string().parse().unwrap()).collect();
    let reopened = Ring::open_ring(PLACE.org, "main", &f.key, new_wrapped.id(), &wrapped).unwrap();
    let mut moved = 0;
    for (row, value) in places.iter().zip(&mut stored) {
        let context = SealContext { row, ..PLACE };
        assert_eq!(reopened.open(&context, value).unwrap().expose(), row.as_bytes());
        if let Some(new) = reopened.reseal(&context, value, &f.entropy).unwrap() {
            *value = new.into_string();
            moved += 1;
        }
    }
    assert_eq!(moved, 5);

    assert_eq!(code(reopened.retire(new_wrapped.id())), "key-current");
    let retired = reopened.retire(f.wrapped.id()).unwrap();
    assert_eq!(code(retired.retire(f.wrapped.id())), "key-unknown");
    assert_eq!(retired.key_ids().collect::<Vec<_>>(), [new_wrapped.id()]);
    for (row, value) in places.iter().zip(&stored) {
        let opened = retired.open(&SealContext { row, ..PLACE }, value).unwrap();
        assert_eq!(opened.expose(), row.as_bytes());
    }
}

#[test]
fn a_new_encryption_key_takes_over_and_the_old_one_is_worth_nothing() {
    let f = fixture(1);
    let sealed = f.ring.seal(&PLACE, b"x", &f.entropy).unwrap();
    let new = RingKey::generate(&f.entropy);
    let rewrapped = rewrap(PLACE.org, "main", &f.key, &new, &f.wrapped, &f.entropy).unwrap();
    assert_eq!((rewrapped.id(), rewrapped.wrapped_by()), (f.wrapped.id(), new.id().as_str()));
    let ring = Ring::open_ring(PLACE.org, "main", &new, rewrapped.id(), [&rewrapped]).unwrap();
    assert_eq!(ring.open(&PLACE, sealed.as_str()).unwrap().expose(), b"x");
    assert_eq!(
        code(Ring::open_ring(PLACE.org, "main", &f.key, rewrapped.id(), [&rewrapped])),
        "wrapped-by-other"
    );
    assert_eq!(code(rewrap(PLACE.org, "main", &new, &f.key, &f.wrapped, &f.entropy)), "wrapped-by-other");
    assert_eq!(code(Ring::open_ring(PLACE.org, "main", &new, rewrapped.id(), [])), "key-unknown");
}

#[test]
fn sizes_at_the_bound() {
    let f = fixture(1);
    for size in [0, 1, SEALED_PLAINTEXT_LIMIT] {
        let plain = vec![0xa5; size];
        let sealed = f.ring.seal(&PLACE, &plain, &f.entropy).unwrap();
        assert_eq!(f.ring.open(&PLACE, sealed.as_str()).unwrap().expose(), &plain);
    }
    let over = vec![0; SEALED_PLAINTEXT_LIMIT + 1];
    assert_eq!(code(f.ring.seal(&PLACE, &over, &f.entropy)), "sealed-too-large");
    let endless =
        format!("tk1.{}.AAAAAAAAAAAAAAAA.{}", f.ring.current(), "A".repeat(4 * SEALED_PLAINTEXT_LIMIT));
    assert_eq!(code(f.ring.open(&PLACE, &endless)), "sealed-format");
}

#[test]
fn text_that_is_no_sealed_value_is_told_apart() {
    let f = fixture(1);
    let sealed = f.ring.seal(&PLACE, b"x", &f.entropy).unwrap().into_string();
    let fields: Vec<&str> = sealed.split('.').collect();
    let (key, nonce, text) = (fields[1], fields[2], fields[3]);
    for bad in [
        String::new(),
        "hunter2".to_owned(),
        "tk1...".to_owned(),
        format!("tk2.{key}.{nonce}.{text}"),
        format!("tk1.{key}.{nonce}"),
        format!("tk1.{key}.{nonce}.{text}."),
        format!("tk1.{key}.{nonce}.{text}="),
        format!("tk1.{key}.{nonce}.{text} "),
        format!(" tk1.{key}.{nonce}.{text}"),
        format!("tk1.{key}.{}.{text}", &nonce[..12]),
        format!("tk1.{key}.{nonce}.AAAA"),
        format!("tk1.{}.{nonce}.{text}", key.to_uppercase()),
        format!("tk1.{}.{nonce}.{text}", &key[1..]),
        format!("tk1.k{}.{nonce}.{text}", "w".repeat(16)),
    ] {
        assert_eq!(code(f.ring.open(&PLACE, &bad)), "sealed-format", "{bad}");
        assert_eq!(code(key_id_of(&bad)), "sealed-format", "{bad}");
    }
}

/// Flips one bit of the bytes behind the `field`th base64 field.
fn flip(text: &str, field: usize, bit: usize) -> String {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut fields: Vec<String> = text.split('.').map(str::to_owned).collect();
    let mut bytes = engine.decode(&fields[field]).unwrap();
    let bit = bit % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    fields[field] = engine.encode(&bytes);
    fields.join(".")
}

#[test]
fn every_flipped_bit_is_found() {
    let f = fixture(3);
    let sealed = f.ring.seal(&PLACE, b"hunter2", &f.entropy).unwrap().into_string();
    for (field, bytes) in [(2, 12), (3, 7 + 16)] {
        for bit in 0..bytes * 8 {
            assert_eq!(code(f.ring.open(&PLACE, &flip(&sealed, field, bit))), "sealed-altered");
        }
    }
    let wrapped = f.wrapped.to_string();
    for (field, bytes) in [(3, 12), (4, 32 + 16)] {
        for bit in 0..bytes * 8 {
            let altered: WrappedKey = flip(&wrapped, field, bit).parse().unwrap();
            let result = Ring::open_ring(PLACE.org, "main", &f.key, altered.id(), [&altered]);
            assert_eq!(code(result), "wrapped-altered");
        }
    }
}

proptest! {
    #[test]
    fn any_value_round_trips_in_any_place(
        plain in proptest::collection::vec(any::<u8>(), 0..300),
        table in ".{0,20}", row in ".{0,20}", column in ".{0,20}",
    ) {
        let f = fixture(4);
        let place = SealContext { org: PLACE.org, table: &table, row: &row, column: &column };
        let sealed = f.ring.seal(&place, &plain, &f.entropy).unwrap();
        let opened = f.ring.open(&place, sealed.as_str()).unwrap();
        prop_assert_eq!(opened.expose(), &plain);
    }

    #[test]
    fn any_other_place_fails(
        a in ("[a-c]{0,3}", "[a-c]{0,3}", "[a-c]{0,3}"),
        b in ("[a-c]{0,3}", "[a-c]{0,3}", "[a-c]{0,3}"),
    ) {
        let f = fixture(5);
        let from = SealContext { org: PLACE.org, table: &a.0, row: &a.1, column: &a.2 };
        let to = SealContext { org: PLACE.org, table: &b.0, row: &b.1, column: &b.2 };
        let sealed = f.ring.seal(&from, b"x", &f.entropy).unwrap();
        prop_assert_eq!(f.ring.open(&to, sealed.as_str()).is_ok(), from == to);
    }

    #[test]
    fn any_altered_text_fails(position in any::<prop::sample::Index>(), replacement in any::<char>()) {
        let f = fixture(6);
        let sealed = f.ring.seal(&PLACE, b"hunter2", &f.entropy).unwrap().into_string();
        let at = position.index(sealed.len());
        let altered: String = sealed
            .chars()
            .enumerate()
            .map(|(index, c)| if index == at { replacement } else { c })
            .collect();
        prop_assume!(altered != sealed);
        prop_assert!(f.ring.open(&PLACE, &altered).is_err());
    }

    #[test]
    fn any_text_gives_an_answer(text in "\\PC{0,80}", tail in "[A-Za-z0-9_.-]{0,80}") {
        let f = fixture(7);
        let _ = f.ring.open(&PLACE, &text);
        let (sealed, wrapped) = (format!("tk1.{}.{tail}", f.ring.current()), format!("tw1.{tail}"));
        prop_assert!(f.ring.open(&PLACE, &sealed).is_err());
        if let Ok(read) = wrapped.parse::<WrappedKey>() {
            prop_assert_eq!(read.to_string(), wrapped);
        }
    }
}
