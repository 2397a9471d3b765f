//! `tipstaff warrants narrow`: a warrant in force is replaced by one that grants less.
//!
//! Promises: the new warrant is a narrowing of the one in force and of nothing else; what can't be taken away alone, since a
//! wider pattern grants it too, is refused by name and nothing changes.

use crate::cli::{DroppedHost, NarrowArgs};
use crate::context::Context;
use crate::exit::Problem;
use crate::output::{span, time};
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::warrant::{HostPattern, ModelGrant, ModelPattern, SecretGrant};
use tipstaff_model::{AuditAction, AuditDraft, Narrowing, Warrant, WarrantId};
use tipstaff_seal::SignedWarrant;
use tipstaff_store::{KeyPurpose, OrgTx, StoredWarrant};

/// How long a result may still be collected after the run's own time, in milliseconds; as where warrants are issued.
const COLLECT_MS: i64 = 120_000;

/// Carries out `tipstaff warrants narrow`.
pub(crate) async fn narrow(arguments: &NarrowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    if arguments.is_empty() {
        return Err(Problem::usage(
            "narrowing-empty",
            "nothing is taken away: say what, with --drop-host, --drop-model, --drop-secret, --no-push, --protect, --budget or --timeout",
        ));
    }
    let found = super::warrants::find(context, &arguments.warrant).await?;
    let mut tx = context.store.begin(context.scope()).await?;
    let now_ms = context.clock.wall_ms();
    in_force(&mut tx, &found, now_ms).await?;
    let parent = &found.signed.warrant;
    let keys = tx.verifying_keys(KeyPurpose::Warrant).await?;
    if !keys.iter().any(|key| found.signed.verify(key).is_ok()) {
        return Err(Problem::refused(
            "warrant-forged",
            format!(
                "the signature of the warrant {} does not hold: revoke it and look at the audit log",
                parent.id
            ),
        ));
    }
    let id = WarrantId::new(context.clock.as_ref(), context.entropy.as_ref());
    let child = parent
        .narrow(id, request(arguments, parent, now_ms)?)
        .map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    let signed = SignedWarrant::sign(&child, &tx.signing_key(KeyPurpose::Warrant).await?)?;
    tx.warrant_narrow(&signed).await?;
    tx.audit_note(draft(context.principal.actor(), arguments, parent, &signed));
    let followed = crate::under::follow(context, &mut tx, &child, &context.principal.actor()).await?;
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({
            "warrant": child, "digest": signed.digest, "parent": parent.id, "sub_runs": followed,
        }));
    } else {
        context.output.line(&format!(
            "warrant {id} takes the place of {}; run {} learns it within 5 seconds",
            parent.id,
            child.run.short()
        ));
        context.output.line(&format!(
            "{}, budget {}, {} in all, until {}; `tipstaff policy explain --warrant {id}` shows all of it",
            child.push_ref().map_or_else(|| "no push".to_owned(), |one| format!("push to {}", one.short())),
            child.budget,
            span(child.limits.wall_ms),
            time(child.expires_at)
        ));
        for one in followed {
            context.output.line(&one);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a warrant that is over or was replaced.
async fn in_force(tx: &mut OrgTx, found: &StoredWarrant, now_ms: i64) -> anyhow::Result<()> {
    let grant = &found.signed.warrant;
    if found.revoked_at.is_some() || grant.expires_at <= now_ms {
        return Err(Problem::usage(
            "warrant-not-in-force",
            format!("the warrant {} is out of force already: there is nothing to narrow", grant.id),
        ));
    }
    match tx.warrant_of_run(found.run).await? {
        Some(current) if current.signed.warrant.id == grant.id => Ok(()),
        current => Err(Problem::usage(
            "warrant-replaced",
            match current {
                Some(one) => format!(
                    "the warrant {} was narrowed before; narrow the one in its place: {}",
                    grant.id, one.signed.warrant.id
                ),
                None => format!("the warrant {} is no run's", grant.id),
            },
        )),
    }
}

fn draft(actor: String, arguments: &NarrowArgs, parent: &Warrant, signed: &SignedWarrant) -> AuditDraft {
    let child = &signed.warrant;
    let mut draft = AuditDraft::new(actor, AuditAction::WarrantNarrowed, format!("warrant:{}", child.id))
        .with("run", child.run)
        .with("parent", parent.id)
        .with("digest", signed.digest)
        .with("hosts", child.egress.len())
        .with("models", child.models.len())
        .with("secrets", child.secrets.len())
        .with("push", if child.push_grant().is_some() { "yes" } else { "no" })
        .with("budget_micro_usd", child.budget.micro())
        .with("expires_at", child.expires_at);
    let dropped: Vec<String> = arguments
        .drop_host
        .iter()
        .map(|one| one.choice.to_string())
        .chain(arguments.drop_model.iter().cloned())
        .chain(arguments.drop_secret.iter().cloned())
        .collect();
    if !dropped.is_empty() {
        draft = draft.with("dropped", dropped.join(" "));
    }
    let protected: Vec<String> = arguments.protect.iter().map(ToString::to_string).collect();
    if !protected.is_empty() {
        draft = draft.with("protected", protected.join(" "));
    }
    draft
}

/// What is to be less.
fn request(arguments: &NarrowArgs, parent: &Warrant, now_ms: i64) -> anyhow::Result<Narrowing> {
    let egress = without_hosts(&parent.egress, &arguments.drop_host)?;
    let secrets = without_secrets(parent, &arguments.drop_secret, &egress)?;
    let models = without_models(&parent.models, &arguments.drop_model)?;
    let (mut limits, mut expires_at) = (parent.limits, parent.expires_at);
    if let Some(left) = arguments.timeout {
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        let wall = now_ms.saturating_sub(parent.issued_at).saturating_add(left);
        let wall = u64::try_from(wall).unwrap_or(0);
        if wall > limits.wall_ms {
            return Err(Problem::usage(
                "warrant-widening",
                format!(
                    "a warrant can't be widened: the run has less time left than that; it ends {}",
                    time(parent.issued_at.saturating_add(i64::try_from(limits.wall_ms).unwrap_or(i64::MAX)))
                ),
            ));
        }
        limits.wall_ms = wall;
        expires_at = expires_at.min(now_ms.saturating_add(left).saturating_add(COLLECT_MS));
    }
    Ok(Narrowing {
        push: arguments.no_push.then_some(None),
        protect: arguments.protect.clone(),
        egress: Some(egress),
        secrets: Some(secrets),
        models: Some(models),
        budget: arguments.budget,
        limits: Some(limits),
        expires_at: Some(expires_at),
        ..Narrowing::default()
    })
}

/// The hosts that are left. A host that a wider pattern grants too can't be taken away alone.
fn without_hosts(granted: &[HostPattern], dropped: &[DroppedHost]) -> anyhow::Result<Vec<HostPattern>> {
    let mut left = granted.to_vec();
    for drop in dropped {
        for unwanted in drop.choice.hosts() {
            let same_port = |one: &HostPattern| !drop.has_port || one.port() == unwanted.port();
            // The port is minded apart, so that a name without one means all of them.
            let on_its_port = |one: &HostPattern| with_port(&unwanted, one.port());
            let before = left.len();
            left.retain(|one| !(same_port(one) && on_its_port(one).is_some_and(|all| all.covers(one))));
            let wider = left
                .iter()
                .find(|one| same_port(one) && on_its_port(one).is_some_and(|single| one.covers(&single)));
            if let Some(wider) = wider {
                return Err(Problem::usage(
                    "host-of-wildcard",
                    format!(
                        "{} is granted by {wider}, which grants other hosts too, and a warrant has no exceptions: take it away as a whole with --drop-host '{wider}'",
                        unwanted
                    ),
                ));
            }
            // A class is taken away as far as it was granted.
            let class = matches!(drop.choice, tipstaff_model::warrant::HostChoice::Class(_));
            if left.len() == before && !class {
                return Err(not_granted(
                    "host",
                    &unwanted.to_string(),
                    granted.iter().map(ToString::to_string),
                ));
            }
        }
    }
    Ok(left)
}

/// The same pattern on another port.
fn with_port(pattern: &HostPattern, port: u16) -> Option<HostPattern> {
    let star = if pattern.is_one_host() { "" } else { "*." };
    format!("{star}{}:{port}", pattern.name()).parse().ok()
}

fn without_secrets(
    parent: &Warrant,
    dropped: &[String],
    egress: &[HostPattern],
) -> anyhow::Result<Vec<SecretGrant>> {
    if let Some(unknown) = dropped.iter().find(|name| !parent.secrets.iter().any(|one| one.name == **name)) {
        return Err(not_granted("secret", unknown, parent.secrets.iter().map(|one| one.name.clone())));
    }
    // A secret for a host that is gone would be a grant without a meaning.
    let kept =
        |one: &&SecretGrant| !dropped.contains(&one.name) && egress.iter().any(|host| host.covers(&one.host));
    Ok(parent.secrets.iter().filter(kept).cloned().collect())
}

fn without_models(granted: &[ModelGrant], dropped: &[String]) -> anyhow::Result<Vec<ModelGrant>> {
    let mut left = granted.to_vec();
    for text in dropped {
        let parsed = text.split_once('/').and_then(|(provider, model)| {
            let model = model.parse::<ModelPattern>().ok()?;
            (!provider.is_empty()).then(|| (provider.to_owned(), model))
        });
        let Some((provider, unwanted)) = parsed else {
            return Err(Problem::usage(
                "model-pattern",
                format!("'{}' is no model: write PROVIDER/MODEL", text.escape_debug()),
            ));
        };
        let before = left.len();
        left.retain(|one| !(one.provider == provider && unwanted.covers(&one.model)));
        if let Some(wider) = left.iter().find(|one| one.provider == provider && one.model.covers(&unwanted)) {
            return Err(Problem::usage(
                "model-of-pattern",
                format!(
                    "{provider}/{unwanted} is granted by {provider}/{wider}, which grants other models too: take it away as a whole with --drop-model '{provider}/{wider}'",
                    wider = wider.model
                ),
            ));
        }
        if left.len() == before {
            let names = granted.iter().map(|one| format!("{}/{}", one.provider, one.model));
            return Err(not_granted("model", text, names));
        }
    }
    Ok(left)
}

fn not_granted(what: &'static str, wanted: &str, granted: impl Iterator<Item = String>) -> anyhow::Error {
    let granted: Vec<String> = granted.collect();
    let list = if granted.is_empty() { "none".to_owned() } else { granted.join(", ") };
    Problem::usage(
        "not-granted",
        format!(
            "the warrant grants no {what} '{}' that could be taken away; it grants: {list}",
            wanted.escape_debug()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Vec<HostPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn drop(text: &str) -> DroppedHost {
        let choice: tipstaff_model::warrant::HostChoice = text.parse().unwrap();
        DroppedHost { has_port: text.contains(':'), choice }
    }

    #[test]
    fn a_host_is_taken_away_wholly_or_not_at_all() {
        let granted = hosts(&["a.example", "a.example:8443", "*.wide.example", "registry.npmjs.org"]);
        let left = |text: &str| without_hosts(&granted, &[drop(text)]).map(|left| left.len());
        assert_eq!(left("a.example").unwrap(), 2, "every port");
        assert_eq!(left("a.example:8443").unwrap(), 3);
        assert_eq!(left("*.wide.example").unwrap(), 3);
        assert_eq!(left("registry:npm").unwrap(), 3);
        assert_eq!(left("registry:pypi").unwrap(), 4, "a class is taken away as far as it was granted");
        for (text, part) in [
            ("b.wide.example", "*.wide.example:443"),
            ("*.c.wide.example", "*.wide.example:443"),
            ("other.example", "no host"),
            ("a.example:80", "no host"),
            ("wide.example", "no host"),
        ] {
            let error = left(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        // A wider word takes the narrower ones with it.
        let granted = hosts(&["a.wide.example", "b.wide.example:80", "wide.example"]);
        assert_eq!(without_hosts(&granted, &[drop("*.wide.example")]).unwrap(), hosts(&["wide.example"]));
    }

    #[test]
    fn a_model_is_taken_away_wholly_or_not_at_all() {
        let grant = |provider: &str, model: &str| ModelGrant {
            provider: provider.to_owned(),
            model: model.parse().unwrap(),
        };
        let granted = [grant("openai", "gpt-5"), grant("openai", "gpt-5-*"), grant("local", "gpt-5")];
        let left = |text: &str| without_models(&granted, &[text.to_owned()]).map(|left| left.len());
        assert_eq!((left("openai/gpt-5").unwrap(), left("openai/gpt-5*").unwrap()), (2, 1));
        assert!(left("openai/gpt-5-mini").unwrap_err().to_string().contains("openai/gpt-5-*"));
        for bad in ["gpt-5", "/gpt-5", "openai/", "openai/o3", "openai/a b"] {
            assert!(left(bad).is_err(), "{bad}");
        }
    }
}
