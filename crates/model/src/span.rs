//! Spans of time as people write them: `90s`, `10m`, `1h30m`.

use crate::warrant::{LONGEST_RUN_MS, SHORTEST_RUN_MS};

/// A span could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a time from 1s to 24h; write 90s, 10m or 1h30m", .0.escape_debug())]
pub struct SpanError(String);

/// Reads a span of one second to one day, in milliseconds. Hours, minutes and seconds in this order, each at most once;
/// a number alone is seconds.
///
/// # Errors
/// [`SpanError`] for anything else.
pub fn span_ms(text: &str) -> Result<u64, SpanError> {
    let error = || SpanError(text.chars().take(40).collect());
    let mut total: u64 = 0;
    let mut number = String::new();
    let mut last_unit = u64::MAX;
    if text.is_empty() || text.len() > 20 {
        return Err(error());
    }
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3_600_000,
            'm' => 60_000,
            's' => 1_000,
            _ => return Err(error()),
        };
        let value: u64 = number.parse().map_err(|_| error())?;
        if unit >= last_unit {
            return Err(error());
        }
        last_unit = unit;
        number.clear();
        total = value.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(error)?;
    }
    if !number.is_empty() {
        if last_unit != u64::MAX {
            return Err(error());
        }
        total = number.parse::<u64>().ok().and_then(|value| value.checked_mul(1_000)).ok_or_else(error)?;
    }
    let range = SHORTEST_RUN_MS..=LONGEST_RUN_MS;
    if range.contains(&total) { Ok(total) } else { Err(error()) }
}
