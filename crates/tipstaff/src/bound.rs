//! Secrets that are bound to a host: sealed with what they are for, granted by a warrant, held by a run as handles.
//!
//! The binding is sealed with the value: whoever can write the database can't send a value to another host.

use crate::context::Context;
use crate::exit::Problem;
use serde::{Deserialize, Serialize};
use tipstaff_broker::{HeldSecret, LONGEST_VALUE, SHORTEST_VALUE, SecretPlace};
use tipstaff_model::Warrant;
use tipstaff_model::warrant::{HostPattern, HostRules, RequestRule, SecretGrant, UrlPattern};
use tipstaff_runner::JobInspection;
use tipstaff_seal::{Handle, Secret};
use tipstaff_store::OrgRead;

/// The beginning of the names under which they lie in the store.
const BEGINNING: &str = "bound/";
/// The longest name, in bytes.
const LONGEST_NAME: usize = 60;

/// A secret with what it is for.
pub(crate) struct BoundSecret {
    pub(crate) name: String,
    pub(crate) host: HostPattern,
    pub(crate) path: UrlPattern,
    pub(crate) place: SecretPlace,
    pub(crate) value: Secret<String>,
}

/// How it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    v: u8,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
    host: HostPattern,
    path: UrlPattern,
    /// `Authorization: Bearer {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
}

/// The name in the store.
pub(crate) fn store_name(name: &str) -> String {
    format!("{BEGINNING}{name}")
}

/// The name that a person gave, where it is one of these.
pub(crate) fn given_name(stored: &str) -> Option<&str> {
    stored.strip_prefix(BEGINNING)
}

/// The variable of the sandbox that holds the handle: `github-token` is in `GITHUB_TOKEN`.
pub(crate) fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Checks a name that a person gives to a secret for a host.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fine = (1..=LONGEST_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(plain);
    let sample = format!("tsh_{}", "0".repeat(49));
    let why = if !fine {
        format!("write 1 to {LONGEST_NAME} letters, digits, '-', '_' and '.', beginning with a letter")
    } else if let Err(error) = tipstaff_sandbox::environment_check(&variable(name), &sample) {
        format!("its variable would be {}, and {error}", variable(name))
    } else {
        return Ok(());
    };
    let text = format!("'{}' can't name a secret for a host: {why}", name.escape_debug());
    Err(Problem::usage("secret-name", text))
}

impl BoundSecret {
    /// The bytes to be sealed.
    pub(crate) fn to_bytes(&self) -> anyhow::Result<Secret<Vec<u8>>> {
        let (field, query) = match &self.place {
            SecretPlace::Credential => (None, None),
            SecretPlace::Field { name, template } => (Some(format!("{name}: {template}")), None),
            SecretPlace::Query(name) => (None, Some(name.clone())),
        };
        let value = self.value.expose().as_str().into();
        let (host, path) = (self.host.clone(), self.path.clone());
        Ok(Secret::new(serde_json::to_vec(&Sealed { v: 1, value, host, path, field, query })?))
    }

    fn from_bytes(name: &str, bytes: &Secret<Vec<u8>>) -> Option<Self> {
        let sealed: Sealed<'_> =
            serde_json::from_slice(bytes.expose()).ok().filter(|sealed: &Sealed<'_>| sealed.v == 1)?;
        let place = match (&sealed.field, &sealed.query) {
            (Some(field), _) => SecretPlace::field(field)?,
            (None, Some(query)) => SecretPlace::query(query)?,
            (None, None) => SecretPlace::Credential,
        };
        Some(Self {
            name: name.to_owned(),
            host: sealed.host,
            path: sealed.path,
            place,
            value: Secret::new(sealed.value.into_owned()),
        })
    }

    /// Where the value stands, for people.
    pub(crate) fn place_text(&self) -> String {
        match &self.place {
            SecretPlace::Credential => "any credential field".to_owned(),
            SecretPlace::Field { name, template } => format!("{name}: {template}"),
            SecretPlace::Query(name) => format!("?{name}="),
        }
    }

    /// Checks the value.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let handle = Handle::new(&tipstaff_seal::SystemEntropy);
        if HeldSecret::new(&self.name, handle, self.value.clone(), self.place.clone()).is_some() {
            return Ok(());
        }
        let text = format!(
            "the value can't be used in requests: it needs {SHORTEST_VALUE} to {LONGEST_VALUE} visible ASCII characters without blanks; nothing was stored"
        );
        Err(Problem::usage("secret-invalid", text))
    }
}

/// Opens one.
pub(crate) async fn open(read: &mut OrgRead, name: &str) -> anyhow::Result<Option<BoundSecret>> {
    let Some(bytes) = read.secret_get(&store_name(name)).await? else { return Ok(None) };
    let opened = BoundSecret::from_bytes(name, &bytes).ok_or_else(|| {
        let text = format!("the secret {name} can't be read by this version; set it again");
        Problem::usage("secret-unreadable", text)
    })?;
    Ok(Some(opened))
}

/// Opens the secrets that a task names.
pub(crate) async fn read(read: &mut OrgRead, names: &[String]) -> anyhow::Result<Vec<BoundSecret>> {
    let mut bound: Vec<BoundSecret> = Vec::new();
    for name in names {
        if bound.iter().any(|one| variable(&one.name) == variable(name)) {
            let text = format!("two secrets of this run would stand in the variable {}", variable(name));
            return Err(Problem::usage("secret-twice", text));
        }
        let one = open(read, name).await?.ok_or_else(|| {
            let text = format!(
                "there is no secret '{}' for a host; set it with `tipstaff secrets set NAME --host HOST`; `tipstaff secrets list` shows them",
                name.escape_debug()
            );
            Problem::usage("secret-unknown", text)
        })?;
        bound.push(one);
    }
    Ok(bound)
}

/// The grants of a warrant for these secrets. A host that is not granted otherwise is granted for the secret's paths
/// alone. Whichever way, its requests are read: a warrant with a secret for a host always has it inspected.
pub(crate) fn grants(
    bound: &[BoundSecret],
    egress: &mut Vec<HostPattern>,
    hosts: &mut Vec<HostRules>,
) -> Vec<SecretGrant> {
    let granted = egress.clone();
    for secret in bound {
        if granted.iter().any(|one| one.covers(&secret.host)) {
            continue;
        }
        let rule = RequestRule { methods: Vec::new(), path: secret.path.clone(), tools: Vec::new() };
        if egress.contains(&secret.host) {
            let known = hosts.iter_mut().find(|rules| rules.host == secret.host);
            known.into_iter().for_each(|rules| rules.requests.push(rule.clone()));
        } else {
            egress.push(secret.host.clone());
            hosts.push(HostRules { host: secret.host.clone(), inspect: true, requests: vec![rule] });
        }
    }
    bound
        .iter()
        .map(|one| SecretGrant { name: one.name.clone(), host: one.host.clone(), path: one.path.clone() })
        .collect()
}

/// What the runner needs to have the warrant's hosts inspected; `None` where it inspects none.
pub(crate) fn inspection(
    context: &Context,
    warrant: &Warrant,
    bound: Vec<BoundSecret>,
) -> anyhow::Result<Option<JobInspection>> {
    if !warrant.inspects() {
        return Ok(None);
    }
    let mut secrets = Vec::new();
    for BoundSecret { name, value, place, .. } in bound {
        let handle = Handle::new(context.entropy.as_ref());
        let held = HeldSecret::new(&name, handle, value, place).ok_or_else(|| {
            Problem::usage(
                "secret-invalid",
                format!("the secret {name} can't be used in requests; set it again"),
            )
        })?;
        secrets.push((variable(&name), held));
    }
    Ok(Some(JobInspection { trust: context.trust()?, secrets }))
}

/// The rules of a warrant's hosts, for people.
pub(crate) fn rules(warrant: &Warrant) -> Vec<String> {
    let mut told = Vec::new();
    for rules in &warrant.hosts {
        if rules.requests.is_empty() {
            told.push(format!("any of {} (inspected)", rules.host));
        }
        for rule in &rules.requests {
            let methods = if rule.methods.is_empty() { "*".to_owned() } else { rule.methods.join(",") };
            let tools = if rule.tools.is_empty() {
                String::new()
            } else {
                format!(" tools {}", rule.tools.join(" "))
            };
            told.push(format!("{methods} {}{}{tools}", rules.host, rule.path));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(host: &str, path: &str, place: SecretPlace) -> BoundSecret {
        BoundSecret {
            name: "x".to_owned(),
            host: host.parse().unwrap(),
            path: path.parse().unwrap(),
            place,
            value: Secret::new("value-0123\"456789".to_owned()),
        }
    }

    #[test]
    fn a_binding_is_sealed_with_its_value() {
        for place in [
            SecretPlace::Credential,
            SecretPlace::field("Authorization: Bearer {}").unwrap(),
            SecretPlace::query("key").unwrap(),
        ] {
            let one = secret("api.example.com", "/a/**", place);
            let read = BoundSecret::from_bytes("x", &one.to_bytes().unwrap()).unwrap();
            assert_eq!((&read.host, &read.path, &read.place), (&one.host, &one.path, &one.place));
            assert_eq!(read.value.expose(), one.value.expose());
        }
        assert!(BoundSecret::from_bytes("x", &Secret::new(b"sk-plain".to_vec())).is_none());
    }

    #[test]
    fn a_secret_grants_its_own_paths_and_no_more() {
        let two = [
            secret("api.example.com", "/a/**", SecretPlace::Credential),
            secret("api.example.com", "/b", SecretPlace::Credential),
        ];
        let (mut egress, mut hosts) = (Vec::new(), Vec::new());
        assert_eq!(grants(&two, &mut egress, &mut hosts).len(), 2);
        assert_eq!((egress.len(), hosts.len(), hosts[0].requests.len()), (1, 1, 2));
        // What is granted otherwise stays as wide as it was.
        let (mut egress, mut hosts) = (vec!["*.example.com".parse().unwrap()], Vec::new());
        grants(&two, &mut egress, &mut hosts);
        assert!(egress.len() == 1 && hosts.is_empty());
    }

    #[test]
    fn a_name_gives_a_variable_that_nobody_obeys() {
        assert_eq!(variable("github-token"), "GITHUB_TOKEN");
        check_name("github-token").unwrap();
        for bad in ["", "1x", "a b", "ld_preload", "path", "HOME", "a/b", &"x".repeat(61)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
