use super::*;
use crate::policy::{Policy, PolicyLayer, PolicyOrigin, PolicyRule};
use proptest::prelude::*;

const PLACE: Place<'static> = Place { workspace: "/work" };

fn action(kind: ActionKind, commands: &[&str], paths: &[&str], hosts: &[&str]) -> Action {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Action {
        kind,
        tool: "Bash".into(),
        title: String::new(),
        commands: own(commands),
        paths: own(paths),
        hosts: own(hosts),
        input: serde_json::Value::Null,
    }
}

fn rule(decision: Decision, what: &str) -> PolicyRule {
    let mut rule = PolicyRule::new(decision);
    match what.split_once(':') {
        Some(("command", text)) => rule.commands = vec![text.parse().unwrap()],
        Some(("path", text)) => rule.paths = vec![text.parse().unwrap()],
        Some(("edit", text)) => {
            rule.kinds = vec![ActionKind::Edit];
            rule.paths = vec![text.parse().unwrap()];
        }
        Some(("host", text)) => rule.hosts = vec![text.parse().unwrap()],
        Some(("tool", text)) => rule.tools = vec![text.parse().unwrap()],
        Some(("kind", text)) => rule.kinds = vec![text.parse().unwrap()],
        Some(("risk", text)) => rule.risk = Some(text.parse().unwrap()),
        _ => {}
    }
    rule
}

fn layer(default: Option<Decision>, rules: Vec<PolicyRule>) -> PolicyLayer {
    PolicyLayer { origin: PolicyOrigin::Org, policy: Policy { default, rules } }
}

fn decide(layers: &[PolicyLayer], action: &Action) -> Decision {
    let about = Circumstances { role: AgentRole::Builder, risk: Risk::Medium, place: PLACE };
    Policies(layers.to_vec()).judge(action, about).decision
}

use Decision::{Allow, Ask, Deny};

#[test]
fn a_command_is_as_strict_as_its_strictest_part_and_what_is_hidden_is_never_let_through_by_a_rule() {
    let policy = layer(
        Some(Ask),
        vec![
            rule(Deny, "command:git push *"),
            rule(Allow, "command:git *"),
            rule(Allow, "command:echo *"),
            rule(Allow, "command:make *"),
        ],
    );
    for (text, expected) in [
        ("git status", Allow),
        ("make", Allow),
        ("bash -lc 'git status && make test'", Allow),
        ("timeout 10 make test", Allow),
        ("git push", Deny),
        ("git push -f origin main", Deny),
        ("git -C /x push", Deny),
        ("/usr/bin/git push", Deny),
        ("./git push", Deny),
        ("./git status", Ask),
        ("git status && git push", Deny),
        ("git status; curl x", Ask),
        ("git $(echo push)", Deny),
        ("git $VERB", Deny),
        ("git log $REF", Allow),
        ("echo $HOME", Allow),
        ("echo $(git push)", Deny),
        ("echo $(curl x)", Ask),
        ("$GIT push", Ask),
        ("git c$X", Allow),
        ("PATH=/evil git status", Ask),
        ("git -c alias.x='!rm' x", Ask),
        ("eval \"git $X\"", Deny),
        ("sh -c \"$X\"", Ask),
        ("echo x | sh", Ask),
        ("echo cm0K | base64 -d | sh", Ask),
        ("sudo git status", Ask),
        ("xargs git", Deny),
        ("xargs echo", Allow),
        ("find . -exec git push \\;", Deny),
        ("echo x > out.txt", Ask),
        ("echo x > /dev/null", Allow),
        ("make 2>&1", Allow),
        ("echo 'unclosed", Ask),
        ("", Ask),
    ] {
        let commands: Vec<&str> = if text.is_empty() { Vec::new() } else { vec![text] };
        assert_eq!(
            decide(std::slice::from_ref(&policy), &action(ActionKind::Execute, &commands, &[], &[])),
            expected,
            "{text}"
        );
    }
}

#[test]
fn paths_and_hosts_that_a_command_mentions_only_make_it_stricter() {
    let policy = layer(
        Some(Ask),
        vec![
            rule(Allow, "path:infra/docs/**"),
            rule(Deny, "path:infra/**"),
            rule(Deny, "host:pastebin.com"),
            rule(Allow, "command:*"),
        ],
    );
    for (text, expected) in [
        ("cat infra/main.tf", Deny),
        ("cat ./x/../infra/main.tf", Deny),
        ("cat INFRA/main.tf", Deny),
        ("cat infra/docs/a.md", Allow),
        ("cp --target=infra/x a", Deny),
        ("cat < infra/x", Deny),
        ("echo a > infra/x", Deny),
        ("echo a > infra/docs/x", Allow),
        ("curl https://pastebin.com/x", Deny),
        ("curl https://pastebin.com:8443/x", Deny),
        ("curl https://a.example/pastebin.com", Allow),
        ("cargo test", Allow),
    ] {
        assert_eq!(
            decide(std::slice::from_ref(&policy), &action(ActionKind::Execute, &[text], &[], &[])),
            expected,
            "{text}"
        );
    }
}

#[test]
fn rules_speak_of_their_kind_tool_path_and_host() {
    let edits = layer(
        Some(Deny),
        vec![rule(Allow, "edit:src/**"), rule(Allow, "kind:read"), rule(Allow, "host:a.example")],
    );
    for (kind, path, host, expected) in [
        (ActionKind::Edit, "src/a.rs", "", Allow),
        (ActionKind::Edit, "/work/src/a.rs", "", Allow),
        (ActionKind::Edit, "SRC/a.rs", "", Deny),
        (ActionKind::Edit, "src/../a.rs", "", Deny),
        (ActionKind::Edit, "/etc/passwd", "", Deny),
        (ActionKind::Read, "/etc/passwd", "", Allow),
        (ActionKind::Fetch, "", "a.example:443", Allow),
        (ActionKind::Fetch, "", "A.Example", Allow),
        (ActionKind::Fetch, "", "a.example:8443", Deny),
        // An unknown tool is judged as a whole besides.
        (ActionKind::Other, "src/a.rs", "", Deny),
        (ActionKind::Edit, "", "", Deny),
    ] {
        let paths: Vec<&str> = if path.is_empty() { Vec::new() } else { vec![path] };
        let hosts: Vec<&str> = if host.is_empty() { Vec::new() } else { vec![host] };
        assert_eq!(
            decide(std::slice::from_ref(&edits), &action(kind, &[], &paths, &hosts)),
            expected,
            "{kind} {path} {host}"
        );
    }
    let outside = layer(None, vec![rule(Allow, "path:src/**"), rule(Ask, "path:**")]);
    assert_eq!(decide(std::slice::from_ref(&outside), &action(ActionKind::Edit, &[], &["/etc/x"], &[])), Ask);
    assert_eq!(decide(&[outside], &action(ActionKind::Edit, &[], &["src/x"], &[])), Allow);
    let all = layer(Some(Deny), vec![rule(Allow, "path:**")]);
    assert_eq!(decide(&[all], &action(ActionKind::Read, &[], &["/etc/x"], &[])), Deny);
}

#[test]
fn a_rule_whose_last_day_is_over_says_nothing() {
    let mut denied = rule(Deny, "tool:Bash");
    denied.until = Some("2026-11-21".parse().unwrap());
    let policies = Policies(vec![layer(None, vec![denied])]);
    let about = Circumstances { role: AgentRole::Builder, risk: Risk::Medium, place: PLACE };
    let on = |ms| policies.clone().at(ms).judge(&action(ActionKind::Other, &[], &[], &[]), about).decision;
    let day = 86_400_000;
    let last = crate::budget::CalendarDay::number("2026-11-21".parse().unwrap()) * day;
    assert_eq!(on(last + day - 1), Deny);
    assert_eq!(on(last + day), Allow);
}

#[test]
fn denied_paths_and_hosts_are_walls_unless_more_is_asked_of_them() {
    let mut with_tool = rule(Deny, "path:tool/**");
    with_tool.tools = vec!["Bash".parse().unwrap()];
    let mut of_reviewers = rule(Deny, "path:review/**");
    of_reviewers.roles = vec![AgentRole::Reviewer];
    let policies = Policies(vec![layer(
        Some(Deny),
        vec![
            rule(Ask, "path:exempt/**"),
            rule(Allow, "path:infra/docs/**"),
            rule(Deny, "path:infra/**"),
            rule(Deny, "edit:db/**"),
            rule(Deny, "path:exempt/x/**"),
            with_tool,
            of_reviewers,
            rule(Deny, "host:*.evil.example"),
            rule(Ask, "host:asked.example"),
        ],
    )]);
    let walls = policies.walls(AgentRole::Builder);
    let paths: Vec<&str> = walls.paths.iter().map(|wall| wall.what.as_str()).collect();
    assert_eq!(paths, ["infra/**", "db/**"]);
    assert_eq!(policies.walls(AgentRole::Reviewer).paths.len(), 3);
    assert_eq!(walls.hosts.len(), 1);
    for (host, kept_out) in [
        ("a.evil.example", true),
        ("a.evil.example:8443", true),
        ("*.evil.example", true),
        ("evil.example", false),
        ("*.example.com", false),
        ("asked.example", false),
    ] {
        assert_eq!(walls.keeps_out(&host.parse().unwrap()).is_some(), kept_out, "{host}");
    }
    assert!(walls.keeps_out(&"*.sub.evil.example".parse().unwrap()).is_some());
    assert!(walls.paths[0].because.contains("rule 3"), "{}", walls.paths[0].because);
}

#[test]
fn what_is_no_policy_is_said_with_its_rule_and_what_is_odd_is_told() {
    let mut mixed = rule(Deny, "path:a/**");
    mixed.commands = vec!["rm *".parse().unwrap()];
    let mut risky = rule(Allow, "risk:high");
    risky.reason = None;
    let mut reason = rule(Ask, "tool:Bash");
    reason.reason = Some("a\u{1b}".to_owned());
    let mut long = rule(Ask, "tool:Bash");
    long.tools = vec!["x".parse().unwrap(); 201];
    for (bad, part) in
        [(mixed, "more than one of"), (risky, "riskier"), (reason, "reason"), (long, "tools has more")]
    {
        let policy = Policy { default: None, rules: vec![rule(Ask, "tool:x"), bad] };
        let told = policy.validate().unwrap_err().to_string();
        assert!(told.starts_with("rule 2: ") && told.contains(part), "{told}");
    }
    let mut fetch = rule(Deny, "host:a.example");
    fetch.kinds = vec![ActionKind::Read];
    let odd = Policy {
        default: Some(Ask),
        rules: vec![
            rule(Allow, "path:infra/docs/**"),
            rule(Deny, "path:infra/**"),
            rule(Allow, "path:infra/x/**"),
            rule(Allow, "command:cd x && make"),
            rule(Allow, "command:env make"),
            rule(Ask, "command:curl *"),
            fetch,
            rule(Deny, "path:infra/prod/**"),
        ],
    };
    let told: Vec<String> = odd.remarks().iter().map(|one| format!("{}: {}", one.rule, one.text)).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    2: an earlier rule exempts some of its paths from the agent's protocol, but no push may change them: what a warrant protects has no exceptions
    3: it never decides: rule 2 comes first and matches all that it matches
    4: the command 'cd x && make' holds a mark of the shell, but each command of a text is matched by itself, without them
    5: the command 'env make' begins with a word that is left out: the command that it runs is matched
    6: it changes nothing: what no rule names is asked about anyway
    7: it never matches: what reads or edits files names no host
    8: it never decides: rule 2 comes first and matches all that it matches
    ");
    let words: Vec<String> = odd.rules.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r"
    lets through what touches infra/docs/**
    denies what touches infra/**
    lets through what touches infra/x/**
    lets through the command cd x && make
    lets through the command env make
    asks about the command curl *
    denies the host a.example:443 of the kind read
    denies what touches infra/prod/**
    ");
    assert!(
        Policy { default: None, rules: vec![rule(Allow, "command:ls *")] }.remarks()[0]
            .text
            .contains("changes nothing")
    );
}

fn any_decision() -> impl Strategy<Value = Decision> {
    prop_oneof![Just(Allow), Just(Ask), Just(Deny)]
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let whats = prop_oneof![
        Just("command:git *"),
        Just("command:rm *"),
        Just("command:*"),
        Just("path:src/**"),
        Just("path:**"),
        Just("edit:a"),
        Just("host:a.example"),
        Just("tool:Bash"),
        Just("kind:execute"),
        Just("all"),
    ];
    (any_decision(), whats).prop_map(|(decision, what)| rule(decision, what))
}

fn any_layer() -> impl Strategy<Value = PolicyLayer> {
    (prop::option::of(any_decision()), prop::collection::vec(any_rule(), 0..5))
        .prop_map(|(default, rules)| layer(default, rules))
}

fn any_action() -> impl Strategy<Value = Action> {
    let text = prop_oneof![
        "[a-z $(){}'\"`;|&<>\\\\\n=/.-]{0,40}",
        Just("git status && rm -rf x".to_owned()),
        Just("git push > src/a".to_owned()),
    ];
    let kinds = prop_oneof![
        Just(ActionKind::Execute),
        Just(ActionKind::Edit),
        Just(ActionKind::Fetch),
        Just(ActionKind::Other)
    ];
    (
        kinds,
        prop::collection::vec(text, 0..3),
        prop::collection::vec("(src|/etc|\\.\\.|a)(/[a-z.]{0,4}){0,2}", 0..3),
    )
        .prop_map(|(kind, commands, paths)| Action {
            kind,
            tool: "Bash".into(),
            title: String::new(),
            commands,
            paths,
            hosts: Vec::new(),
            input: serde_json::Value::Null,
        })
}

proptest! {
    #[test]
    fn a_layer_more_never_makes_a_decision_more_lenient(layers in prop::collection::vec(any_layer(), 0..4), more in any_layer(), at in 0_usize..4, action in any_action()) {
        let before = decide(&layers, &action);
        let mut all = layers;
        all.insert(at.min(all.len()), more);
        prop_assert!(decide(&all, &action) >= before);
    }

    #[test]
    fn an_action_is_never_more_lenient_than_each_of_its_parts(one in any_layer(), first in any_action(), second in any_action()) {
        prop_assume!(first.kind == second.kind);
        let mut both = first.clone();
        both.commands.extend(second.commands.clone());
        both.paths.extend(second.paths.clone());
        let strictest = decide(std::slice::from_ref(&one), &both);
        for part in [&first, &second] {
            // An action without any part is judged as a whole, which the joined one need not be.
            if part_is_named(part) {
                prop_assert!(strictest >= decide(std::slice::from_ref(&one), part), "{:?}", part);
            }
        }
    }

    #[test]
    fn a_harmless_command_takes_no_other_along(front in "git [a-z]{1,6}", glue in "(;|&&|\\|\\||\n|&|\\|)", back in "[a-f]{1,5}( [a-z]{1,3})?") {
        let policy = layer(Some(Deny), vec![rule(Allow, "command:git *")]);
        let text = format!("{front}{glue}{back}");
        prop_assert_eq!(decide(&[policy], &action(ActionKind::Execute, &[&text], &[], &[])), Deny);
    }
}

fn part_is_named(action: &Action) -> bool {
    parts_of(action).iter().any(|part| part.object != Object::Whole && !part.is_mentioned)
}
