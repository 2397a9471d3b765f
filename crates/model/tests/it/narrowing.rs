//! No sequence of narrowings ever grants what the parent did not.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tipstaff_model::repository::RepositoryName;
use tipstaff_model::warrant::{
    HostPattern, HostRules, IssueRequest, ModelGrant, PathPattern, PushGrant, RepositoryGrant, RequestRule,
    RequestVerdict, SecretGrant, Warrant, WarrantKind,
};
use tipstaff_model::{
    AgentRole, CommitId, FixedClock, Limits, LiveWarrant, MicroUsd, Narrowing, OrgId, RefName, RunId, TaskId,
    WarrantId,
};

const HOSTS: &[&str] = &[
    "*.example.com",
    "example.com",
    "api.example.com",
    "*.api.example.com",
    "a.api.example.com:8443",
    "registry.corp.test",
    "*.corp.test",
    "evil.corp.test:22",
];
const PATHS: &[&str] =
    &["**", "src/**", "src/a/**", "src/*.rs", "docs", "**/*.md", "src/a/b.rs", ".github/workflows/**"];
const MODELS: &[&str] = &["*", "gpt-*", "gpt-5*", "gpt-5.5", "claude-opus", "claude-*"];
const METHODS: &[&str] = &["GET", "POST", "DELETE"];
const URLS: &[&str] = &["/**", "/repos/**", "/repos/*/issues", "/mcp", "/"];
const REQUESTED: &[&str] = &["/", "/repos/one/issues", "/repos/one", "/mcp", "/other"];
const TOOLS: &[&str] = &["search", "write"];
const SECRETS: &[&str] = &["TOKEN", "OTHER"];
const REPOSITORIES: &[&str] = &["local/one", "local/two", "acme/three"];

fn grant(name: &str) -> RepositoryGrant {
    RepositoryGrant { name: name.parse().unwrap(), base: "a".repeat(40).parse::<CommitId>().unwrap() }
}

/// A generous warrant.
pub(crate) fn base_warrant() -> Warrant {
    let mut warrant = Warrant::issue(IssueRequest {
        ids: (
            WarrantId::from_bytes([1; 16]),
            OrgId::from_bytes([2; 16]),
            TaskId::from_bytes([3; 16]),
            RunId::from_bytes([4; 16]),
        ),
        subject: "member:test".to_owned(),
        role: AgentRole::Builder,
        repository: grant("local/one"),
        budget: Some(MicroUsd::from_micro(5_000_000)),
        wall_ms: Some(60_000),
        egress: vec!["*.example.com".parse().unwrap(), "*.corp.test".parse().unwrap()],
        hosts: Vec::new(),
        secrets: vec![SecretGrant {
            name: "TOKEN".to_owned(),
            host: "api.example.com".parse().unwrap(),
            path: "/repos/**".parse().unwrap(),
        }],
        models: vec![ModelGrant { provider: "openai".to_owned(), model: "gpt-*".parse().unwrap() }],
        submodules: true,
        lfs: true,
        now_ms: 1_000_000,
    })
    .unwrap();
    warrant.repositories.push(grant("local/two"));
    warrant
}

fn parsed<T: std::str::FromStr + Clone + std::fmt::Debug + 'static>(
    texts: &'static [&'static str],
) -> impl Strategy<Value = Option<Vec<T>>>
where
    T::Err: std::fmt::Debug,
{
    let all: Vec<T> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let most = all.len();
    proptest::option::of(subsequence(all, 0..=most))
}

fn push_grant() -> impl Strategy<Value = Option<Option<PushGrant>>> {
    let names = select(REPOSITORIES);
    let own = AgentRole::Builder.branch(TaskId::from_bytes([3; 16])).unwrap();
    let refs = select(vec![own, RefName::branch("main").unwrap()]);
    proptest::option::of(proptest::option::of(
        (names, refs)
            .prop_map(|(name, reference)| PushGrant { repository: name.parse().unwrap(), reference }),
    ))
}

fn limits() -> impl Strategy<Value = Option<Limits>> {
    proptest::option::of((1_u64..100_000, 1_u64..1_000, 1_u64..200_000).prop_map(
        |(wall_ms, processes, push_objects)| Limits { wall_ms, processes, push_objects, ..Limits::default() },
    ))
}

pub(crate) fn narrowing() -> impl Strategy<Value = Narrowing> {
    let models = parsed::<tipstaff_model::warrant::ModelPattern>(MODELS).prop_map(|models| {
        models.map(|all| {
            all.into_iter()
                .map(|model| ModelGrant { provider: "openai".to_owned(), model })
                .collect::<Vec<_>>()
        })
    });
    let repositories = proptest::option::of(
        subsequence(REPOSITORIES.to_vec(), 0..=3)
            .prop_map(|names| names.into_iter().map(grant).collect::<Vec<_>>()),
    );
    let bit = || proptest::option::of(any::<bool>());
    let rule = (subsequence(METHODS.to_vec(), 0..=2), select(URLS), subsequence(TOOLS.to_vec(), 0..=2))
        .prop_map(|(methods, path, tools)| RequestRule {
            methods: methods.into_iter().map(ToOwned::to_owned).collect(),
            path: path.parse().unwrap(),
            tools: tools.into_iter().map(ToOwned::to_owned).collect(),
        });
    let rules = (select(HOSTS), any::<bool>(), proptest::collection::vec(rule, 0..3))
        .prop_map(|(host, inspect, requests)| HostRules { host: host.parse().unwrap(), inspect, requests });
    let secret = (select(SECRETS), select(HOSTS), select(URLS)).prop_map(|(name, host, path)| SecretGrant {
        name: name.to_owned(),
        host: host.parse().unwrap(),
        path: path.parse().unwrap(),
    });
    let network = (
        proptest::collection::vec(rules, 0..2),
        proptest::option::of(proptest::collection::vec(secret, 0..2)),
    );
    (
        (proptest::option::of(select(WarrantKind::ALL)), repositories, push_grant(), limits()),
        (parsed::<PathPattern>(PATHS), parsed::<PathPattern>(PATHS), parsed::<HostPattern>(HOSTS), models),
        network,
        (bit(), bit(), bit()),
        (proptest::option::of(0_u64..8_000_000), proptest::option::of(900_000_i64..1_400_000)),
    )
        .prop_map(
            |(
                (kind, repositories, push, limits),
                (write, protect, egress, models),
                (hosts, secrets),
                (exec, submodules, lfs),
                (budget, expires_at),
            )| Narrowing {
                kind,
                repositories,
                push,
                write,
                protect: protect.unwrap_or_default(),
                exec,
                submodules,
                lfs,
                egress,
                hosts,
                secrets,
                models,
                budget: budget.map(MicroUsd::from_micro),
                limits,
                expires_at,
            },
        )
}

/// The same, and of a narrowing: it is of the same run.
fn widened(parent: &Warrant, child: &Warrant) -> Option<String> {
    let identity = |one: &Warrant| (one.org, one.run, one.task, one.subject.clone());
    if identity(parent) != identity(child) {
        return Some("identity".to_owned());
    }
    grants_more(parent, child)
}

/// Every question the product asks of a warrant: `Some(what)` when the child grants what the parent does not.
pub(crate) fn grants_more(parent: &Warrant, child: &Warrant) -> Option<String> {
    let repositories: Vec<RepositoryName> = REPOSITORIES.iter().map(|name| name.parse().unwrap()).collect();
    for name in &repositories {
        if child.permits_read(name).is_ok() && parent.permits_read(name) != child.permits_read(name) {
            return Some(format!("read {name}"));
        }
        for reference in ["refs/heads/main", "refs/heads/agent/builder-task-03030303"] {
            if child.permits_push(name, reference).is_ok() && parent.permits_push(name, reference).is_err() {
                return Some(format!("push {name} {reference}"));
            }
        }
    }
    for path in [
        "src/a/b.rs",
        "src/x.rs",
        "docs",
        "docs/x.md",
        "README.md",
        ".github/workflows/ci.yml",
        "main.tf",
        "a",
    ] {
        if child.permits_path_write(path.as_bytes()).is_ok()
            && parent.permits_path_write(path.as_bytes()).is_err()
        {
            return Some(format!("path {path}"));
        }
    }
    let fixture = ["tests/fixtures/a", "src/a/b.rs"]
        .into_iter()
        .find(|path| child.paths.is_fixture(path.as_bytes()) && !parent.paths.is_fixture(path.as_bytes()));
    if let Some(path) = fixture {
        return Some(format!("secrets in {path}"));
    }
    for host in [
        "example.com",
        "api.example.com",
        "a.api.example.com",
        "registry.corp.test",
        "evil.corp.test",
        "a.b.corp.test",
    ] {
        for port in [443, 22, 8443] {
            if child.permits_egress(host, port).is_ok() && parent.permits_egress(host, port).is_err() {
                return Some(format!("egress {host}:{port}"));
            }
        }
    }
    if let Some(request) = request_widened(parent, child) {
        return Some(request);
    }
    for model in ["gpt-5.5", "gpt-4", "claude-opus", "o3"] {
        if child.permits_model("openai", model).is_ok() && parent.permits_model("openai", model).is_err() {
            return Some(format!("model {model}"));
        }
    }
    if child.permits_exec().is_ok() && parent.permits_exec().is_err() {
        return Some("exec".to_owned());
    }
    if child.kind.may_write() && !parent.kind.may_write() {
        return Some("writable workspace".to_owned());
    }
    if (child.tools.submodules && !parent.tools.submodules) || (child.tools.lfs && !parent.tools.lfs) {
        return Some("submodules or lfs".to_owned());
    }
    if child.budget > parent.budget
        || child.expires_at > parent.expires_at
        || !parent.limits.covers(&child.limits)
    {
        return Some("budget, expiry or limits".to_owned());
    }
    None
}

/// The same of single requests, of tools and of secrets.
fn request_widened(parent: &Warrant, child: &Warrant) -> Option<String> {
    for host in ["api.example.com", "a.api.example.com", "registry.corp.test"] {
        // A host that is inspected for a secret alone need not be once the secret is gone.
        let by_rule = parent.host_rules(host, 443).any(|rules| rules.inspect || !rules.requests.is_empty());
        if by_rule && !child.must_inspect(host, 443) {
            return Some(format!("{host} is not inspected any more"));
        }
        for path in REQUESTED {
            for method in METHODS {
                let of = |warrant: &Warrant| warrant.permits_request(host, 443, method, path);
                let wider = matches!(
                    (of(parent), of(child)),
                    (Err(_), Ok(_)) | (Ok(RequestVerdict::ByTool), Ok(RequestVerdict::Permitted))
                );
                let tool = TOOLS.iter().find(|tool| {
                    let of = |warrant: &Warrant| warrant.permits_tool(host, 443, method, path, tool);
                    of(child).is_ok() && of(parent).is_err()
                });
                if wider || tool.is_some() {
                    return Some(format!("{method} {host}{path} {tool:?}"));
                }
            }
            for name in SECRETS {
                let of = |warrant: &Warrant| warrant.permits_secret(name, host, 443, path).is_ok();
                if of(child) && !of(parent) {
                    return Some(format!("secret {name} at {host}{path}"));
                }
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_warrant_in_force_is_only_ever_narrowed(
        requests in proptest::collection::vec(narrowing(), 1..4), foreign in any::<bool>(),
    ) {
        let clock = std::sync::Arc::new(FixedClock::at(1_000_500));
        let live = LiveWarrant::new(base_warrant(), clock.clone());
        for (position, request) in requests.into_iter().enumerate() {
            let before = live.warrant();
            let left = live.left_ms();
            let id = WarrantId::from_bytes([u8::try_from(position).unwrap() + 10; 16]);
            let Ok(mut child) = before.narrow(id, request) else { continue };
            if foreign {
                child.run = RunId::from_bytes([99; 16]);
            }
            let generation = live.generation();
            match live.narrow_to(child) {
                Ok(next) => {
                    prop_assert!(!foreign);
                    prop_assert_eq!(next, generation + 1);
                    prop_assert_eq!(widened(&before, &live.warrant()), None);
                    prop_assert!(live.left_ms() <= left);
                }
                Err(_) => prop_assert!(foreign && live.warrant() == before && live.generation() == generation),
            }
        }
        // The wall clock that goes back gives nothing back.
        let left = live.left_ms();
        clock.set_wall(0);
        prop_assert!(live.left_ms() <= left);
    }

    #[test]
    fn no_sequence_of_narrowings_widens(requests in proptest::collection::vec(narrowing(), 1..6)) {
        let root = base_warrant();
        let mut current = root.clone();
        for (position, request) in requests.into_iter().enumerate() {
            let id = WarrantId::from_bytes([u8::try_from(position).unwrap() + 10; 16]);
            // A refused request leaves the parent as it is, and the chain goes on from there.
            if let Ok(child) = current.narrow(id, request) {
                prop_assert_eq!(child.parent, Some(current.id));
                prop_assert_eq!(widened(&current, &child), None);
                prop_assert_eq!(widened(&root, &child), None);
                current = child;
            }
        }
    }

    #[test]
    fn a_covering_host_pattern_matches_all_that_the_covered_one_does(
        parent in select(HOSTS), child in select(HOSTS), label in "[a-z]{1,3}(\\.[a-z]{1,3}){0,2}",
        tail in select(vec!["example.com", "api.example.com", "corp.test", "registry.corp.test"]), port in select(vec![443_u16, 22, 8443]),
    ) {
        let (parent, child): (HostPattern, HostPattern) = (parent.parse().unwrap(), child.parse().unwrap());
        for host in [tail.to_owned(), format!("{label}.{tail}")] {
            if parent.covers(&child) && child.matches(&host, port) {
                prop_assert!(parent.matches(&host, port), "{} {} {}", parent, child, host);
            }
        }
    }

    #[test]
    fn a_covering_path_pattern_matches_all_that_the_covered_one_does(
        parent in "([ab*]|\\*\\*)(/([ab*]|\\*\\*)){0,3}", child in "([ab*]|\\*\\*)(/([ab*]|\\*\\*)){0,3}",
        path in "[ab]{1,2}(/[ab]{1,2}){0,4}",
    ) {
        if let (Ok(parent), Ok(child)) = (parent.parse::<PathPattern>(), child.parse::<PathPattern>())
            && parent.covers(&child)
            && child.matches(path.as_bytes())
        {
            prop_assert!(parent.matches(path.as_bytes()), "{} {} {}", parent, child, path);
        }
    }
}

#[test]
fn what_would_widen_is_named() {
    let parent = base_warrant();
    let id = WarrantId::from_bytes([9; 16]);
    let more = Narrowing { budget: Some(MicroUsd::from_micro(6_000_000)), ..Narrowing::default() };
    insta::assert_snapshot!(parent.narrow(id, more).unwrap_err().to_string(), @"a warrant can't be widened: $6.00 is not within the parent's budget; ask for less, or start a new run");
    let host = Narrowing { egress: Some(vec!["evil.org".parse().unwrap()]), ..Narrowing::default() };
    assert_eq!(parent.narrow(id, host).unwrap_err().dimension, "egress");
    let review = Narrowing { kind: Some(WarrantKind::Review), ..Narrowing::default() };
    let child = parent.narrow(id, review).unwrap();
    assert!(child.push_grant().is_none(), "a review warrant pushes nothing, whatever its fields say");
}

#[test]
fn the_canonical_bytes_of_a_warrant_do_not_drift() {
    // What a later version added is not written where it is not used.
    let mut first = base_warrant();
    first.secrets.clear();
    insta::assert_snapshot!(String::from_utf8(first.canonical_bytes().unwrap()).unwrap());
}
