//! A warrant that was narrowed while its run goes on: the heartbeat brings it, and it takes the place of the one in force.
//!
//! Promises: nothing takes that place that the control plane's key did not sign, that is of another run, or that grants
//! anything more; whatever else comes is refused, on record, and the end of the run. Narrowing waits for nothing: it is in
//! force before it is on record.

use crate::session::{Listener, Session};
use crate::supervise::Watch;
use std::time::Duration;
use tipstaff_model::{
    AuditAction, AuditDraft, ControlPlaneError, LiveWarrant, Refusal, Rule, Warrant, WarrantId,
};
use tipstaff_seal::{SignedWarrant, VerifyingKey, WarrantDigest};
use tokio::time::Instant;

/// What the warrant of a heartbeat came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the one in force.
    Same,
    /// It is in force now.
    Narrowed {
        /// The generation that began with it.
        generation: u64,
        /// Its digest.
        digest: WarrantDigest,
    },
    /// It does not hold.
    Refused {
        /// Which one it says it is.
        id: Option<WarrantId>,
        /// Why not.
        why: String,
    },
}

/// Judges `text`, a signed warrant, and puts it in force when it holds.
pub(crate) fn judge(live: &LiveWarrant, key: &VerifyingKey, text: &str) -> Taken {
    let refused = |id, why: String| Taken::Refused { id, why };
    let signed = match SignedWarrant::from_json(text) {
        Ok(signed) => signed,
        Err(error) => return refused(None, error.to_string()),
    };
    let id = signed.warrant.id;
    if id == live.warrant().id {
        return Taken::Same;
    }
    let child = match signed.verify(key) {
        Ok(child) => child.clone(),
        Err(error) => return refused(Some(id), error.to_string()),
    };
    match live.narrow_to(child) {
        Ok(generation) => Taken::Narrowed { generation, digest: signed.digest },
        Err(error) => refused(Some(id), error.to_string()),
    }
}

/// Takes the warrant that a heartbeat brought. When the run ends by it, if that is earlier now.
///
/// # Errors
/// When it does not hold: the run is to end, with the error of the control plane where that could not even be put on
/// record.
pub(crate) async fn take(
    watch: &Watch<'_>,
    session: &mut Session,
    listener: &Listener<'_>,
    text: &str,
) -> Result<Option<Instant>, Option<ControlPlaneError>> {
    let before = watch.warrant.warrant();
    match judge(watch.warrant, watch.key, text) {
        Taken::Same => Ok(None),
        Taken::Narrowed { generation, digest } => {
            let now = watch.warrant.warrant();
            (watch.narrowed)(&now);
            session.remark(format!("the warrant was narrowed: {}", difference(&before, &now)), listener);
            let subject = format!("warrant:{}", now.id);
            let draft = AuditDraft::new(format!("run:{}", now.run), AuditAction::WarrantEnforced, subject)
                .with("run", now.run)
                .with("parent", before.id)
                .with("digest", digest)
                .with("generation", generation);
            // It grants less whether or not that can be written down; a store that is gone for long ends the run anyway.
            if let Err(error) = watch.control.record(draft).await {
                session.remark(
                    format!("the narrowed warrant is in force, but not on record: {error}"),
                    listener,
                );
            }
            Ok(earlier_end(&before, &now, watch.clock.wall_ms()))
        }
        Taken::Refused { id, why } => {
            let wanted =
                id.map_or_else(|| "a warrant that can't be read".to_owned(), |id| format!("warrant {id}"));
            let refusal =
                Refusal::new(Rule::WarrantForged, &wanted, format!("it does not take effect: {why}"));
            session.remark(format!("{refusal}; the run ends"), listener);
            Err(watch.control.refusal(refusal).await.err())
        }
    }
}

/// When the command's own time is over, if the narrowed warrant gives it less.
fn earlier_end(before: &Warrant, now: &Warrant, wall_ms: i64) -> Option<Instant> {
    if now.limits.wall_ms >= before.limits.wall_ms {
        return None;
    }
    let end = now.issued_at.saturating_add(i64::try_from(now.limits.wall_ms).unwrap_or(i64::MAX));
    let left = u64::try_from(end.saturating_sub(wall_ms)).unwrap_or(0);
    Some(Instant::now() + Duration::from_millis(left))
}

/// What a warrant grants less than another, in a few words.
fn difference(before: &Warrant, now: &Warrant) -> String {
    let mut parts = Vec::new();
    let mut gone = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            parts.push(format!("{what} {}", names.join(", ")));
        }
    };
    let without = |list: &[String], other: &[String]| -> Vec<String> {
        list.iter().filter(|one| !other.contains(one)).cloned().collect()
    };
    let hosts = |one: &Warrant| one.egress.iter().map(ToString::to_string).collect::<Vec<_>>();
    let secrets = |one: &Warrant| one.secrets.iter().map(|grant| grant.name.clone()).collect::<Vec<_>>();
    let models = |one: &Warrant| {
        one.models.iter().map(|grant| format!("{}/{}", grant.provider, grant.model)).collect::<Vec<_>>()
    };
    let protected = |one: &Warrant| one.paths.protected.iter().map(ToString::to_string).collect::<Vec<_>>();
    gone("no longer reaches", without(&hosts(before), &hosts(now)));
    gone("no longer uses", without(&secrets(before), &secrets(now)));
    gone("no longer asks", without(&models(before), &models(now)));
    gone("protects", without(&protected(now), &protected(before)));
    if before.push_grant().is_some() && now.push_grant().is_none() {
        parts.push("pushes nothing any more".to_owned());
    }
    if now.budget < before.budget {
        parts.push(format!("spends at most {}", now.budget));
    }
    if now.expires_at < before.expires_at || now.limits.wall_ms < before.limits.wall_ms {
        parts.push("ends earlier".to_owned());
    }
    if parts.is_empty() { "it grants less".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tipstaff_model::warrant::{IssueRequest, RepositoryGrant};
    use tipstaff_model::{
        AgentRole, Clock, FixedClock, FixedEntropy, MicroUsd, Narrowing, OrgId, RunId, TaskId,
    };
    use tipstaff_seal::SigningKey;

    const NOW: i64 = 1_700_000_000_000;

    fn warrant(run: u8) -> Warrant {
        let request = IssueRequest {
            ids: (
                WarrantId::from_bytes([run; 16]),
                OrgId::from_bytes([1; 16]),
                TaskId::from_bytes([run; 16]),
                RunId::from_bytes([run; 16]),
            ),
            subject: "member:1".to_owned(),
            role: AgentRole::Builder,
            repository: RepositoryGrant {
                name: "local/house".parse().unwrap(),
                base: "a".repeat(40).parse().unwrap(),
            },
            budget: None,
            wall_ms: Some(600_000),
            egress: vec!["one.example:443".parse().unwrap(), "two.example:443".parse().unwrap()],
            hosts: Vec::new(),
            secrets: Vec::new(),
            models: Vec::new(),
            submodules: false,
            lfs: false,
            now_ms: NOW,
        };
        Warrant::issue(request).unwrap()
    }

    fn less(parent: &Warrant, id: u8) -> Warrant {
        let mut limits = parent.limits;
        limits.wall_ms = 60_000;
        let request = Narrowing {
            egress: Some(vec!["one.example:443".parse().unwrap()]),
            push: Some(None),
            budget: Some(MicroUsd::from_micro(5)),
            limits: Some(limits),
            ..Narrowing::default()
        };
        parent.narrow(WarrantId::from_bytes([id; 16]), request).unwrap()
    }

    fn refused(taken: Taken, part: &str) {
        let Taken::Refused { why, .. } = taken else { panic!("{taken:?}") };
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn only_a_signed_and_narrower_warrant_of_the_same_run_takes_effect() {
        let ours = SigningKey::generate(&FixedEntropy::seeded(1));
        let other = SigningKey::generate(&FixedEntropy::seeded(2));
        let key = ours.verifying_key();
        let clock: Arc<dyn Clock> = Arc::new(FixedClock::at(NOW));
        let first = warrant(7);
        let live = LiveWarrant::new(first.clone(), clock);
        let json =
            |one: &Warrant, key: &SigningKey| SignedWarrant::sign(one, key).unwrap().to_json().unwrap();
        assert_eq!(judge(&live, &key, &json(&first, &ours)), Taken::Same);

        let second = less(&first, 8);
        // Nothing readable, another's signature, another run's warrant, an altered one.
        refused(judge(&live, &key, ""), "warrant");
        refused(judge(&live, &key, &json(&second, &other)), "signed");
        refused(judge(&live, &key, &json(&less(&warrant(9), 10), &ours)), "run");
        let altered = json(&second, &ours).replacen("one.example", "evil.exampl", 2);
        refused(judge(&live, &key, &altered), "");
        let mut wider = second.clone();
        wider.egress.push("evil.example:443".parse().unwrap());
        refused(judge(&live, &key, &json(&wider, &ours)), "evil.example");
        assert_eq!((live.generation(), live.warrant().as_ref()), (0, &first));

        let Taken::Narrowed { generation, .. } = judge(&live, &key, &json(&second, &ours)) else { panic!() };
        assert_eq!((generation, live.warrant().as_ref()), (1, &second));
        // The way back is a widening.
        refused(judge(&live, &key, &json(&first, &ours)), "");
        assert_eq!(live.generation(), 1);
    }

    #[test]
    fn what_is_gone_is_said_and_an_earlier_end_is_found() {
        let first = warrant(7);
        let second = less(&first, 8);
        assert_eq!(
            difference(&first, &second),
            "no longer reaches two.example:443; pushes nothing any more; spends at most $0.000005; ends earlier"
        );
        assert!(earlier_end(&first, &first, NOW).is_none());
        assert!(earlier_end(&first, &second, NOW).unwrap() > Instant::now() + Duration::from_secs(50));
        // A time that is over already ends it now.
        assert!(earlier_end(&first, &second, NOW + 120_000).unwrap() <= Instant::now());
    }
}
