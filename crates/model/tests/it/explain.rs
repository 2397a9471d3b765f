//! The page that explains a warrant says the same as the code that enforces it: somebody who has nothing but the page, and
//! reads its patterns naively, comes to the same answers.

use crate::narrowing::{base_warrant, narrowing};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use tipstaff_model::explain::{Explanation, Origin, Provenance, Question};
use tipstaff_model::warrant::{HostPattern, HostRules, RequestVerdict, Warrant};
use tipstaff_model::{AgentRole, Limits, Narrowing, WarrantId};

/// The page as JSON: what a program, or a person, is given.
fn page(warrant: &Warrant) -> Value {
    serde_json::to_value(Explanation::of(warrant, &Provenance::default())).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn grants(page: &Value, list: &str) -> Vec<Value> {
    page[list].as_array().unwrap().iter().map(|line| line["grant"].clone()).collect()
}

/// `*` within a part, `**` for any number of parts: by trying everything.
fn glob(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|taken| glob(rest, &path[taken..])),
        (Some((one, rest)), Some((part, parts))) => word(one, part) && glob(rest, parts),
        _ => false,
    }
}

fn word(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|left| {
            (0..=left.len()).filter(|at| left.is_char_boundary(*at)).any(|at| word(rest, &left[at..]))
        }),
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    glob(&pattern, &path)
}

/// `name:port`, or `*.name:port` for what stands before `.name`.
fn host_fits(pattern: &str, host: &str, port: u16) -> bool {
    let (name, on) = pattern.rsplit_once(':').unwrap();
    let named = match name.strip_prefix('*') {
        Some(tail) => host.len() > tail.len() && host.ends_with(tail),
        None => name == host,
    };
    named && on == port.to_string()
}

fn reads(page: &Value, name: &str) -> bool {
    grants(page, "read").iter().any(|one| one["name"] == name)
}

fn pushes(page: &Value, name: &str, reference: &str) -> bool {
    let grant = &page["push"]["grant"];
    reads(page, name) && grant["repository"] == name && grant["ref"] == reference
}

fn writes(page: &Value, path: &str) -> bool {
    let fits = |list: &str, path: &str, lower: bool| {
        grants(page, list).iter().any(|one| {
            let pattern = one.as_str().unwrap();
            path_fits(&if lower { pattern.to_ascii_lowercase() } else { pattern.to_owned() }, path)
        })
    };
    fits("write", path, false) && !fits("protected", &path.to_ascii_lowercase(), true)
}

fn reaches(page: &Value, host: &str, port: u16) -> bool {
    grants(page, "hosts").iter().any(|one| host_fits(one.as_str().unwrap(), host, port))
}

/// Of each entry with requests for this host: whether some request fits, and the tools of those that do, `None` for any.
fn request_entries(
    page: &Value,
    host: &str,
    port: u16,
    method: &str,
    path: &str,
) -> Vec<Vec<Option<Vec<String>>>> {
    let of_entry = |entry: &Value| -> Option<Vec<Option<Vec<String>>>> {
        let requests = entry["requests"].as_array()?;
        if requests.is_empty() || !host_fits(entry["host"].as_str().unwrap(), host, port) {
            return None;
        }
        let fitting = requests.iter().filter(|one| {
            let methods = texts(&one["methods"]);
            (methods.is_empty() || methods.iter().any(|one| one == method))
                && path_fits(one["path"].as_str().unwrap(), path)
        });
        Some(
            fitting
                .map(|one| {
                    let tools = texts(&one["tools"]);
                    (!tools.is_empty()).then_some(tools)
                })
                .collect(),
        )
    };
    grants(page, "rules").iter().filter_map(of_entry).collect()
}

fn requests(page: &Value, host: &str, port: u16, method: &str, path: &str) -> Option<RequestVerdict> {
    let entries = request_entries(page, host, port, method, path);
    if !reaches(page, host, port) || entries.iter().any(Vec::is_empty) {
        return None;
    }
    let by_tool = entries.iter().any(|fitting| fitting.iter().all(Option::is_some));
    Some(if by_tool { RequestVerdict::ByTool } else { RequestVerdict::Permitted })
}

fn calls(page: &Value, host: &str, port: u16, path: &str, tool: &str) -> bool {
    let lets = |fitting: &Vec<Option<Vec<String>>>| {
        fitting.iter().any(|tools| tools.as_ref().is_none_or(|tools| tools.iter().any(|one| one == tool)))
    };
    reaches(page, host, port) && request_entries(page, host, port, "POST", path).iter().all(lets)
}

fn uses(page: &Value, name: &str, host: &str, port: u16, path: &str) -> bool {
    grants(page, "secrets").iter().any(|one| {
        one["name"] == name
            && host_fits(one["host"].as_str().unwrap(), host, port)
            && path_fits(one["path"].as_str().unwrap(), path)
    })
}

fn asks(page: &Value, provider: &str, model: &str) -> bool {
    grants(page, "models").iter().any(|one| {
        let pattern = one["model"].as_str().unwrap();
        let named = match pattern.strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => model == pattern,
        };
        one["provider"] == provider && named
    })
}

/// A narrowing of a warrant, as far as it holds: what would widen is left away, part by part.
fn less(parent: &Warrant, request: Narrowing, id: u8) -> Warrant {
    let id = WarrantId::from_bytes([id; 16]);
    if let Ok(child) = parent.narrow(id, request.clone()) {
        return child;
    }
    let mut child = parent.clone();
    let Narrowing { kind, push, write, protect, exec, egress, hosts, secrets, models, budget, .. } = request;
    for one in [
        Narrowing { kind, ..Narrowing::default() },
        Narrowing { push, ..Narrowing::default() },
        Narrowing { write, ..Narrowing::default() },
        Narrowing { protect, ..Narrowing::default() },
        Narrowing { exec, ..Narrowing::default() },
        Narrowing { egress, ..Narrowing::default() },
        Narrowing { hosts, ..Narrowing::default() },
        Narrowing { secrets, ..Narrowing::default() },
        Narrowing { models, ..Narrowing::default() },
        Narrowing { budget, ..Narrowing::default() },
    ] {
        child = child.narrow(id, one).unwrap_or(child);
    }
    child.parent = Some(parent.id);
    child.id = id;
    child
}

/// A warrant of any role, with hosts and rules of its own, narrowed a few times.
fn warrant() -> impl Strategy<Value = (Warrant, Vec<Warrant>)> {
    let egress = proptest::sample::subsequence(
        vec!["*.example.com", "example.com:80", "a.corp.test", "*.corp.test:8443", "registry.corp.test"],
        0..=5,
    );
    (select(AgentRole::ALL), egress, proptest::collection::vec(narrowing(), 0..3), any::<bool>()).prop_map(
        |(role, egress, steps, rules)| {
            let mut warrant = base_warrant();
            let template = role.template();
            warrant.role = role;
            warrant.kind = template.kind;
            warrant.tools.exec = template.exec;
            warrant.paths.write = template.write;
            warrant.paths.protected = template.protected;
            warrant.limits = Limits { wall_ms: 60_000, ..template.limits };
            warrant.egress.extend(egress.iter().map(|text| text.parse::<HostPattern>().unwrap()));
            if rules {
                let text = r#"{"host":"api.example.com:443","requests":[{"methods":["GET"],"path":"/repos/**"},{"path":"/mcp","tools":["search"]}]}"#;
                warrant.hosts.push(serde_json::from_str::<HostRules>(text).unwrap());
            }
            let mut chain = vec![warrant];
            for (index, step) in steps.into_iter().enumerate() {
                let child = less(chain.last().unwrap(), step, 0x20 + u8::try_from(index).unwrap());
                chain.push(child);
            }
            (chain.pop().unwrap(), chain)
        },
    )
}

const WANTED_HOSTS: &[&str] = &[
    "example.com",
    "api.example.com",
    "a.api.example.com",
    "evilexample.com",
    "a.corp.test",
    "registry.corp.test",
    "corp.test",
];
const WANTED_PATHS: &[&str] = &[
    "README.md",
    "src/a/b.rs",
    "src",
    "docs/x.md",
    ".github/workflows/ci.yml",
    ".GitHub/Workflows/ci.yml",
    "infra/x.tf",
    "a/b/main.tf",
    "Cargo.lock",
    "a/CODEOWNERS",
    "CHANGELOG.md",
    ".claude/settings.json",
];
const WANTED_URLS: &[&str] = &["/", "/repos/one/issues", "/repos", "/repos/one", "/mcp", "/mcp/x"];
const WANTED_MODELS: &[&str] = &["gpt-5.5", "gpt-4", "gpt", "claude-opus", "o3"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_page_and_the_enforcing_code_agree((warrant, chain) in warrant(), host in select(WANTED_HOSTS),
        port in select(vec![443_u16, 80, 8443]), path in select(WANTED_PATHS), url in select(WANTED_URLS),
        method in select(vec!["GET", "POST"]), tool in select(vec!["search", "write"]), model in select(WANTED_MODELS),
        name in select(vec!["local/one", "local/two", "acme/three"]), secret in select(vec!["TOKEN", "OTHER"]),
        provider in select(vec!["openai", "anthropic"]),
    ) {
        let page = page(&warrant);
        let repository = name.parse().unwrap();
        prop_assert_eq!(reads(&page, name), warrant.permits_read(&repository).is_ok());
        for reference in ["refs/heads/main", "refs/heads/agent/builder-task-03030303"] {
            prop_assert_eq!(pushes(&page, name, reference), warrant.permits_push(&repository, reference).is_ok());
        }
        prop_assert_eq!(writes(&page, path), warrant.permits_path_write(path.as_bytes()).is_ok(), "{}", path);
        prop_assert_eq!(&page["exec"]["grant"], &Value::Bool(warrant.permits_exec().is_ok()));
        prop_assert_eq!(reaches(&page, host, port), warrant.permits_egress(host, port).is_ok(), "{}:{}", host, port);
        prop_assert_eq!(requests(&page, host, port, method, url), warrant.permits_request(host, port, method, url).ok());
        prop_assert_eq!(calls(&page, host, port, url, tool), warrant.permits_tool(host, port, "POST", url, tool).is_ok());
        prop_assert_eq!(uses(&page, secret, host, port, url), warrant.permits_secret(secret, host, port, url).is_ok());
        prop_assert_eq!(asks(&page, provider, model), warrant.permits_model(provider, model).is_ok());
        let budget = page["budget"]["grant"].as_u64().unwrap();
        prop_assert_eq!(budget, warrant.budget.micro());

        // A question gets the enforcing code's answer, and a line of this page as its reason.
        let explanation = Explanation::of(&warrant, &Provenance { narrowed_from: chain.clone(), ..Provenance::default() });
        let own = warrant.push_grant().map_or("local/one".to_owned(), |grant| grant.repository.to_string());
        for (text, granted, pattern_fits) in [
            (format!("read {name}"), reads(&page, name), None),
            (format!("write {path}"), page["push"]["grant"].is_object() && writes(&page, path),
                Some(Box::new(|line: &str| path_fits(line, path)) as Box<dyn Fn(&str) -> bool>)),
            ("push main".to_owned(), pushes(&page, &own, "refs/heads/main"), None),
            ("exec".to_owned(), page["exec"]["grant"] == true, None),
            (format!("reach {host}:{port}"), reaches(&page, host, port),
                Some(Box::new(|line: &str| host_fits(line, host, port)))),
            (format!("request {method} https://{host}:{port}{url}"), requests(&page, host, port, method, url).is_some(), None),
            (format!("call https://{host}:{port}{url}#{tool}"), calls(&page, host, port, url, tool), None),
            (format!("use {secret} https://{host}:{port}{url}"),
                reaches(&page, host, port) && uses(&page, secret, host, port, url), None),
            (format!("ask {provider}/{model}"), asks(&page, provider, model), None),
            ("spend 3".to_owned(), budget >= 3_000_000, None),
        ] {
            let answer = explanation.answer(&warrant, &text.parse::<Question>().unwrap());
            prop_assert_eq!(answer.granted, granted, "{}: {:?}", text, answer);
            prop_assert_eq!(answer.refusal.is_none() && answer.next.is_none(), granted);
            if let (true, Some(fits)) = (granted, pattern_fits) {
                prop_assert!(fits(answer.line.as_deref().unwrap()), "{}: {:?}", text, answer);
            }
        }

        // What a narrowing took away is said, each thing with the warrant that took it.
        if let Some(first) = chain.first() {
            for one in &first.egress {
                let said = explanation.taken_away.iter().any(|taken| taken.what == format!("reach {one}"));
                prop_assert_eq!(said, !warrant.egress.contains(one));
            }
            let lowered = explanation.budget.source.origin == Origin::Narrowing;
            prop_assert_eq!(lowered, warrant.budget != first.budget);
        }
    }
}

#[test]
fn a_page_that_lies_is_found() {
    let warrant = base_warrant();
    let mut page = page(&warrant);
    assert!(reaches(&page, "api.example.com", 443) && !reaches(&page, "api.example.com", 80));
    page["hosts"][0]["grant"] = "*.example.com:80".into();
    assert!(!reaches(&page, "api.example.com", 443) && reaches(&page, "api.example.com", 80));
    assert!(!writes(&page, ".github/workflows/ci.yml"));
    page["protected"] = Value::Array(Vec::new());
    assert!(writes(&page, ".github/workflows/ci.yml"));
}

#[test]
fn every_line_names_its_rule() {
    let first = base_warrant();
    let request = Narrowing {
        egress: Some(vec!["api.example.com".parse().unwrap()]),
        push: Some(None),
        protect: vec!["src/auth/**".parse().unwrap()],
        ..Narrowing::default()
    };
    let second = first.narrow(WarrantId::from_bytes([9; 16]), request).unwrap();
    let provenance = Provenance {
        hosts: vec!["*.example.com".parse().unwrap(), "registry:npm".parse().unwrap()],
        narrowed_from: vec![first],
        ..Provenance::default()
    };
    let page = Explanation::of(&second, &provenance);
    let source = |origin: Origin, text: &str| (origin, text.to_owned());
    let of = |source: &tipstaff_model::explain::Source| (source.origin, source.text.clone());
    let narrowed = source(Origin::Narrowing, "narrowed by warrant 09090909-0909-0909-0909-090909090909");
    assert_eq!(of(&page.push.source), narrowed);
    assert_eq!(of(&page.protected.last().unwrap().source), narrowed);
    assert_eq!(of(&page.protected[0].source), source(Origin::Template, "template of the role builder"));
    assert_eq!(of(&page.hosts[0].source), source(Origin::Option, "--allow-host *.example.com:443"));
    assert_eq!(of(&page.budget.source), source(Origin::Option, "--budget"));
    let taken: Vec<&str> = page.taken_away.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(
        taken,
        ["push refs/heads/agent/builder-task-03030303", "reach *.example.com:443", "reach *.corp.test:443"]
    );
    let answer = page.answer(&second, &"write src/auth/key.rs".parse().unwrap());
    assert_eq!(answer.refusal.unwrap().rule.id(), "push-not-granted");
    assert_eq!(of(&answer.source), narrowed);
}
