//! Prices, budgets and costs from the command line. What real calls cost is told where real agents run.

use crate::world::World;
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn prices_are_shown_replaced_refused_and_put_back() {
    let world = World::new();
    let all = world.tipstaff(&["prices", "show"]).expect(0);
    assert!(all.stdout.contains("claude-sonnet-4-5") && all.stdout.contains("15.00"), "{all:#?}");
    assert!(
        all.stderr.contains("litellm-1.109.1 of 2026-11-12") && all.stderr.contains("sha256"),
        "{all:#?}"
    );
    let one = world.tipstaff(&["prices", "show", "openai/gpt-5.5"]).expect(0).stdout;
    assert!(one.contains("272000") && one.contains("priority"), "{one}");
    let object = world.tipstaff(&["prices", "show", "gpt-5.5", "--json"]).expect(0).json();
    assert_eq!(object["rates"]["output"], 30_000_000);
    let unknown = world.tipstaff(&["prices", "show", "gpt-99\u{1b}[2J", "--json"]).expect(1);
    assert_eq!(unknown.json()["error"]["code"], "price-unknown");
    assert!(!unknown.stdout.contains('\u{1b}'));

    // What it prints is what it reads.
    let printed = world.tipstaff(&["prices", "show", "--json"]).expect(0).stdout;
    let mine = printed
        .replace("litellm-1.109.1", "mine-1")
        .replace("\"input\":5000000,\"output\":30000000", "\"input\":1,\"output\":2");
    let file = world.path().join("mine.json");
    world.write(&file, &mine);
    let path = file.to_str().unwrap();
    let told = world.tipstaff(&["prices", "update", "--file", path, "--json"]).expect(0).json();
    assert_eq!(told["version"], "mine-1");
    let object = world.tipstaff(&["prices", "show", "gpt-5.5", "--json"]).expect(0).json();
    assert_eq!((&object["rates"]["output"], &object["table"]["sha256"]), (&2.into(), &told["sha256"]));

    // Nonsense changes nothing.
    let refused = |text: &str, code: &str| {
        world.write(&file, text);
        let error = world.tipstaff(&["prices", "update", "--file", path, "--json"]).expect(2).json();
        assert_eq!(error["error"]["code"], code, "{error}");
    };
    refused("", "prices-form");
    refused("{}", "prices-form");
    refused("[[[[[[", "prices-form");
    refused(&mine.replace("\"input\":1,", "\"input\":-1,"), "prices-form");
    refused(&mine.replace("\"input\":1,", "\"input\":0.5,"), "prices-form");
    refused(&mine.replace("\"input\":1,", "\"input\":99999999999,"), "prices-content");
    refused(&mine.replace("tipstaff-prices/1", "tipstaff-prices/2"), "prices-content");
    refused(&mine.replacen("\"anthropic\"", "\"openai\"", 1), "prices-form");
    refused(&" ".repeat(5 << 20), "prices-too-large");
    for path in ["/nowhere/at/all", "/", "/dev/zero"] {
        let error = world.tipstaff(&["prices", "update", "--file", path, "--json"]).expect(2).json();
        assert!(error["error"]["code"].as_str().unwrap().starts_with("prices-"), "{error}");
    }
    let object = world.tipstaff(&["prices", "show", "gpt-5.5", "--json"]).expect(0).json();
    assert_eq!(object["table"]["version"], "mine-1");

    // The file that others share, with its floating-point dollars.
    let shared = r#"{"sample_spec":{"mode":"x"},"gpt-5.5":{"litellm_provider":"openai","mode":"chat",
        "input_cost_per_token":5e-06,"output_cost_per_token":3e-05}}"#;
    world.write(&file, shared);
    world.tipstaff(&["prices", "update", "--file", path]).expect(0);
    let object = world.tipstaff(&["prices", "show", "gpt-5.5", "--json"]).expect(0).json();
    assert_eq!(object["rates"]["input"], 5_000_000);

    world.tipstaff(&["prices", "reset"]).expect(0);
    assert_eq!(world.tipstaff(&["prices", "show", "--json"]).expect(0).stdout, printed);
    let log = world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert_eq!(log.matches("prices.set").count(), 3, "{log}");
}

#[test]
fn budgets_are_set_listed_and_removed() {
    let world = World::new();
    let empty = world.tipstaff(&["budgets", "list"]).expect(0);
    assert!(empty.stderr.contains("tipstaff budgets set --org"), "{empty:#?}");
    world.tipstaff(&["agents", "set", "fixer", "--role", "builder", "--", "true"]).expect(0);
    world.tipstaff(&["budgets", "set", "--org", "--per", "month", "200"]).expect(0);
    world.tipstaff(&["budgets", "set", "--agent", "fixer", "--per", "day", "$7.50"]).expect(0);
    let set =
        world.tipstaff(&["budgets", "set", "--agent", "fixer", "--per", "day", "5.25", "--json"]).expect(0);
    assert_eq!(set.json()["amount_micro_usd"], 5_250_000);
    let list = lines(&world.tipstaff(&["budgets", "list", "--json"]).expect(0).stdout);
    let short: Vec<String> = list
        .iter()
        .map(|one| format!("{} {} {}", one["holder"], one["per"], one["amount_micro_usd"]))
        .collect();
    assert_eq!(short, ["\"agent:fixer\" \"day\" 5250000", "\"org\" \"month\" 200000000"]);
    assert_eq!((&list[0]["spent_micro_usd"], &list[0]["reserved_micro_usd"]), (&0.into(), &0.into()));
    let text = world.tipstaff(&["budgets", "list"]).expect(0).stdout;
    assert!(text.contains("$200.00") && text.contains("agent:fixer"), "{text}");

    for bad in [
        &["budgets", "set", "--org", "--per", "month", "0"][..],
        &["budgets", "set", "--org", "--per", "month", "-5"],
        &["budgets", "set", "--org", "--per", "month", "1e9"],
        &["budgets", "set", "--org", "--per", "year", "5"],
        &["budgets", "set", "--org", "--agent", "fixer", "--per", "day", "5"],
        &["budgets", "set", "--per", "day", "5"],
        &["budgets", "set", "--org", "5"],
        &["budgets", "set", "--agent", "nobody", "--per", "day", "5"],
        &["budgets", "remove", "--org", "--per", "week"],
    ] {
        world.tipstaff(bad).expect(2);
    }
    world.tipstaff(&["budgets", "remove", "--org", "--per", "month"]).expect(0);
    assert_eq!(world.tipstaff(&["budgets", "list", "--json"]).expect(0).stdout.lines().count(), 1);
    let log = world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert_eq!(log.matches("budget.set").count(), 4, "{log}");
}

#[test]
fn costs_of_nothing_are_nothing_in_every_form() {
    let world = World::new();
    let repository = world.repository("demo");
    // A run that asks no model costs nothing, and is no line.
    world.run_script(&repository, "true").expect(0);
    let text = world.tipstaff(&["costs"]).expect(0);
    assert!(text.stdout.is_empty() && text.stderr.contains("no model was called since"), "{text:#?}");
    for by in ["model", "agent", "day"] {
        let object = world.tipstaff(&["costs", "--by", by, "--since", "7d", "--json"]).expect(0).json();
        assert_eq!((&object["by"], &object["rows"]), (&by.into(), &Value::Array(Vec::new())));
        assert_eq!(object["total"]["cost_micro_usd"], 0);
        let csv = world.tipstaff(&["costs", "--by", by, "--csv"]).expect(0).stdout;
        assert!(csv.starts_with("by,provider,key,calls,") && csv.lines().count() == 1, "{csv}");
    }
    world.tipstaff(&["costs", "--since", "2026-01-31"]).expect(0);
    for bad in [
        &["costs", "--since", "2026-02-30"][..],
        &["costs", "--since", "0d"],
        &["costs", "--since", "yesterday"],
        &["costs", "--by", "moon"],
        &["costs", "--csv", "--json"],
    ] {
        world.tipstaff(bad).expect(2);
    }
}
