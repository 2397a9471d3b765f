//! Learn mode: what runs were refused, grouped into what could be granted to the next one.
//!
//! Promises: nothing here grants anything; every name comes from a hostile run, so what is shown is harmless for a terminal
//! and a file, and what is proposed was read back by the parser of the option that it is proposed for; a private address is
//! never proposed, nor a wildcard that nobody asked for.

mod name;
mod rule;

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tipstaff_model::warrant::{HostClass, HostPattern};
use tipstaff_model::{Refusal, Rule, RunId};

pub(crate) use name::shown;

/// Whether wildcards may be proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wildcards {
    /// Where several subdomains of one name were wanted.
    Propose,
    /// Never.
    Never,
}

/// A refusal of a run, and how often it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) run: RunId,
    pub(crate) refusal: Refusal,
    pub(crate) times: u64,
}

/// One thing that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Wish {
    /// The rule that refused it.
    pub(crate) rule: Rule,
    /// What it is, as it may be shown.
    pub(crate) what: String,
    /// Exactly what was wanted; several names for a class or a wildcard.
    pub(crate) wanted: Vec<String>,
    /// How often it was refused.
    pub(crate) count: u64,
    /// In how many runs.
    pub(crate) runs: usize,
    /// The options of `tipstaff run` that would grant it; none where it is not proposed.
    pub(crate) grant: Option<Grant>,
    /// What granting it risks, in a word; or why it is not proposed.
    pub(crate) risk: String,
    /// What is odd about its name.
    pub(crate) odd: Vec<String>,
}

/// How something is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Grant {
    /// The option.
    pub(crate) option: &'static str,
    /// Its value.
    pub(crate) value: String,
}

impl Grant {
    /// As it is typed in a shell.
    pub(crate) fn typed(&self) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/@".contains(&b);
        if self.value.bytes().all(plain) {
            return format!("{} {}", self.option, self.value);
        }
        format!("{} '{}'", self.option, self.value.replace('\'', "'\\''"))
    }
}

/// What is known about one thing before it is judged.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    runs: BTreeSet<RunId>,
    names: BTreeSet<String>,
}

impl Tally {
    fn join(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.runs.extend(other.runs);
        self.names.extend(other.names);
    }
}

/// Groups refusals into wishes: what can be granted first, then by how often it was wanted.
pub(crate) fn wishes(refusals: &[Refused], wildcards: Wildcards) -> Vec<Wish> {
    let mut by_name: BTreeMap<(Rule, &str), Tally> = BTreeMap::new();
    for Refused { run, refusal, times } in refusals {
        let tally = by_name.entry((refusal.rule, &refusal.wanted)).or_default();
        tally.count = tally.count.saturating_add(*times);
        tally.runs.insert(*run);
        tally.names.insert(refusal.wanted.clone());
    }
    let mut hosts: BTreeMap<HostPattern, Tally> = BTreeMap::new();
    let mut found = Vec::new();
    for ((rule, wanted), tally) in by_name {
        match wanted_host(rule, wanted) {
            // The port and the name are one wish, whichever of the two was refused.
            Some(host) => hosts.entry(host).or_default().join(tally),
            None => found.push(rule::judge(rule, wanted, &tally)),
        }
    }
    found.extend(of_hosts(hosts, wildcards));
    found.sort_by(|one, other| {
        (one.grant.is_none(), other.count, &one.what).cmp(&(other.grant.is_none(), one.count, &other.what))
    });
    found
}

/// The host of a refusal that an option could grant.
fn wanted_host(rule: Rule, wanted: &str) -> Option<HostPattern> {
    if !matches!(rule, Rule::HostNotGranted | Rule::PortNotGranted) || !wanted.contains(':') {
        return None;
    }
    wanted.parse::<HostPattern>().ok().filter(HostPattern::is_one_host)
}

fn of_hosts(mut hosts: BTreeMap<HostPattern, Tally>, wildcards: Wildcards) -> Vec<Wish> {
    let mut found = Vec::new();
    for class in HostClass::ALL {
        let members = class.hosts();
        let mut all = Tally::default();
        hosts.retain(|host, tally| {
            let member = members.contains(host);
            if member {
                all.join(std::mem::take(tally));
            }
            !member
        });
        if all.count > 0 {
            let what = format!("{class} ({})", all.names.iter().cloned().collect::<Vec<_>>().join(", "));
            let grant = Grant { option: "--allow-host", value: class.to_string() };
            found.push(wish(Rule::HostNotGranted, what, &all, Some(grant), "packages are code that runs"));
        }
    }
    if wildcards == Wildcards::Propose {
        let mut below: BTreeMap<(String, u16), Vec<HostPattern>> = BTreeMap::new();
        for host in hosts.keys() {
            if let Some(parent) = name::parent_of_one_owner(host.name()) {
                below.entry((parent.to_owned(), host.port())).or_default().push(host.clone());
            }
        }
        for ((parent, port), members) in below.into_iter().filter(|(_, members)| members.len() > 1) {
            let Ok(pattern) = format!("*.{parent}:{port}").parse::<HostPattern>() else { continue };
            let mut all = Tally::default();
            for member in members {
                all.join(hosts.remove(&member).unwrap_or_default());
            }
            let what = format!("{pattern} ({} names)", all.names.len());
            let grant = Grant { option: "--allow-host", value: written(&pattern) };
            found.push(wish(
                Rule::HostNotGranted,
                what,
                &all,
                Some(grant),
                "every name below it, wanted or not; data can leave to each",
            ));
        }
    }
    for (host, tally) in hosts {
        let grant = Grant { option: "--allow-host", value: written(&host) };
        let risk = name::risk(host.name(), host.port());
        let mut one = wish(Rule::HostNotGranted, shown(&host.to_string()), &tally, Some(grant), risk);
        one.odd = name::odd(host.name());
        found.push(one);
    }
    found
}

/// A pattern as people write it: without the port that is meant anyway.
fn written(host: &HostPattern) -> String {
    let text = host.to_string();
    text.strip_suffix(":443").map_or(text.clone(), ToOwned::to_owned)
}

fn wish(rule: Rule, what: String, tally: &Tally, grant: Option<Grant>, risk: impl Into<String>) -> Wish {
    Wish {
        rule,
        what,
        wanted: tally.names.iter().cloned().collect(),
        count: tally.count,
        runs: tally.runs.len(),
        grant,
        risk: risk.into(),
        odd: Vec::new(),
    }
}

/// The wishes as a file for `tipstaff run --allow-from`: what a file can't grant, and what is not proposed, are comments.
pub(crate) fn toml(wishes: &[Wish]) -> String {
    let mut text = String::from(
        "# Proposed by `tipstaff runs learn`. Read every line, delete what you don't want, and grant the rest with\n\
         #   tipstaff run --allow-from FILE\n\
         # Keep this file outside of the repository: what an agent can change grants nothing.\n\n",
    );
    for (key, option) in FILE_KEYS {
        let lines: Vec<String> = wishes
            .iter()
            .filter_map(|wish| wish.grant.as_ref().map(|grant| (wish, grant)))
            .filter(|(_, grant)| grant.option == *option)
            .map(|(wish, grant)| {
                // A string of JSON is one of TOML; what is proposed is plain ASCII besides.
                let value = serde_json::Value::String(grant.value.clone());
                format!("    {value}, # {}\n", remark(wish))
            })
            .collect();
        if !lines.is_empty() {
            text.push_str(&format!("{key} = [\n{}]\n", lines.concat()));
        }
    }
    for wish in wishes {
        match &wish.grant {
            Some(grant) if FILE_KEYS.iter().any(|(_, option)| *option == grant.option) => {}
            Some(grant) => text.push_str(&format!("# {}: {}\n", grant.typed(), remark(wish))),
            None => {
                text.push_str(&format!("# not proposed: {} ({}): {}\n", wish.what, wish.rule, remark(wish)))
            }
        }
    }
    text
}

/// The keys of a file of grants, with the options that they stand for.
pub(crate) const FILE_KEYS: &[(&str, &str)] = &[("hosts", "--allow-host")];

fn remark(wish: &Wish) -> String {
    let mut text = format!("{}; {}", times(wish), wish.risk);
    for odd in &wish.odd {
        text.push_str("; ODD: ");
        text.push_str(odd);
    }
    text
}

/// `3 times in 2 runs`
pub(crate) fn times(wish: &Wish) -> String {
    let many = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let runs = u64::try_from(wish.runs).unwrap_or(u64::MAX);
    format!("{} in {}", many(wish.count, "time"), many(runs, "run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(list: &[(u8, Rule, &str)]) -> Vec<Refused> {
        list.iter()
            .map(|(run, rule, wanted)| Refused {
                run: RunId::from_bytes([*run; 16]),
                refusal: Refusal::new(*rule, wanted, "why"),
                times: 1,
            })
            .collect()
    }

    fn table(list: &[(u8, Rule, &str)], wildcards: Wildcards) -> String {
        let mut text = String::new();
        for one in wishes(&refused(list), wildcards) {
            let grant = one.grant.as_ref().map_or_else(|| "-".to_owned(), Grant::typed);
            text.push_str(&format!(
                "{} | {} | {grant} | {} {:?}\n",
                times(&one),
                one.what,
                one.risk,
                one.odd
            ));
        }
        text
    }

    use Rule::{
        AddressForbidden, HostNotGranted, ModelNotGranted, PathProtected, PortNotGranted, RequestNotGranted,
        SecretMisused, SecretNotGranted, ToolNotGranted,
    };

    #[test]
    fn refusals_become_options_grouped_and_counted() {
        let list = [
            (1, HostNotGranted, "registry.npmjs.org:443"),
            (1, HostNotGranted, "registry.npmjs.org:443"),
            (2, HostNotGranted, "static.crates.io:443"),
            (2, HostNotGranted, "index.crates.io:443"),
            (1, HostNotGranted, "api.corp.example:443"),
            (2, PortNotGranted, "api.corp.example:8443"),
            (2, AddressForbidden, "intern.corp.example:443"),
            (1, HostNotGranted, "169.254.169.254:80"),
            (1, HostNotGranted, "localhost:8000"),
            (1, RequestNotGranted, "DELETE api.corp.example:443/repos/it's"),
            (1, ToolNotGranted, "mcp.corp.example:443/mcp#delete_issue"),
            (1, ModelNotGranted, "openai/gpt-5.5"),
            (1, PathProtected, "infra/main.tf"),
            (1, PathProtected, ".github/workflows/ci.yml"),
            (1, SecretNotGranted, "TOKEN at api.corp.example:443/x"),
            (1, SecretMisused, "TOKEN at evil.example:443/"),
        ];
        insta::assert_snapshot!(table(&list, Wildcards::Never), @r"
        2 times in 1 run | registry:crates (index.crates.io:443, static.crates.io:443) | --allow-host registry:crates | packages are code that runs []
        2 times in 1 run | registry:npm (registry.npmjs.org:443) | --allow-host registry:npm | packages are code that runs []
        1 time in 1 run | DELETE api.corp.example:443/repos/it's | --allow-request 'DELETE https://api.corp.example/repos/it'\''s' | it changes things at api.corp.example []
        1 time in 1 run | TOKEN at api.corp.example:443/x | --secret TOKEN | requests are made in your name []
        1 time in 1 run | api.corp.example:443 | --allow-host api.corp.example | data can leave to it []
        1 time in 1 run | api.corp.example:8443 | --allow-host api.corp.example:8443 | data can leave to it []
        1 time in 1 run | infra/main.tf | --role cloud-engineer | all that a cloud-engineer may change []
        1 time in 1 run | mcp.corp.example:443/mcp#delete_issue | --allow-tool 'https://mcp.corp.example/mcp#delete_issue' | what mcp.corp.example does with it []
        1 time in 1 run | openai/gpt-5.5 | --model openai/gpt-5.5 | it costs money; prompts go to openai []
        1 time in 1 run | .github/workflows/ci.yml | - | no role may change it: a person does []
        1 time in 1 run | 169.254.169.254:80 | - | no public host's name: addresses and local names are never granted []
        1 time in 1 run | TOKEN at evil.example:443/ | - | a secret's handle was sent where it is worth nothing: look at what the run did []
        1 time in 1 run | intern.corp.example:443 | - | a private, local or metadata address: no option grants it; the operator may name the host in config.toml []
        1 time in 1 run | localhost:8000 | - | no public host's name: addresses and local names are never granted []
        ");
    }

    #[test]
    fn a_wildcard_is_proposed_only_when_asked_for_and_for_one_owner() {
        let list = [
            (1, HostNotGranted, "a.build.example:443"),
            (1, HostNotGranted, "b.build.example:443"),
            (1, HostNotGranted, "c.build.example:8443"),
            (1, HostNotGranted, "one.co.uk:443"),
            (1, HostNotGranted, "two.co.uk:443"),
            (1, HostNotGranted, "one.github.io:443"),
            (1, HostNotGranted, "two.github.io:443"),
            (1, HostNotGranted, "three.example:443"),
            (1, HostNotGranted, "four.example:443"),
        ];
        assert!(!table(&list, Wildcards::Never).contains('*'));
        let stars: Vec<String> = wishes(&refused(&list), Wildcards::Propose)
            .into_iter()
            .filter_map(|one| one.grant)
            .map(|grant| grant.value)
            .filter(|value| value.contains('*'))
            .collect();
        assert_eq!(stars, ["*.build.example"]);
    }

    #[test]
    fn hostile_names_are_harmless_and_flagged() {
        let long = format!("{}.evil.example:443", "a".repeat(60));
        let list = [
            (1, HostNotGranted, long.as_str()),
            (1, HostNotGranted, "xn--pypal-4ve.com:443"),
            (1, HostNotGranted, "registry.npmjs.org.evil.example:443"),
            (1, HostNotGranted, "g1thub.com:443"),
            (1, HostNotGranted, "a\u{1b}[2J.example:443"),
            (1, HostNotGranted, "p\u{430}ypal.com:443"),
            (1, HostNotGranted, "x'; rm -rf /; '.example:443"),
            (1, RequestNotGranted, "GET a.example:443/\"\n[hosts]\nevil = 1"),
            (1, ToolNotGranted, "a.example:443/mcp#\u{202e}loot"),
            (1, PathProtected, "infra/\u{1b}]0;x\u{7}.tf"),
        ];
        let found = wishes(&refused(&list), Wildcards::Propose);
        for one in &found {
            assert!(one.what.chars().count() <= 120, "{}", one.what);
            assert!(one.what.chars().all(|c| c == ' ' || c.is_ascii_graphic() || c == '…'), "{:?}", one.what);
        }
        let odd: Vec<bool> = ["aaaa", "xn--", "npmjs.org.evil", "g1thub"]
            .iter()
            .map(|part| {
                let one = found.iter().find(|one| one.what.contains(part)).unwrap();
                one.grant.is_some() && !one.odd.is_empty()
            })
            .collect();
        assert_eq!(odd, [true; 4], "{found:#?}");
        let proposed: Vec<&str> =
            found.iter().filter_map(|one| one.grant.as_ref()).map(|grant| grant.value.as_str()).collect();
        assert_eq!(proposed.len(), 4, "{proposed:?}");
        // As a file it has these hosts and nothing else.
        let file = toml(&found);
        let read: toml::Table = file.parse().unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["hosts"], "{file}");
        assert_eq!(read["hosts"].as_array().unwrap().len(), 4);
        assert!(file.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic() || c == '…'), "{file:?}");
    }
}
