//! Money in micro-units of the US dollar: 1 USD = 1,000,000.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The largest amount a budget may name: 1,000,000 USD.
pub const LARGEST_BUDGET: MicroUsd = MicroUsd(1_000_000_000_000);

/// An amount in micro-US-dollars. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(u64);

/// An amount could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a budget: write dollars above 0 and at most 1000000, such as 2, 0.50 or 2.5")]
pub struct MoneyError {
    text: String,
}

impl MicroUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `micro` millionths of a dollar.
    #[must_use]
    pub const fn from_micro(micro: u64) -> Self {
        Self(micro)
    }

    /// Millionths of a dollar.
    #[must_use]
    pub const fn micro(self) -> u64 {
        self.0
    }
}

impl FromStr for MicroUsd {
    type Err = MoneyError;

    /// Reads a positive budget in dollars with at most six decimal places; a leading `$` is allowed.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let error = || MoneyError { text: text.chars().take(40).collect() };
        let body = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 7 || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return Err(error());
        }
        if body.contains('.') && fraction.is_empty() {
            return Err(error());
        }
        let dollars: u64 = whole.parse().map_err(|_| error())?;
        let parts: u64 = format!("{fraction:0<6}").parse().map_err(|_| error())?;
        let amount = Self(dollars * 1_000_000 + parts);
        if amount == Self::ZERO || amount > LARGEST_BUDGET {
            return Err(error());
        }
        Ok(amount)
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, parts) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if parts % 10_000 == 0 {
            write!(f, "${dollars}.{:02}", parts / 10_000)
        } else {
            write!(f, "${dollars}.{parts:06}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_exactly_or_refused() {
        assert_eq!("2".parse::<MicroUsd>().unwrap().micro(), 2_000_000);
        assert_eq!("$0.50".parse::<MicroUsd>().unwrap().to_string(), "$0.50");
        assert_eq!("0.000001".parse::<MicroUsd>().unwrap().to_string(), "$0.000001");
        for bad in ["0", "-1", "0.0000001", "1e9", "nan", "", ".5", "5.", "1000001", "99999999999999999999"] {
            assert!(bad.parse::<MicroUsd>().is_err(), "{bad}");
        }
    }
}
