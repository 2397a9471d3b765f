//! The tree: the same roots as the RFC's definition, from the frontier alone; proofs; checkpoints.

use crate::support::{Log, org, signing_key};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tipstaff_model::OrgId;
use tipstaff_seal::log::Hash;
use tipstaff_seal::log::{
    Checkpoint, ConsistencyProof, Frontier, HashTable, InclusionProof, LOG_SIZE_LIMIT, LogKey, Salt,
};

fn leaf(n: u64) -> Hash {
    Hash::leaf(&Hash(Sha256::digest(n.to_be_bytes()).into()))
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(leaf).collect()
}

/// RFC 6962 §2.1, word for word.
fn root_by_definition(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash(Sha256::digest([]).into()),
        [one] => *one,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(split);
            let (left, right) = (root_by_definition(left), root_by_definition(right));
            Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
        }
    }
}

#[test]
fn roots_are_those_of_the_definition_at_every_size() {
    let mut frontier = Frontier::empty();
    let mut stored = Vec::new();
    for size in 0..200 {
        assert_eq!(frontier.root(), root_by_definition(&leaves(size)), "size {size}");
        assert_eq!(Frontier::read(&frontier.to_bytes()).unwrap(), frontier);
        frontier.append_stored(leaf(size), &mut stored).unwrap();
    }
    assert!(stored.iter().enumerate().all(|(at, item)| item.index == at as u64), "dense, in order");
    assert!(stored.len() < 400);
    let table = HashTable::from_leaves(leaves(200)).unwrap();
    for item in &stored {
        assert_eq!(table.get(item.index), Some(item.hash));
        let first = item.number << item.level;
        let under = leaves(200)[first as usize..(first + (1 << item.level)) as usize].to_vec();
        assert_eq!(item.hash, root_by_definition(&under), "{item:?}");
    }
}

#[test]
fn leaf_and_commitment_are_plain_sha_256() {
    let salt = Salt::from_slice(&[9; 16]).unwrap();
    let commitment = Hash::commitment(&salt, b"record");
    assert_eq!(commitment.0[..], Sha256::digest([&[9; 16][..], b"record"].concat())[..]);
    assert_eq!(Hash::leaf(&commitment).0[..], Sha256::digest([&[0][..], &commitment.0].concat())[..]);
    for length in [0, 15, 17, 32] {
        assert_eq!(Salt::from_slice(&vec![9; length]).unwrap_err().code(), "salt-format");
    }
}

#[test]
fn a_frontier_that_is_not_the_signed_head_is_not_appended_to() {
    let signing = signing_key(1);
    let key = LogKey::new(org(), signing.verifying_key());
    let mut frontier = Frontier::empty();
    let empty = Checkpoint::new(org(), 0, frontier.root()).sign(org(), &signing).unwrap();
    assert_eq!(Frontier::open(&frontier.to_bytes(), &empty, &key).unwrap(), frontier);
    for n in 0..11 {
        frontier.append(leaf(n)).unwrap();
    }
    let note = Checkpoint::new(org(), 11, frontier.root()).sign(org(), &signing).unwrap();
    assert_eq!(Frontier::open(&frontier.to_bytes(), &note, &key).unwrap(), frontier);
    assert_eq!(Frontier::open(&frontier.to_bytes(), &empty, &key).unwrap_err().code(), "proof-wrong");
    let blob = frontier.to_bytes();
    for bit in 0..blob.len() * 8 {
        let mut altered = blob.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(Frontier::open(&altered, &note, &key).is_err(), "bit {bit}");
    }
    let stranger = LogKey::new(org(), signing_key(2).verifying_key());
    assert_eq!(Frontier::open(&blob, &note, &stranger).unwrap_err().code(), "checkpoint-forged");
}

#[test]
fn a_full_log_takes_no_more() {
    let mut blob = vec![1];
    blob.extend_from_slice(&LOG_SIZE_LIMIT.to_be_bytes());
    blob.extend_from_slice(&[5; 32]);
    let mut frontier = Frontier::read(&blob).unwrap();
    assert_eq!(frontier.append(leaf(0)).unwrap_err().code(), "log-full");
    blob[1..9].copy_from_slice(&u64::MAX.to_be_bytes());
    blob.resize(9 + 64 * 32, 5);
    assert_eq!(Frontier::read(&blob).unwrap_err().code(), "frontier-format");
}

#[test]
fn proofs_of_every_record_and_every_pair_of_sizes_hold_and_no_others() {
    let all = leaves(40);
    let table = HashTable::from_leaves(all.clone()).unwrap();
    let roots: Vec<Hash> = (0..=40).map(|size| root_by_definition(&all[..size])).collect();
    for size in 1..=40_u64 {
        for position in 0..size {
            let proof = table.inclusion(size, position).unwrap();
            let right = (all[position as usize], roots[size as usize]);
            proof.verify(right.0, right.1).unwrap();
            assert!(proof.verify(leaf(99), right.1).is_err());
            assert!(proof.verify(right.0, roots[size as usize - 1]).is_err());
            if position + 1 < size {
                let moved = InclusionProof { position: position + 1, ..proof.clone() };
                assert!(moved.verify(right.0, right.1).is_err());
            }
            // What a database has to read is what is said beforehand.
            let wanted = InclusionProof::indexes(size, position).unwrap();
            assert!(wanted.len() <= 12);
            let only_those = |index| wanted.contains(&index).then(|| table.get(index)).flatten();
            assert_eq!(InclusionProof::make(size, position, only_those).unwrap(), proof);
        }
        for old in 0..=size {
            let proof = table.consistency(old, size).unwrap();
            let (old_root, new_root) = (roots[old as usize], roots[size as usize]);
            proof.verify(old_root, new_root).unwrap();
            assert!(proof.verify(leaf(99), new_root).is_err());
            assert!(proof.verify(old_root, leaf(99)).is_err() || old == 0);
            let wanted = ConsistencyProof::indexes(old, size).unwrap();
            let only_those = |index| wanted.contains(&index).then(|| table.get(index)).flatten();
            assert_eq!(ConsistencyProof::make(old, size, only_those).unwrap(), proof);
        }
    }
    assert_eq!(table.inclusion(40, 40).unwrap_err().code(), "proof-range");
    assert_eq!(table.inclusion(u64::MAX, 1).unwrap_err().code(), "proof-range");
    assert_eq!(table.consistency(41, 40).unwrap_err().code(), "proof-range");
    assert_eq!(table.inclusion(41, 3).unwrap_err().code(), "proof-hashes");
}

#[test]
fn the_log_key_reads_back_and_a_miscopied_one_is_refused() {
    let key = LogKey::new(org(), signing_key(1).verifying_key());
    let text = key.to_string();
    assert_eq!(text.parse::<LogKey>().unwrap(), key);
    assert_eq!(format!(" {text}\n").parse::<LogKey>().unwrap(), key);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(changed.parse::<LogKey>().is_err(), "{changed}");
    }
    for bad in ["", "+", "++", "a+b+c", &text[..text.len() - 1]] {
        assert_eq!(bad.parse::<LogKey>().unwrap_err().code(), "log-key-format");
    }
}

#[test]
fn checkpoints_are_for_one_log_and_one_key() {
    let log = Log::honest(5, 5);
    let note = &log.notes[0];
    let checkpoint = Checkpoint::verify(note, &log.key).unwrap();
    assert_eq!((checkpoint.size(), checkpoint.origin()), (5, log.key.origin().as_str()));
    assert_eq!(checkpoint.root(), root_by_definition(&log.leaves()));
    assert_eq!(Checkpoint::parse(note).unwrap(), checkpoint);

    let code = |note: &str, key: &LogKey| Checkpoint::verify(note, key).unwrap_err().code();
    let other_org = OrgId::from_bytes([8; 16]);
    assert_eq!(code(note, &LogKey::new(other_org, *log.key.verifying_key())), "checkpoint-origin");
    assert_eq!(code(note, &LogKey::new(org(), signing_key(2).verifying_key())), "checkpoint-forged");
    assert_eq!(checkpoint.sign(other_org, &signing_key(1)).unwrap_err().code(), "checkpoint-origin");
    assert_eq!(code("", &log.key), "checkpoint-format");
    assert_eq!(code(&"x".repeat(100_000), &log.key), "checkpoint-format");

    // A witness may add its line; the log's own must be there.
    let witnessed = format!("{note}— witness.example {}\n", "AAAAAAAA".repeat(9));
    assert_eq!(Checkpoint::verify(&witnessed, &log.key).unwrap(), checkpoint);
    let (text, _) = note.split_once("\n\n").unwrap();
    assert!(
        Checkpoint::verify(&format!("{text}\n\n— witness.example {}\n", "AAAAAAAA".repeat(9)), &log.key)
            .is_err()
    );
}

proptest! {
    #[test]
    fn any_changed_note_is_refused(at in any::<prop::sample::Index>(), c in any::<char>()) {
        let log = Log::honest(5, 5);
        let note = &log.notes[0];
        let at = at.index(note.chars().count());
        let changed: String = note.chars().enumerate().map(|(n, old)| if n == at { c } else { old }).collect();
        prop_assume!(changed != *note);
        prop_assert!(Checkpoint::verify(&changed, &log.key).is_err());
    }

    #[test]
    fn any_text_gives_an_answer(text in "\\PC{0,200}", lines in proptest::collection::vec("[ -~—]{0,60}", 0..8)) {
        let log = Log::honest(1, 1);
        prop_assert!(Checkpoint::verify(&text, &log.key).is_err());
        prop_assert!(Checkpoint::verify(&lines.join("\n"), &log.key).is_err());
        prop_assert!(text.parse::<LogKey>().is_err());
    }

    #[test]
    fn any_blob_gives_an_answer(blob in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(frontier) = Frontier::read(&blob) {
            prop_assert_eq!(frontier.to_bytes(), blob);
        }
    }

    #[test]
    fn any_proof_gives_an_answer(
        size in any::<u64>(), position in any::<u64>(),
        path in proptest::collection::vec(any::<[u8; 32]>(), 0..200),
    ) {
        let path: Vec<Hash> = path.into_iter().map(Hash).collect();
        let inclusion = InclusionProof { size, position, path: path.clone() };
        prop_assert!(inclusion.verify(leaf(0), leaf(1)).is_err());
        let consistency = ConsistencyProof { old_size: position, new_size: size, path };
        prop_assert!(consistency.verify(leaf(0), leaf(1)).is_err());
    }
}
