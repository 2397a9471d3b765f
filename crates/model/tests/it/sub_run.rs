//! A sub-run is granted nothing that the run above it is not, and neither is a sub-run of a sub-run.

use crate::narrowing::{base_warrant, grants_more, narrowing};
use proptest::prelude::*;
use proptest::sample::select;
use tipstaff_model::warrant::{PushGrant, Warrant};
use tipstaff_model::{
    AgentRole, Limits, MicroUsd, Narrowing, OrgId, RefName, RunId, TaskId, WarrantId, WarrantKind,
};

/// The same grant as another run's, in a role.
fn as_run(of: &Warrant, number: u8, role: AgentRole, issued_at: i64) -> Warrant {
    let mut asked = of.clone();
    let task = TaskId::from_bytes([number; 16]);
    asked.id = WarrantId::from_bytes([number; 16]);
    (asked.task, asked.run, asked.role) = (task, RunId::from_bytes([number; 16]), role);
    (asked.subject, asked.parent) = ("member:other".to_owned(), None);
    let length = asked.expires_at - asked.issued_at;
    (asked.issued_at, asked.expires_at) = (issued_at, issued_at + length);
    if let Some(push) = &mut asked.push {
        push.reference = role.branch(task).unwrap();
    }
    asked
}

/// What somebody asks for under `above`: some of what it grants, some of what it does not.
fn wish(above: &Warrant, number: u8, request: Narrowing, role: AgentRole, at: i64) -> Warrant {
    let mut asked = as_run(above, number, role, at);
    let Narrowing { kind, repositories, write, protect, egress, hosts, secrets, models, .. } = request;
    asked.kind = kind.unwrap_or(asked.kind);
    asked.repositories = repositories.unwrap_or(asked.repositories);
    asked.paths.write = write.unwrap_or(asked.paths.write);
    asked.paths.protected = protect;
    asked.egress = egress.unwrap_or(asked.egress);
    asked.hosts = hosts;
    asked.secrets = secrets.unwrap_or(asked.secrets);
    asked.models = models.unwrap_or(asked.models);
    asked.budget = request.budget.unwrap_or(asked.budget);
    asked.limits = request.limits.unwrap_or(asked.limits);
    asked.expires_at = request.expires_at.unwrap_or(asked.expires_at);
    if let Some(push) = request.push {
        let own = asked.push.as_ref().map(|mine| mine.reference.clone());
        asked.push = push.map(|push| match push.reference.short() {
            "main" => push,
            _ => PushGrant { reference: own.unwrap_or(push.reference), ..push },
        });
    }
    let tools = [request.exec, request.submodules, request.lfs];
    let [exec, submodules, lfs] = tools;
    asked.tools.exec = exec.unwrap_or(asked.tools.exec);
    asked.tools.submodules = submodules.unwrap_or(asked.tools.submodules);
    asked.tools.lfs = lfs.unwrap_or(asked.tools.lfs);
    asked
}

/// What `child` grants beyond `above`, the branch of each being its own.
fn beyond(above: &Warrant, child: &Warrant) -> Option<String> {
    let branch = |one: &Warrant| one.role.branch(one.task).unwrap();
    let mut compared = child.clone();
    if let Some(push) = &mut compared.push {
        if push.reference != branch(child) {
            return Some(format!("push {}", push.reference));
        }
        push.reference = branch(above);
    }
    let mut base = above.clone();
    if let Some(push) = &mut base.push {
        push.reference = branch(above);
    }
    grants_more(&base, &compared)
}

fn asked() -> impl Strategy<Value = (Narrowing, AgentRole, i64)> {
    (narrowing(), select(AgentRole::ALL.to_vec()), 1_000_000_i64..1_050_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_sub_run_is_granted_no_more_than_the_run_above_it(
        chain in proptest::collection::vec(asked(), 1..5), fixtures in any::<(bool, bool)>(),
    ) {
        let mut first = base_warrant();
        if fixtures.0 {
            first.paths.fixtures.push("tests/fixtures/**".parse().unwrap());
        }
        let mut line = vec![first];
        for (position, (request, role, at)) in chain.into_iter().enumerate() {
            let above = line.last().unwrap().clone();
            let mut asked = wish(&above, u8::try_from(position).unwrap() + 10, request, role, at);
            if fixtures.1 {
                asked.paths.fixtures = vec!["tests/**".parse().unwrap()];
            }
            let Ok(granted) = above.for_sub_run(asked.clone()) else { continue };
            prop_assert_eq!(granted.parent, Some(above.id));
            prop_assert_eq!((granted.run, granted.task, granted.role), (asked.run, asked.task, asked.role));
            prop_assert!(granted.issued_at + i64::try_from(granted.limits.wall_ms).unwrap()
                <= above.issued_at + i64::try_from(above.limits.wall_ms).unwrap());
            // Admitted here, and by every run above.
            for one in &line {
                prop_assert_eq!(beyond(one, &granted), None);
                prop_assert!(one.admits_sub_run(&granted).is_ok(), "{:?}", one.admits_sub_run(&granted));
            }
            line.push(granted);
        }
    }

    #[test]
    fn what_is_taken_from_a_run_is_taken_from_its_sub_runs(
        request in narrowing(), below in asked(), at in 1_000_000_i64..1_050_000,
    ) {
        let above = base_warrant();
        let (wished, role, _) = below;
        let asked = wish(&above, 10, wished, role, at);
        // A wish that is not admitted leaves the same grant as the run above.
        let child = above.for_sub_run(asked).or_else(|_| {
            above.for_sub_run(as_run(&above, 10, role, at))
        }).unwrap();
        let Ok(less) = above.narrow(WarrantId::from_bytes([20; 16]), request) else { return Ok(()) };
        match child.narrowed_under(WarrantId::from_bytes([21; 16]), &less) {
            Ok(None) => prop_assert_eq!(beyond(&less, &child), None),
            Ok(Some(narrowed)) => {
                prop_assert_eq!(narrowed.parent, Some(child.id));
                prop_assert!(child.covers(&narrowed).is_ok());
                prop_assert!(less.admits_sub_run(&narrowed).is_ok());
                prop_assert_eq!(beyond(&less, &narrowed), None);
            }
            // Then the sub-run ends; it is not admitted any more.
            Err(_) => prop_assert!(less.admits_sub_run(&child).is_err()),
        }
    }
}

/// What a change of a wish that is admitted comes to.
fn refused(change: impl FnOnce(&mut Warrant)) -> (&'static str, String) {
    let above = base_warrant();
    let mut asked = as_run(&above, 10, AgentRole::Builder, 1_000_000);
    above.for_sub_run(asked.clone()).unwrap();
    change(&mut asked);
    let error = above.for_sub_run(asked).unwrap_err();
    assert_eq!(error.code(), "warrant-widening");
    (error.dimension, error.to_string())
}

#[test]
fn what_is_too_much_is_named_with_both_values() {
    let budget = refused(|asked| asked.budget = MicroUsd::from_micro(6_000_000));
    insta::assert_snapshot!(budget.1, @"a sub-run can't be granted more than the run above it: $6.00 is not within its budget, which is $5.00; ask for less, or start the run without --under");
    let host = refused(|asked| asked.egress.push("evil.org".parse().unwrap()));
    insta::assert_snapshot!(host.1, @"a sub-run can't be granted more than the run above it: evil.org:443 is not within its egress, which is *.example.com:443 *.corp.test:443; ask for less, or start the run without --under");
    assert_eq!(refused(|asked| asked.run = RunId::from_bytes([4; 16])).0, "run");
    assert_eq!(refused(|asked| asked.task = TaskId::from_bytes([3; 16])).0, "run");
    assert_eq!(refused(|asked| asked.org = OrgId::from_bytes([9; 16])).0, "run");
    let main = RefName::branch("main").unwrap();
    assert_eq!(refused(|asked| asked.push.as_mut().unwrap().reference = main).0, "push");
    let other = "acme/three".parse().unwrap();
    assert_eq!(refused(|asked| asked.push.as_mut().unwrap().repository = other).0, "push");
    let fixture = "tests/**".parse().unwrap();
    assert_eq!(refused(|asked| asked.paths.fixtures.push(fixture)).0, "paths");
    // The branch of the run above is not its own either.
    let above = base_warrant().push.unwrap().reference;
    assert_eq!(refused(|asked| asked.push.as_mut().unwrap().reference = above).0, "push");
}

#[test]
fn what_takes_away_above_takes_away_below() {
    let mut above = base_warrant();
    above.paths.protect(["src/auth/**".parse().unwrap()]);
    above.limits.processes = 7;
    let mut asked = as_run(&above, 10, AgentRole::CloudEngineer, 1_040_000);
    asked.paths.protected.clear();
    asked.limits = Limits::default();
    let granted = above.for_sub_run(asked.clone()).unwrap();
    assert!(granted.permits_path_write(b"src/auth/x").is_err());
    assert_eq!((granted.limits.processes, granted.limits.wall_ms), (7, 20_000));
    assert_eq!(granted.expires_at, above.expires_at);
    assert_eq!((above.time_for_sub_run(1_059_999), above.time_for_sub_run(1_060_001)), (1, 0));
    let late = as_run(&above, 10, AgentRole::CloudEngineer, 1_060_000);
    assert_eq!(above.for_sub_run(late).unwrap_err().dimension, "time");
    // A run that pushes nothing has no sub-run that does; one that only looks may have others that look.
    above.push = None;
    assert_eq!(above.for_sub_run(asked.clone()).unwrap_err().dimension, "push");
    above.kind = WarrantKind::Review;
    asked.push = None;
    assert_eq!(above.for_sub_run(asked.clone()).unwrap_err().dimension, "kind");
    asked.kind = WarrantKind::Review;
    above.for_sub_run(asked).unwrap();
    let micro = MicroUsd::from_micro;
    assert_eq!(above.budget_for_sub_run(micro(2_000_000), micro(4_500_000)), micro(500_000));
    assert_eq!(above.budget_for_sub_run(micro(2_000_000), micro(9_000_000)), micro(0));
    assert_eq!(above.budget_for_sub_run(micro(2_000_000), micro(1)), micro(2_000_000));
}
