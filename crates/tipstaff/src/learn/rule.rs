//! What a refusal by another rule than a missing host could be granted with, if at all.

use super::{Grant, Tally, Wish, shown, wish};
use tipstaff_model::refusal::LONGEST_TEXT;
use tipstaff_model::warrant::{HostPattern, ModelPattern, UrlPattern};
use tipstaff_model::{AgentRole, Rule};

/// Judges one thing that was wanted.
pub(super) fn judge(rule: Rule, wanted: &str, tally: &Tally) -> Wish {
    let not = |why: &str| wish(rule, shown(wanted), tally, None, why);
    // What was cut, or held what no terminal may see, is not what was wanted.
    if wanted.chars().count() >= LONGEST_TEXT {
        return not("too long to be proposed");
    }
    if !wanted.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return not("it holds characters that hide or imitate others");
    }
    let found = match rule {
        Rule::HostNotGranted | Rule::PortNotGranted => None,
        Rule::RequestNotGranted => request(wanted),
        Rule::ToolNotGranted => tool(wanted),
        Rule::ModelNotGranted => model(wanted),
        Rule::SecretNotGranted => secret(wanted),
        Rule::PathProtected | Rule::PathNotGranted => role(wanted),
        Rule::PushNotGranted | Rule::ExecNotGranted => {
            Some(("--role", "builder".to_owned(), "it executes and pushes".to_owned()))
        }
        _ => None,
    };
    match found {
        Some((option, value, risk)) => wish(rule, shown(wanted), tally, Some(Grant { option, value }), risk),
        None => not(why_not(rule)),
    }
}

fn why_not(rule: Rule) -> &'static str {
    match rule {
        Rule::HostNotGranted | Rule::PortNotGranted => {
            "no public host's name: addresses and local names are never granted"
        }
        Rule::AddressForbidden => {
            "a private, local or metadata address: no option grants it; the operator may name the host in config.toml"
        }
        Rule::SecretMisused => {
            "a secret's handle was sent where it is worth nothing: look at what the run did"
        }
        Rule::PathProtected | Rule::PathNotGranted => "no role may change it: a person does",
        Rule::RequestNotGranted | Rule::ToolNotGranted | Rule::ModelNotGranted | Rule::SecretNotGranted => {
            "it has no form that could be granted"
        }
        rule => rule.next_step(),
    }
}

type Found = Option<(&'static str, String, String)>;

/// `host:port/path` as a URL, when each part can be granted.
fn url(text: &str) -> Option<(String, HostPattern)> {
    let (authority, path) = text.split_at(text.find('/')?);
    let host: HostPattern = authority.parse().ok().filter(HostPattern::is_one_host)?;
    let path: UrlPattern = path.parse().ok()?;
    // A star in what was wanted is not to become a pattern in what is granted.
    if path.as_str().contains('*') {
        return None;
    }
    let place = match host.port() {
        443 => format!("https://{}", host.name()),
        80 => format!("http://{}", host.name()),
        port => format!("https://{}:{port}", host.name()),
    };
    Some((format!("{place}{path}"), host))
}

fn request(wanted: &str) -> Found {
    let (method, rest) = wanted.split_once(' ')?;
    let fine = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    let (url, host) = fine.then(|| url(rest)).flatten()?;
    let risk = match method {
        "GET" | "HEAD" | "OPTIONS" => format!("data can leave to {} in the request", shown(host.name())),
        _ => format!("it changes things at {}", shown(host.name())),
    };
    Some(("--allow-request", format!("{method} {url}"), risk))
}

fn tool(wanted: &str) -> Found {
    let (place, tool) = wanted.split_once('#')?;
    let fine = !tool.is_empty() && tool.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b));
    let (url, host) = fine.then(|| url(place)).flatten()?;
    Some(("--allow-tool", format!("{url}#{tool}"), format!("what {} does with it", shown(host.name()))))
}

fn model(wanted: &str) -> Found {
    let (provider, model) = wanted.split_once('/')?;
    model.parse::<ModelPattern>().ok().filter(|_| !model.contains('*') && !provider.is_empty())?;
    Some(("--model", wanted.to_owned(), format!("it costs money; prompts go to {}", shown(provider))))
}

fn secret(wanted: &str) -> Found {
    let (name, _) = wanted.split_once(" at ")?;
    let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    fine.then(|| ("--secret", name.to_owned(), "requests are made in your name".to_owned()))
}

/// The role that may change a path.
fn role(path: &str) -> Found {
    let may = |role: &&AgentRole| {
        let template = role.template();
        let bytes = path.as_bytes();
        template.kind.may_push()
            && template.write.iter().any(|one| one.matches(bytes))
            && !template.protected.iter().any(|one| one.matches_ignoring_case(bytes))
    };
    // The one with the least power first.
    let roles = [AgentRole::Gardener, AgentRole::Builder, AgentRole::CloudEngineer];
    let role = roles.iter().find(may)?;
    Some(("--role", role.to_string(), format!("all that a {role} may change")))
}
