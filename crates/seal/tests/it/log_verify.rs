//! Attacks on a stored log. The attacker owns the database; the key and the pinned checkpoints are out of reach.

use crate::support::{Log, Row, body, org, signing_key};
use proptest::prelude::*;
use tipstaff_model::OrgId;
use tipstaff_seal::SigningKey;
use tipstaff_seal::log::{BadKind, Checkpoint, FirstBad, Hash, Salt, Tail, VerifyReport, verify_log};

fn verify(log: &Log, pinned: Option<&str>) -> VerifyReport {
    let notes = log.notes.iter().map(String::as_str);
    verify_log(log.key, Tail::Sealed, pinned, notes, log.rows.iter().map(Row::record)).unwrap()
}

#[track_caller]
fn bad(log: &Log, pinned: Option<&str>) -> FirstBad {
    verify(log, pinned).first_bad.expect("the attack must be found")
}

#[track_caller]
fn expect_bad(log: &Log, position: u64, kind: BadKind, until: Option<u64>) {
    let found = bad(log, None);
    assert_eq!((found.position, found.kind, found.until), (position, kind, until), "{}", found.explanation);
    assert!(!found.explanation.is_empty());
}

fn rewrite(row: &mut Row) {
    row.canonical = body(row.seq, "nothing happened");
    row.refit();
}

#[test]
fn an_honest_log_is_good_whatever_its_size_and_checkpoints() {
    for count in [0, 1, 2, 3, 31, 32, 33, 70] {
        for every in [1, 7, 100] {
            let log = Log::honest(count, every);
            let report = verify(&log, log.notes.last().map(String::as_str));
            assert!(report.is_good(), "{report:?}");
            assert_eq!((report.records, report.sealed, report.erased), (count, count, 0));
        }
    }
}

#[test]
fn every_earlier_checkpoint_can_be_the_pinned_one() {
    let log = Log::honest(40, 7);
    for note in &log.notes {
        assert!(verify(&log, Some(note)).is_good());
        let stripped = Log { notes: vec![log.notes.last().unwrap().clone()], ..log.clone() };
        assert!(verify(&stripped, Some(note)).is_good());
    }
}

#[test]
fn changed_text_is_found_where_it_stands() {
    for position in 0..40 {
        let mut log = Log::honest(40, 7);
        log.rows[position].canonical = body(position as u64, "nothing happened");
        expect_bad(&log, position as u64, BadKind::Tampered, None);

        let mut log = Log::honest(40, 7);
        log.rows[position].salt = Salt::from_slice(&[0; 16]).unwrap();
        expect_bad(&log, position as u64, BadKind::Tampered, None);
    }
}

#[test]
fn text_and_leaf_changed_together_are_found_between_two_checkpoints() {
    for position in 0..40_u64 {
        let mut log = Log::honest(40, 7);
        rewrite(&mut log.rows[position as usize]);
        let from = position / 7 * 7;
        expect_bad(&log, from, BadKind::Rewritten, Some((from + 7).min(40)));
    }
}

#[test]
fn of_several_faults_the_first_is_named() {
    let mut log = Log::honest(40, 7);
    rewrite(&mut log.rows[3]);
    log.rows[20].canonical.push(b' ');
    expect_bad(&log, 0, BadKind::Rewritten, Some(7));

    let mut log = Log::honest(40, 7);
    log.rows[20].canonical.push(b' ');
    log.rows[30].canonical.push(b' ');
    log.rows.remove(35);
    expect_bad(&log, 20, BadKind::Tampered, None);

    // A garbage leaf beside the changed text doesn't hide the place.
    let mut log = Log::honest(40, 7);
    log.rows[20].canonical.push(b' ');
    log.rows[20].leaf = Hash([1; 32]);
    expect_bad(&log, 20, BadKind::Tampered, None);
}

#[test]
fn exchanged_records_are_found_however_thoroughly() {
    for (a, b) in [(0, 1), (3, 4), (2, 38), (13, 14)] {
        let first = a as u64;
        // The rows with their numbers.
        let mut log = Log::honest(40, 7);
        log.rows.swap(a, b);
        expect_bad(
            &log,
            first,
            if b == a + 1 || a > 0 || b > 0 { BadKind::Missing } else { BadKind::Reordered },
            None,
        );

        // Contents without numbers and leaves.
        let mut log = Log::honest(40, 7);
        swap_contents(&mut log, a, b, false);
        expect_bad(&log, first, BadKind::Reordered, None);

        // Contents with leaves: all fits but the place that the record itself names.
        let mut log = Log::honest(40, 7);
        swap_contents(&mut log, a, b, true);
        expect_bad(&log, first, BadKind::Reordered, None);

        // Contents with the numbers inside them adapted, leaves made to fit.
        let mut log = Log::honest(40, 7);
        for (at, text) in [(a, "second"), (b, "first")] {
            log.rows[at].canonical = body(at as u64, text);
            log.rows[at].refit();
        }
        let from = first / 7 * 7;
        expect_bad(&log, from, BadKind::Rewritten, Some(from + 7));
    }
}

fn swap_contents(log: &mut Log, a: usize, b: usize, leaves: bool) {
    let (row_a, row_b) = (log.rows[a].clone(), log.rows[b].clone());
    for (at, from) in [(a, row_b), (b, row_a)] {
        let row = &mut log.rows[at];
        (row.salt, row.canonical) = (from.salt, from.canonical);
        if leaves {
            row.leaf = from.leaf;
        }
    }
}

#[test]
fn removed_records_are_found() {
    for position in 0..39_u64 {
        let mut log = Log::honest(40, 7);
        log.rows.remove(position as usize);
        expect_bad(&log, position, BadKind::Missing, None);

        // The later ones moved up.
        let mut log = Log::honest(40, 7);
        log.rows.remove(position as usize);
        (position..39).for_each(|at| log.rows[at as usize].seq = at);
        expect_bad(&log, position, BadKind::Reordered, None);

        // And their own numbers and leaves adapted.
        let mut log = Log::honest(40, 7);
        log.rows.remove(position as usize);
        for at in position..39 {
            let row = &mut log.rows[at as usize];
            row.seq = at;
            row.canonical = body(at, "done");
            row.refit();
        }
        if position < 35 {
            let from = position / 7 * 7;
            expect_bad(&log, from, BadKind::Rewritten, Some(from + 7));
        } else {
            expect_bad(&log, 39, BadKind::Truncated, None);
            assert_eq!(verify(&log, None).sealed, 35);
        }
    }
}

#[test]
fn a_doubled_record_is_found() {
    let mut log = Log::honest(40, 7);
    let again = log.rows[10].clone();
    log.rows.insert(11, again);
    expect_bad(&log, 11, BadKind::Reordered, None);
}

#[test]
fn a_cut_log_is_found_by_its_checkpoints_and_without_them_by_the_pinned_one() {
    for left in 0..40_usize {
        let mut log = Log::honest(40, 7);
        let pinned = log.notes.last().unwrap().clone();
        log.rows.truncate(left);
        let found = bad(&log, None);
        assert_eq!((found.position, found.kind), (left as u64, BadKind::Truncated));

        // Records and checkpoints together: an older state of the log, which only a pinned checkpoint contradicts.
        log.notes.retain(|note| Checkpoint::parse(note).unwrap().size() <= left as u64);
        log.rows
            .truncate(log.notes.last().map_or(0, |note| Checkpoint::parse(note).unwrap().size() as usize));
        assert!(verify(&log, None).is_good());
        let found = bad(&log, Some(&pinned));
        assert_eq!((found.position, found.kind), (log.rows.len() as u64, BadKind::Truncated));
    }
}

#[test]
fn records_without_a_checkpoint_are_not_vouched_for() {
    let mut log = Log::honest(40, 7);
    log.notes.pop();
    expect_bad(&log, 35, BadKind::Unsealed, Some(40));
    log.notes.clear();
    expect_bad(&log, 0, BadKind::Unsealed, Some(40));
    let open = verify_log(log.key, Tail::Open, None, [], log.rows.iter().map(Row::record)).unwrap();
    assert!(open.is_good());
    assert_eq!((open.records, open.sealed), (40, 0));
    // Open or not, a record that doesn't fit its leaf is bad.
    log.rows[39].canonical.push(b' ');
    let open = verify_log(log.key, Tail::Open, None, [], log.rows.iter().map(Row::record)).unwrap();
    assert_eq!(open.first_bad.unwrap().position, 39);
}

#[test]
fn forged_checkpoints_are_found() {
    // The whole history made anew, signed by another key.
    let mut log = Log::honest(40, 7);
    rewrite(&mut log.rows[30]);
    log.sign_again(&SigningKey::generate(&tipstaff_seal::SystemEntropy));
    let found = bad(&log, None);
    assert_eq!((found.position, found.kind), (6, BadKind::CheckpointForged));

    // One of them only; the records before it are fine.
    let mut log = Log::honest(40, 7);
    let mut other = log.clone();
    other.sign_again(&signing_key(2));
    log.notes[2] = other.notes[2].clone();
    let found = bad(&log, None);
    assert_eq!((found.position, found.kind), (20, BadKind::CheckpointForged));

    // One that nobody can read, and one of another org's log.
    let mut log = Log::honest(40, 7);
    log.notes[2] = "garbage".to_owned();
    assert_eq!(bad(&log, None).kind, BadKind::CheckpointForged);
    let stranger = OrgId::from_bytes([8; 16]);
    log.notes[2] = Checkpoint::new(stranger, 21, Hash::EMPTY).sign(stranger, &signing_key(1)).unwrap();
    assert_eq!(bad(&log, None).kind, BadKind::CheckpointForged);

    // A forged one beyond the end.
    let mut log = Log::honest(40, 7);
    log.notes.push(Checkpoint::new(org(), 50, Hash::EMPTY).sign(org(), &signing_key(2)).unwrap());
    assert_eq!(bad(&log, None).kind, BadKind::CheckpointForged);
}

#[test]
fn a_stolen_key_is_found_by_the_pinned_checkpoint() {
    let honest = Log::honest(40, 7);
    let mut log = honest.clone();
    rewrite(&mut log.rows[3]);
    log.sign_again(&signing_key(1));
    assert!(verify(&log, None).is_good(), "with the key and without a pinned checkpoint this can't be seen");
    for (at, note) in honest.notes.iter().enumerate() {
        let found = bad(&log, Some(note));
        assert_eq!(found.kind, BadKind::CheckpointMismatch, "{found:?}");
        assert!(found.position <= 3 && found.until > Some(3), "pinned {at}: {found:?}");
    }
    // And leaving out the new one of the pinned size doesn't make the others look like proof.
    for (at, note) in honest.notes.iter().enumerate() {
        let mut fewer = log.clone();
        fewer.notes.remove(at);
        let report = verify(&fewer, Some(note));
        let found = report.first_bad.expect("the attack must be found");
        assert!(found.position <= 3 && found.until > Some(3) && report.sealed <= 3, "pinned {at}: {found:?}");
    }
    // Also when the attacker keeps the honest checkpoints beside the new ones.
    log.notes.extend(honest.notes.iter().cloned());
    assert_eq!(bad(&log, None).kind, BadKind::CheckpointMismatch);
}

#[test]
fn a_pinned_checkpoint_that_is_no_good_is_an_error_of_its_own() {
    let log = Log::honest(5, 5);
    let records = || log.rows.iter().map(Row::record);
    let error = verify_log(log.key, Tail::Sealed, Some("garbage"), [], records()).unwrap_err();
    assert_eq!(error.code(), "checkpoint-format");
    let foreign = Checkpoint::new(org(), 5, Hash::EMPTY).sign(org(), &signing_key(2)).unwrap();
    let error = verify_log(log.key, Tail::Sealed, Some(&foreign), [], records()).unwrap_err();
    assert_eq!(error.code(), "checkpoint-forged");
}

#[test]
fn a_record_of_another_org_is_found() {
    let mut log = Log::honest(40, 7);
    let text = String::from_utf8(log.rows[9].canonical.clone()).unwrap();
    log.rows[9].canonical = text.replace("07070707-0707", "08080808-0808").into_bytes();
    log.rows[9].refit();
    expect_bad(&log, 9, BadKind::Reordered, None);
}

#[test]
fn erased_text_keeps_the_log_good_and_can_not_be_replaced() {
    let mut log = Log::honest(40, 7);
    for at in [0, 13, 39] {
        let row = &mut log.rows[at];
        row.erased = Some(Hash::commitment(&row.salt, &row.canonical));
        row.canonical.clear();
    }
    let report = verify(&log, None);
    assert!(report.is_good());
    assert_eq!((report.records, report.erased), (40, 3));

    let mut replaced = log.clone();
    replaced.rows[13].erased = None;
    replaced.rows[13].canonical = body(13, "something else");
    expect_bad(&replaced, 13, BadKind::Tampered, None);
    log.rows[13].erased = Some(Hash([3; 32]));
    expect_bad(&log, 13, BadKind::Tampered, None);
}

#[derive(Debug, Clone)]
enum Attack {
    Text(usize),
    TextAndLeaf(usize),
    Leaf(usize),
    Salt(usize),
    Swap(usize, usize),
    SwapContents(usize, usize),
    Remove(usize),
    RemoveAndRenumber(usize),
    Double(usize),
    Truncate(usize),
    DropNote(usize),
    AlterNote(usize, usize),
    ForeignNotes,
}

fn attack() -> impl Strategy<Value = Attack> {
    let at = 0..40_usize;
    prop_oneof![
        at.clone().prop_map(Attack::Text),
        at.clone().prop_map(Attack::TextAndLeaf),
        at.clone().prop_map(Attack::Leaf),
        at.clone().prop_map(Attack::Salt),
        (at.clone(), at.clone()).prop_map(|(a, b)| Attack::Swap(a, b)),
        (at.clone(), at.clone()).prop_map(|(a, b)| Attack::SwapContents(a, b)),
        at.clone().prop_map(Attack::Remove),
        at.clone().prop_map(Attack::RemoveAndRenumber),
        at.clone().prop_map(Attack::Double),
        at.clone().prop_map(Attack::Truncate),
        (0..6_usize).prop_map(Attack::DropNote),
        (0..6_usize, 0..300_usize).prop_map(|(n, at)| Attack::AlterNote(n, at)),
        Just(Attack::ForeignNotes),
    ]
}

fn apply(log: &mut Log, attack: &Attack) {
    let count = log.rows.len();
    if count == 0 {
        return;
    }
    match *attack {
        Attack::Text(at) => log.rows[at % count].canonical.push(b' '),
        Attack::TextAndLeaf(at) => rewrite(&mut log.rows[at % count]),
        Attack::Leaf(at) => log.rows[at % count].leaf.0[at % 32] ^= 1,
        Attack::Salt(at) => log.rows[at % count].salt = Salt::from_slice(&[at as u8; 16]).unwrap(),
        Attack::Swap(a, b) => log.rows.swap(a % count, b % count),
        Attack::SwapContents(a, b) => swap_contents(log, a % count, b % count, true),
        Attack::Remove(at) => drop(log.rows.remove(at % count)),
        Attack::RemoveAndRenumber(at) => {
            log.rows.remove(at % count);
            (0..count - 1).for_each(|n| log.rows[n].seq = n as u64);
        }
        Attack::Double(at) => log.rows.insert(at % count, log.rows[at % count].clone()),
        Attack::Truncate(at) => log.rows.truncate(at),
        Attack::DropNote(at) => {
            if !log.notes.is_empty() {
                log.notes.remove(at % log.notes.len());
            }
        }
        Attack::AlterNote(note, at) => {
            let notes = log.notes.len();
            if notes > 0 {
                let text = &mut log.notes[note % notes];
                *text = text.chars().enumerate().map(|(n, c)| if n == at { 'Q' } else { c }).collect();
            }
        }
        Attack::ForeignNotes => log.sign_again(&signing_key(2)),
    }
}

/// What the log says to a reader: every record in its place.
fn meaning(log: &Log) -> Vec<(u64, &[u8])> {
    log.rows.iter().map(|row| (row.seq, row.canonical.as_slice())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_combination_of_attacks_makes_another_history_good(
        attacks in proptest::collection::vec(attack(), 1..6), every in 1..15_u64,
    ) {
        let honest = Log::honest(40, every);
        let pinned = honest.notes.last().unwrap();
        let mut log = honest.clone();
        attacks.iter().for_each(|attack| apply(&mut log, attack));
        let report = verify(&log, Some(pinned));
        if meaning(&log) != meaning(&honest) {
            prop_assert!(!report.is_good(), "{attacks:?}");
        }
        // What is vouched for is what was signed; a fault is named no later than it can be known.
        let differs = log.rows.iter().zip(&honest.rows).position(|(a, b)| a != b)
            .unwrap_or(log.rows.len().min(honest.rows.len())) as u64;
        prop_assert!(report.sealed <= differs, "{report:?}, but {differs} differs: {attacks:?}");
        if let Some(bad) = &report.first_bad {
            let exact = bad.until.is_none();
            prop_assert!(bad.position <= differs || (exact && report.sealed <= differs), "{bad:?} {differs}");
        }
        // Without the pinned checkpoint only a cut end may pass.
        let unpinned = verify(&log, None);
        if unpinned.is_good() {
            prop_assert!(meaning(&honest).starts_with(&meaning(&log)), "{attacks:?}");
        }
    }
}
