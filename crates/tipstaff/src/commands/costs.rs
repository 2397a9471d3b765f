//! `tipstaff costs`: what was spent, by model, agent, project, person or day.

use crate::cli::{CostsArgs, CostsBy};
use crate::context::Context;
use crate::output::Tone;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use tipstaff_model::{CalendarDay, MicroUsd};
use tipstaff_store::{ChargeBy, ChargeSum};

/// Cells of the longest bar.
const BAR: u64 = 24;

/// Carries out `tipstaff costs`.
pub(crate) async fn costs(arguments: CostsArgs, context: Context) -> anyhow::Result<ExitCode> {
    let today = CalendarDay::at(context.clock.wall_ms());
    let since = arguments.since.day(today);
    let by = match arguments.by {
        CostsBy::Model => ChargeBy::Model,
        CostsBy::Agent => ChargeBy::Agent,
        CostsBy::Project => ChargeBy::Project,
        CostsBy::Person => ChargeBy::Person,
        CostsBy::Day => ChargeBy::Day,
    };
    let mut sums = context.store.read(context.scope()).await?.charge_by(by, since, today).await?;
    if by != ChargeBy::Day {
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.cost));
    }
    let output = &context.output;
    if arguments.csv {
        output.raw(&csv(&sums, by));
        return Ok(ExitCode::SUCCESS);
    }
    let total = total(&sums);
    if output.json {
        let rows: Vec<_> = sums.iter().map(object).collect();
        output.object(&json!({
            "by": arguments.by.as_str(), "since": since, "until": today, "rows": rows, "total": object(&total),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    if sums.is_empty() {
        output.note(&format!(
            "no model was called since {since}; costs appear here once a run of an agent has called one"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let people = super::budgets::people(&context).await?;
    let longest = sums.iter().map(|sum| sum.cost.micro()).max().unwrap_or(0);
    let blocks = output.colours();
    let mut rows: Vec<Vec<String>> = sums
        .iter()
        .map(|sum| {
            let mut row = row(sum, &label(sum, by, &people));
            row.push(bar(sum.cost, longest, blocks));
            row
        })
        .collect();
    rows.push(row(&total, "total"));
    let head = match by {
        ChargeBy::Model => "MODEL",
        ChargeBy::Agent => "AGENT",
        ChargeBy::Project => "PROJECT",
        ChargeBy::Person => "PERSON",
        ChargeBy::Day => "DAY (UTC)",
    };
    output.table(&[head, "COST", "CALLS", "INPUT", "CACHED", "OUTPUT", ""], &rows);
    output.line(&output.tone(Tone::Dim, &format!("from {since} to {today}")));
    if total.price_unknown > 0 {
        output.note(&format!(
            "* {} calls of models that the price table does not know: they count at the dearest price of their provider; `tipstaff prices update` sets another table",
            total.price_unknown
        ));
    }
    if total.estimated > 0 {
        output.note(&format!(
            "~ {} calls whose usage was estimated, since the provider's figures did not arrive",
            total.estimated
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn total(sums: &[ChargeSum]) -> ChargeSum {
    sums.iter().fold(ChargeSum::default(), |total, sum| ChargeSum {
        calls: total.calls.saturating_add(sum.calls),
        cost: MicroUsd::from_micro(total.cost.micro().saturating_add(sum.cost.micro())),
        usage: total.usage.plus(&sum.usage),
        price_unknown: total.price_unknown.saturating_add(sum.price_unknown),
        estimated: total.estimated.saturating_add(sum.estimated),
        ..total
    })
}

fn label(sum: &ChargeSum, by: ChargeBy, people: &BTreeMap<String, String>) -> String {
    let name = match by {
        ChargeBy::Model => format!("{}/{}", sum.provider, sum.key),
        ChargeBy::Agent if sum.key.is_empty() => "(no agent)".to_owned(),
        ChargeBy::Project if sum.key.is_empty() => "(no project)".to_owned(),
        ChargeBy::Person if sum.key.is_empty() => "(nobody)".to_owned(),
        ChargeBy::Person => people.get(&sum.key).unwrap_or(&sum.key).clone(),
        ChargeBy::Agent | ChargeBy::Project | ChargeBy::Day => sum.key.clone(),
    };
    // A model's name comes from a request or a provider.
    crate::watch::plain(&name)
}

fn row(sum: &ChargeSum, label: &str) -> Vec<String> {
    let mark = match (sum.price_unknown > 0, sum.estimated > 0) {
        (true, true) => "*~",
        (true, false) => "*",
        (false, true) => "~",
        (false, false) => "",
    };
    vec![
        label.to_owned(),
        format!("{}{mark}", dollars(sum.cost)),
        sum.calls.to_string(),
        sum.usage.input.to_string(),
        format!("{}", sum.usage.prompt().saturating_sub(sum.usage.input)),
        sum.usage.output.to_string(),
    ]
}

/// Dollars with four places, rounded up: a sum of small calls is not shown as nothing.
fn dollars(amount: MicroUsd) -> String {
    let parts = amount.micro().div_ceil(100);
    format!("${}.{:04}", parts / 10_000, parts % 10_000)
}

/// A bar of eighths where the terminal is a person's and wants colours; else of `#`.
fn bar(cost: MicroUsd, longest: u64, blocks: bool) -> String {
    if longest == 0 || cost == MicroUsd::ZERO {
        return String::new();
    }
    let eighths = u128::from(cost.micro()) * u128::from(BAR * 8) / u128::from(longest);
    let eighths = usize::try_from(eighths).unwrap_or(0).max(1);
    if !blocks {
        return "#".repeat(eighths.div_ceil(8));
    }
    let mut text = "█".repeat(eighths / 8);
    text.extend(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied());
    text
}

fn object(sum: &ChargeSum) -> serde_json::Value {
    json!({
        "provider": sum.provider, "key": sum.key, "calls": sum.calls, "cost_micro_usd": sum.cost.micro(),
        "usage": sum.usage, "tokens": sum.usage.total(), "price_unknown_calls": sum.price_unknown,
        "estimated_calls": sum.estimated,
    })
}

fn csv(sums: &[ChargeSum], by: ChargeBy) -> String {
    let mut out = String::from(
        "by,provider,key,calls,cost_usd,cost_micro_usd,input,cache_read,cache_write,cache_write_1h,output,reasoning,price_unknown_calls,estimated_calls\r\n",
    );
    let word = match by {
        ChargeBy::Model => "model",
        ChargeBy::Agent => "agent",
        ChargeBy::Project => "project",
        ChargeBy::Person => "person",
        ChargeBy::Day => "day",
    };
    for sum in sums {
        let usage = &sum.usage;
        let micro = sum.cost.micro();
        let numbers = [
            sum.calls.to_string(),
            format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000),
            micro.to_string(),
            usage.input.to_string(),
            usage.cache_read.to_string(),
            usage.cache_write.to_string(),
            usage.cache_write_1h.to_string(),
            usage.output.to_string(),
            usage.reasoning.to_string(),
            sum.price_unknown.to_string(),
            sum.estimated.to_string(),
        ];
        out.push_str(&format!(
            "{word},{},{},{}\r\n",
            field(&sum.provider),
            field(&sum.key),
            numbers.join(",")
        ));
    }
    out
}

/// A field of RFC 4180. A name that a spreadsheet would take for a formula is kept from being one.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) || formula {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::Usage;

    fn one(key: &str, micro: u64) -> ChargeSum {
        ChargeSum {
            provider: "openai".to_owned(),
            key: key.to_owned(),
            calls: 2,
            cost: MicroUsd::from_micro(micro),
            usage: Usage {
                input: 7,
                cache_read: 1,
                cache_write: 2,
                cache_write_1h: 3,
                output: 5,
                reasoning: 4,
            },
            price_unknown: 1,
            estimated: 0,
        }
    }

    #[test]
    fn bars_are_as_long_as_the_money() {
        let bars = |blocks: bool| -> Vec<String> {
            [0, 1, 100, 500, 1_000]
                .iter()
                .map(|micro| bar(MicroUsd::from_micro(*micro), 1_000, blocks))
                .collect()
        };
        assert_eq!(bars(false), ["", "#", "###", "############", "########################"]);
        let eighths: Vec<usize> = bars(true).iter().map(|bar| bar.chars().count()).collect();
        assert_eq!(eighths, [0, 1, 3, 12, 24]);
    }

    #[test]
    fn money_is_rounded_up_for_the_eye() {
        let shown = [0, 1, 100, 101, 12_345_678].map(|micro| dollars(MicroUsd::from_micro(micro)));
        assert_eq!(shown, ["$0.0000", "$0.0001", "$0.0001", "$0.0002", "$12.3457"]);
    }

    #[test]
    fn csv_is_quoted_and_no_formula() {
        let text = csv(&[one("=cmd|'x'!A1", 1_500_000), one("a,\"b\"", 1)], ChargeBy::Model);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "model,openai,\"'=cmd|'x'!A1\",2,1.500000,1500000,7,1,2,3,5,4,1,0",
                "model,openai,\"a,\"\"b\"\"\",2,0.000001,1,7,1,2,3,5,4,1,0",
            ]
        );
    }

    #[test]
    fn totals_add_up() {
        let total = total(&[one("a", 1), one("b", 2)]);
        assert_eq!(
            (total.calls, total.cost.micro(), total.usage.total(), total.price_unknown),
            (4, 3, 36, 2)
        );
    }
}
