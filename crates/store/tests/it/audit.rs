//! The audit log: sequenced, sealed, and verified against every kind of vandal.

use crate::support::{World, audit_draft, code, story};
use std::io::Cursor;
use tipstaff_model::{AuditAction, AuditDraft};
use tipstaff_seal::log::{BadKind, Checkpoint, LogVerifier, Tail, VerifyReport, verify_export};
use tipstaff_store::{AuditBody, Engine};

async fn append(world: &World, count: usize) {
    let mut tx = world.begin().await;
    let drafts = (0..count).map(|number| audit_draft(&format!("run:{number}"))).collect();
    tx.audit_append(drafts).await.unwrap();
    tx.commit().await.unwrap();
}

async fn verify(world: &World, pinned: Option<&str>) -> VerifyReport {
    // A fresh process: nothing is trusted from memory.
    let store = world.again().await;
    let mut read = store.read(&world.me.scope).await.unwrap();
    let key = read.audit_key().await.unwrap();
    let mut verifier = LogVerifier::new(key, Tail::Sealed);
    if let Some(note) = pinned {
        verifier.pin(note).unwrap();
    }
    read.audit_verify(verifier).await.unwrap()
}

story! {
    async fn receipts_say_where_records_went(world: World) {
        let mut tx = world.begin().await;
        let first = tx.audit_append(vec![audit_draft("a"), audit_draft("b")]).await.unwrap();
        let second = tx.audit_append(vec![audit_draft("c")]).await.unwrap();
        assert_eq!((first.first, first.count, second.first, second.count), (1, 2, 3, 1));
        let key = tx.audit_key().await.unwrap();
        let checkpoint = Checkpoint::verify(&second.checkpoint, &key).unwrap();
        assert_eq!(checkpoint.size(), 4);
        tx.commit().await.unwrap();
        let mut read = world.read().await;
        assert_eq!(read.audit_checkpoint().await.unwrap().unwrap().note, second.checkpoint);
        let entries = read.audit_list(None, 2).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(read.audit_list(Some(2), 10).await.unwrap().len(), 2);
        let record = entries[0].record().unwrap();
        assert_eq!((record.subject.as_str(), record.seq, record.org), ("c", 3, world.me.scope.org()));
        assert_eq!(read.audit_get(99).await.unwrap(), None);
        assert_eq!(read.audit_get(0).await.unwrap().unwrap().action, AuditAction::OrgCreated.as_str());
    }
}

story! {
    async fn notes_are_kept_with_the_transaction_or_not_at_all(world: World) {
        let mut tx = world.begin().await;
        tx.audit_note(audit_draft("lost"));
        tx.audit_append(vec![audit_draft("lost too")]).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(world.read().await.audit_size().await.unwrap(), 1);
        let mut tx = world.begin().await;
        tx.audit_note(audit_draft("kept"));
        tx.audit_note(audit_draft("kept too"));
        tx.commit().await.unwrap();
        assert_eq!(world.read().await.audit_size().await.unwrap(), 3);
        assert!(verify(&world, None).await.is_good());
    }
}

story! {
    async fn several_processes_append_without_gaps(world: World) {
        let mut writers = Vec::new();
        for number in 0..4 {
            let (store, scope) = (world.again().await, world.me.scope.clone());
            writers.push(tokio::spawn(async move {
                let mut receipts = Vec::new();
                for round in 0..10 {
                    let mut tx = store.begin(&scope).await.unwrap();
                    let draft = AuditDraft::new("system", AuditAction::RunState, format!("{number}/{round}"));
                    receipts.push(tx.audit_append(vec![draft.clone(), draft]).await.unwrap().first);
                    tx.commit().await.unwrap();
                }
                receipts
            }));
        }
        let mut firsts = Vec::new();
        for writer in writers {
            firsts.extend(writer.await.unwrap());
        }
        firsts.sort_unstable();
        assert_eq!(firsts, (0..40).map(|number| 1 + 2 * number).collect::<Vec<_>>());
        let report = verify(&world, None).await;
        assert!(report.is_good(), "{report:?}");
        assert_eq!((report.records, report.sealed, report.checkpoints), (81, 81, 41));
    }
}

story! {
    async fn an_erased_record_leaves_the_log_verifiable(world: World) {
        append(&world, 5).await;
        let mut tx = world.begin().await;
        let receipt = tx.audit_erase(3, "member:1").await.unwrap().unwrap();
        assert_eq!((receipt.seq, receipt.receipt.first), (3, 6));
        assert_eq!(tx.audit_erase(3, "member:1").await.unwrap(), None);
        assert_eq!(tx.audit_erase(77, "member:1").await.unwrap(), None);
        tx.commit().await.unwrap();
        let entry = world.read().await.audit_get(3).await.unwrap().unwrap();
        assert!(matches!(entry.body, AuditBody::Erased { .. }) && entry.record().is_none());
        assert!(!world.vandal("select body from audit_record where seq = 3").contains("run:"));
        let report = verify(&world, None).await;
        assert!(report.is_good(), "{report:?}");
        assert_eq!((report.erased, report.records), (1, 7));
    }
}

story! {
    async fn an_export_is_verified_with_the_key_alone(world: World) {
        append(&world, 3).await;
        append(&world, 4).await;
        let mut read = world.read().await;
        let mut exported = String::new();
        read.audit_export(|line| { exported.push_str(line); Ok(()) }).await.unwrap();
        let key = read.audit_key().await.unwrap();
        let report = verify_export(Cursor::new(&exported), key, Tail::Sealed, None).unwrap();
        assert!(report.is_good());
        assert_eq!((report.records, report.checkpoints), (8, 3));
        let tampered = exported.replacen("run:2", "run:9", 1);
        let report = verify_export(Cursor::new(&tampered), key, Tail::Sealed, None).unwrap();
        assert_eq!(report.first_bad.unwrap().position, 3);
        let full = read.audit_export(|_| Err(std::io::Error::from(std::io::ErrorKind::StorageFull))).await;
        assert_eq!(code(full), "export");
    }
}

/// Each kind of vandalism, what it does, and the first bad position that verifying must name.
fn vandals(engine: Engine) -> Vec<(&'static str, String, u64, BadKind)> {
    let text = |from: &str, to: &str| match engine {
        Engine::Sqlite => format!("cast(replace(cast(body as text), '{from}', '{to}') as blob)"),
        Engine::Postgres => {
            format!("convert_to(replace(convert_from(body, 'UTF8'), '{from}', '{to}'), 'UTF8')")
        }
    };
    let swap = "update audit_record set seq = -1 where seq = 4; update audit_record set seq = 4 where seq = 5; \
                update audit_record set seq = 5 where seq = -1";
    let zero = match engine {
        Engine::Sqlite => "zeroblob(32)",
        Engine::Postgres => "decode(repeat('00', 32), 'hex')",
    };
    vec![
        (
            "another text",
            format!("update audit_record set body = {} where seq = 4", text("run:0", "run:8")),
            4,
            BadKind::Tampered,
        ),
        ("another leaf", format!("update audit_record set leaf_hash = {zero} where seq = 6"), 6, BadKind::Tampered),
        ("another time beside it", "update audit_record set at = at + 1 where seq = 6".to_owned(), 6, BadKind::Tampered),
        (
            "another action beside it",
            "update audit_record set action = 'run.decided' where seq = 7".to_owned(),
            7,
            BadKind::Tampered,
        ),
        ("two swapped", swap.to_owned(), 4, BadKind::Reordered),
        ("one removed", "delete from audit_record where seq = 2".to_owned(), 2, BadKind::Missing),
        ("the end cut off", "delete from audit_record where seq >= 7".to_owned(), 7, BadKind::Truncated),
        (
            "erased without telling",
            format!("update audit_record set body = null, salt = null, commitment = {zero} where seq = 5"),
            5,
            BadKind::Tampered,
        ),
        (
            "the last checkpoint removed",
            "delete from audit_checkpoint where size > 4".to_owned(),
            4,
            BadKind::Unsealed,
        ),
        (
            "a checkpoint altered",
            "update audit_checkpoint set note = replace(note, 'tipstaff/audit/', 'tipstaff/audix/') where size = 4"
                .to_owned(),
            3,
            BadKind::CheckpointForged,
        ),
    ]
}

async fn every_vandal_is_found(engine: Engine) {
    let count = vandals(engine).len();
    for number in 0..count {
        let world = World::new(engine).await;
        append(&world, 3).await;
        append(&world, 6).await;
        assert!(verify(&world, None).await.is_good());
        let (name, text, position, kind) = vandals(engine).swap_remove(number);
        world.vandal(&text);
        let report = verify(&world, None).await;
        let bad = report.first_bad.unwrap_or_else(|| panic!("{name} was not found"));
        assert_eq!((bad.position, bad.kind), (position, kind), "{name}: {}", bad.explanation);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vandal_is_found_on_sqlite() {
    every_vandal_is_found(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vandal_is_found_on_postgres() {
    every_vandal_is_found(Engine::Postgres).await;
}

story! {
    async fn records_and_checkpoints_cut_off_together_show_against_a_kept_checkpoint(world: World) {
        append(&world, 3).await;
        append(&world, 3).await;
        let kept = world.read().await.audit_checkpoint().await.unwrap().unwrap().note;
        world.vandal("delete from audit_record where seq >= 4; delete from audit_checkpoint where size > 4");
        assert!(verify(&world, None).await.is_good(), "the stored log alone can't show it");
        let bad = verify(&world, Some(&kept)).await.first_bad.unwrap();
        assert_eq!((bad.position, bad.kind), (4, BadKind::Truncated));
    }
}

story! {
    async fn a_head_that_was_rewritten_is_not_signed_again(world: World) {
        append(&world, 3).await;
        // A vandal who rewrites the head wants our key to sign it with the next record.
        match world.engine {
            Engine::Sqlite => {
                world.vandal("update audit_head set size = 2, frontier = cast(x'010000000000000002' || zeroblob(32) as blob)");
            }
            Engine::Postgres => {
                world.vandal(
                    "update audit_head set size = 2, frontier = decode('010000000000000002' || repeat('00', 32), 'hex')",
                );
            }
        }
        let fresh = world.again().await;
        let mut tx = fresh.begin(&world.me.scope).await.unwrap();
        assert_eq!(code(tx.audit_append(vec![audit_draft("x")]).await), "proof-wrong");
        drop(tx);
        // Neither is an empty one, after everything was removed.
        match world.engine {
            Engine::Sqlite => world.vandal("update audit_head set size = 0, frontier = x'010000000000000000'"),
            Engine::Postgres => {
                world.vandal("update audit_head set size = 0, frontier = decode('010000000000000000', 'hex')")
            }
        };
        for store in [world.again().await, world.store.clone()] {
            let mut tx = store.begin(&world.me.scope).await.unwrap();
            assert_eq!(code(tx.audit_append(vec![audit_draft("x")]).await), "proof-wrong");
        }
    }
}
