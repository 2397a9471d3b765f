//! `tipstaff prices`: what models cost, and the operator's own table.

use crate::cli::PricesCommand;
use crate::context::Context;
use crate::exit::Problem;
use serde_json::json;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use tipstaff_model::price::LARGEST_TABLE;
use tipstaff_model::{AuditAction, AuditDraft, CalendarDay, Price, PriceTable};

/// The largest file that is looked at: the source of the program's own table is larger than a table.
const LARGEST_FILE: u64 = 8 * LARGEST_TABLE as u64;

/// The price table in force: the org's own, else the program's.
pub(crate) async fn in_force(context: &Context) -> anyhow::Result<PriceTable> {
    match context.store.read(context.scope()).await?.price_table().await? {
        Some(table) => Ok(table),
        None => Ok(PriceTable::builtin()?),
    }
}

/// Carries out `tipstaff prices …`.
pub(crate) async fn prices(command: PricesCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        PricesCommand::Show { model } => show(&context, model.as_deref()).await,
        PricesCommand::Update { file } => update(&context, &file).await,
        PricesCommand::Reset => reset(&context).await,
    }
}

fn describe(table: &PriceTable) -> String {
    format!(
        "{} of {}: {} models, sha256 {}, from {}",
        table.version(),
        table.date(),
        table.len(),
        table.sha256(),
        table.source().name
    )
}

/// Pico-dollars a token, as dollars a million tokens: the same digits with the point elsewhere.
pub(crate) fn per_million(rate: u64) -> String {
    let (dollars, parts) = (rate / 1_000_000, rate % 1_000_000);
    let text = format!("{dollars}.{parts:06}");
    let kept = text.trim_end_matches('0').len().max(dollars.to_string().len() + 3);
    text.get(..kept).unwrap_or(&text).to_owned()
}

async fn show(context: &Context, model: Option<&str>) -> anyhow::Result<ExitCode> {
    let table = in_force(context).await?;
    let output = &context.output;
    let Some(wanted) = model else {
        if output.json {
            output.raw(&table.to_json());
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> =
            table.models().map(|(provider, model, price)| row(provider, model, price)).collect();
        output.table(&HEAD, &rows);
        output.note("US dollars for a million tokens; `tipstaff prices show MODEL` says more of one");
        output.note(&describe(&table));
        return Ok(ExitCode::SUCCESS);
    };
    let found: Vec<(&str, &str, &Price)> = table
        .models()
        .filter(|(provider, model, _)| {
            *model == wanted
                || wanted.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')) == Some(model)
        })
        .collect();
    if found.is_empty() {
        let text = format!(
            "the table has no '{}': a call of it would cost the dearest known price of its provider, flagged; `tipstaff prices show` lists what it has, `tipstaff prices update` sets another table",
            wanted.escape_debug()
        );
        return Err(Problem::failed("price-unknown", text));
    }
    for (provider, model, price) in found {
        if output.json {
            let rates =
                |rates: &tipstaff_model::price::Rates| serde_json::to_value(rates).unwrap_or_default();
            output.object(&json!({
                "provider": provider, "model": model, "unit": "pico-dollars a token", "rates": rates(&price.rates),
                "above": price.long.as_ref().map(|long| json!({ "prompt_tokens": long.above, "rates": rates(&long.rates) })),
                "surcharge": price.surcharges, "context": price.context, "max_output": price.max_output,
                "table": { "version": table.version(), "date": table.date(), "sha256": table.sha256() },
            }));
            continue;
        }
        output.line(&format!("{provider}/{model}, US dollars for a million tokens"));
        let mut lines = vec![("", price.rates)];
        lines.extend(price.long.iter().map(|long| ("long ", long.rates)));
        for (word, rates) in lines {
            for (name, rate) in [
                ("input", rates.input),
                ("cache read", rates.cache_read),
                ("cache write", rates.cache_write),
                ("cache write, 1 h", rates.cache_write_1h),
                ("output", rates.output),
            ] {
                output.line(&format!("  {:<24} {:>12}", format!("{word}{name}"), per_million(rate)));
            }
        }
        if let Some(long) = &price.long {
            output.line(&format!(
                "  long: the whole call, when its prompt has more than {} tokens",
                long.above
            ));
        }
        for surcharge in tipstaff_model::Surcharge::ALL {
            if let Some(factor) = price.surcharges.get(*surcharge) {
                let text = format!("{}.{:03}", factor / 1_000, factor % 1_000);
                output.line(&format!("  {:<24} {:>12}", surcharge.as_str(), format!("x {text}")));
            }
        }
    }
    output.note(&describe(&table));
    Ok(ExitCode::SUCCESS)
}

const HEAD: [&str; 7] = ["PROVIDER", "MODEL", "INPUT", "CACHE READ", "CACHE WRITE", "OUTPUT", "CONTEXT"];

fn row(provider: &str, model: &str, price: &Price) -> Vec<String> {
    vec![
        provider.to_owned(),
        model.to_owned(),
        per_million(price.rates.input),
        per_million(price.rates.cache_read),
        per_million(price.rates.cache_write),
        per_million(price.rates.output),
        if price.context == 0 { "-".to_owned() } else { price.context.to_string() },
    ]
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| {
        Problem::usage("prices-unreadable", format!("{} can't be read: {error}", file.display()))
    };
    let mut bytes = Vec::new();
    // Something that never ends is not waited for: it is too large soon.
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        let text = format!("{} is larger than {LARGEST_FILE} bytes: it is no price table", file.display());
        return Err(Problem::usage("prices-too-large", text));
    }
    Ok(bytes)
}

/// Our own form, or the file that much of the field shares.
fn parse(bytes: &[u8], today: CalendarDay) -> anyhow::Result<PriceTable> {
    match PriceTable::parse(bytes) {
        Ok(table) => Ok(table),
        Err(error) => match PriceTable::from_litellm(bytes, "litellm", &today.to_string()) {
            Ok(table) => Ok(table),
            Err(_) => Err(Problem::usage(error.code(), format!("{error}; nothing was changed"))),
        },
    }
}

async fn update(context: &Context, file: &Path) -> anyhow::Result<ExitCode> {
    let table = parse(&read(file)?, CalendarDay::at(context.clock.wall_ms()))?;
    // What is stored must be readable again.
    PriceTable::parse(table.to_json().as_bytes())
        .map_err(|error| Problem::usage(error.code(), format!("{error}; nothing was changed")))?;
    let mut tx = context.store.begin(context.scope()).await?;
    tx.price_table_set(&table).await?;
    tx.audit_note(audited(context, "set", &table));
    tx.commit().await?;
    context.pin_checkpoint().await?;
    tell(context, &table, "prices are now");
    Ok(ExitCode::SUCCESS)
}

async fn reset(context: &Context) -> anyhow::Result<ExitCode> {
    let table = PriceTable::builtin()?;
    let mut tx = context.store.begin(context.scope()).await?;
    if tx.price_table_reset().await? {
        tx.audit_note(audited(context, "reset", &table));
    }
    tx.commit().await?;
    context.pin_checkpoint().await?;
    tell(context, &table, "prices are the program's");
    Ok(ExitCode::SUCCESS)
}

fn audited(context: &Context, step: &str, table: &PriceTable) -> AuditDraft {
    let org = format!("org:{}", context.scope().org());
    AuditDraft::new(context.principal.actor(), AuditAction::PricesSet, org)
        .with("step", step)
        .with("version", table.version())
        .with("sha256", table.sha256())
}

fn tell(context: &Context, table: &PriceTable, words: &str) {
    if context.output.json {
        context.output.object(&json!({
            "version": table.version(), "date": table.date(), "sha256": table.sha256(), "models": table.len(),
            "source": table.source(),
        }));
    } else {
        context.output.line(&format!("{words} {}", describe(table)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_dollars_a_million() {
        let written = [0, 3_000_000, 125_000, 1_250_000, 15_625_000, 1].map(per_million);
        assert_eq!(written, ["0.00", "3.00", "0.125", "1.25", "15.625", "0.000001"]);
    }
}
