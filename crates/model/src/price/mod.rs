//! Prices: what tokens cost, in whole numbers.
//!
//! A rate is a whole number of pico-dollars (10⁻¹² USD) for one token: 3 USD for a million tokens are 3,000,000. No
//! floating point takes part in a cost, and a cost is rounded up to the next micro-dollar.
//!
//! - A long prompt is priced as its provider does it: past the threshold, *every* token of the call costs the higher
//!   rate, not only those beyond it.
//! - Cached input is priced apart from other input. [`Usage`] keeps the kinds apart, so nothing is counted twice.
//! - Reasoning is part of the output and is not added to it.
//! - What a source does not price apart costs what comes next above it: a cache read without a rate costs as much as
//!   input, a write for an hour without a rate as much as a shorter one.

mod form;
mod litellm;
mod table;

pub use litellm::PriceImportError;
pub use table::{BUILTIN_JSON, LARGEST_TABLE, PriceSource, PriceTable, PriceTableError, Quote};

use crate::charge::Usage;
use crate::money::MicroUsd;
use serde::{Deserialize, Serialize};

/// The largest rate that a table may name, in pico-dollars a token: 10,000 USD for a million tokens.
pub const LARGEST_RATE: u64 = 10_000_000_000;
/// The largest surcharge that a table may name, in thousandths: a hundred times the price.
pub const LARGEST_SURCHARGE: u32 = 100_000;

const PICO_IN_MICRO: u128 = 1_000_000;

/// What one token of each kind costs, in pico-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Input that no cache held.
    pub input: u64,
    /// Input that was read from a cache.
    pub cache_read: u64,
    /// Input that was written to a cache for minutes.
    pub cache_write: u64,
    /// Input that was written to a cache for an hour or longer.
    pub cache_write_1h: u64,
    /// Output, reasoning included.
    pub output: u64,
}

/// The rates of a call with a long prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LongPrompt {
    /// A prompt of more tokens than this, cached ones included, costs these rates.
    pub above: u64,
    /// The rates of the whole call then.
    pub rates: Rates,
}

/// What makes a call dearer than the list price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surcharge {
    /// A tier that is served first: `service_tier: "priority"`.
    Priority,
    /// Anthropic's fast mode.
    Fast,
    /// `service_tier: "ultrafast"`.
    Ultrafast,
    /// Inference that is kept in one country: `inference_geo: "us"`.
    Us,
}

impl Surcharge {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Priority, Self::Fast, Self::Ultrafast, Self::Us];

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Fast => "fast",
            Self::Ultrafast => "ultrafast",
            Self::Us => "us",
        }
    }

    /// The factor for a model whose own is not known, in thousandths: the dearest that a provider has asked for.
    #[must_use]
    pub const fn usual(self) -> u32 {
        match self {
            Self::Priority => 2_500,
            Self::Fast | Self::Ultrafast => 6_000,
            Self::Us => 1_100,
        }
    }
}

/// Factors in thousandths of the list price; absent where the table has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Surcharges {
    /// See [`Surcharge::Priority`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// See [`Surcharge::Fast`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast: Option<u32>,
    /// See [`Surcharge::Ultrafast`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ultrafast: Option<u32>,
    /// See [`Surcharge::Us`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us: Option<u32>,
}

impl Surcharges {
    /// One of them.
    #[must_use]
    pub const fn get(&self, surcharge: Surcharge) -> Option<u32> {
        match surcharge {
            Surcharge::Priority => self.priority,
            Surcharge::Fast => self.fast,
            Surcharge::Ultrafast => self.ultrafast,
            Surcharge::Us => self.us,
        }
    }

    const fn slot(&mut self, surcharge: Surcharge) -> &mut Option<u32> {
        match surcharge {
            Surcharge::Priority => &mut self.priority,
            Surcharge::Fast => &mut self.fast,
            Surcharge::Ultrafast => &mut self.ultrafast,
            Surcharge::Us => &mut self.us,
        }
    }

    const fn is_empty(&self) -> bool {
        self.priority.is_none() && self.fast.is_none() && self.ultrafast.is_none() && self.us.is_none()
    }
}

/// For how long a call asks a provider to keep parts of its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptCache {
    /// It does not ask. A provider may still cache by itself, at no more than the rate of input where it says so.
    Unasked,
    /// For minutes.
    Minutes,
    /// For an hour or longer.
    Hour,
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Price {
    /// The rates.
    pub rates: Rates,
    /// The rates of long prompts, where they differ.
    pub long: Option<LongPrompt>,
    /// What dearer ways of serving multiply the rates by.
    pub surcharges: Surcharges,
    /// The longest prompt, in tokens; 0 when it is not known.
    pub context: u64,
    /// The longest answer, in tokens; 0 when it is not known.
    pub max_output: u64,
}

impl Rates {
    /// The larger of each.
    #[must_use]
    pub fn dearest(&self, other: &Self) -> Self {
        Self {
            input: self.input.max(other.input),
            cache_read: self.cache_read.max(other.cache_read),
            cache_write: self.cache_write.max(other.cache_write),
            cache_write_1h: self.cache_write_1h.max(other.cache_write_1h),
            output: self.output.max(other.output),
        }
    }

    fn times(&self, thousandths: u32) -> Self {
        let scaled = |rate: u64| {
            let rate = (u128::from(rate) * u128::from(thousandths)).div_ceil(1_000);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        Self {
            input: scaled(self.input),
            cache_read: scaled(self.cache_read),
            cache_write: scaled(self.cache_write),
            cache_write_1h: scaled(self.cache_write_1h),
            output: scaled(self.output),
        }
    }

    fn prompt(&self, cache: PromptCache) -> u64 {
        match cache {
            PromptCache::Unasked => self.input,
            PromptCache::Minutes => self.input.max(self.cache_write),
            PromptCache::Hour => self.input.max(self.cache_write).max(self.cache_write_1h),
        }
    }
}

fn rounded_up(pico: u128) -> MicroUsd {
    MicroUsd::from_micro(u64::try_from(pico.div_ceil(PICO_IN_MICRO)).unwrap_or(u64::MAX))
}

impl Price {
    /// The rates of a call whose prompt has this many tokens, cached ones included.
    #[must_use]
    pub fn rates_for(&self, prompt: u64) -> &Rates {
        match &self.long {
            Some(long) if prompt > long.above => &long.rates,
            _ => &self.rates,
        }
    }

    /// Rates that no call with a prompt of at most this many tokens exceeds.
    fn bound(&self, prompt: u64) -> Rates {
        self.rates.dearest(self.rates_for(prompt))
    }

    /// What a call costs that used this, rounded up to the next micro-dollar. Saturates. One call at a time: the sum
    /// of several calls may look like a long prompt that none of them had.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        let rates = self.rates_for(usage.prompt());
        let kinds = [
            (usage.input, rates.input),
            (usage.cache_read, rates.cache_read),
            (usage.cache_write, rates.cache_write),
            (usage.cache_write_1h, rates.cache_write_1h),
            (usage.output, rates.output),
        ];
        // Each product is below 2¹²⁸ / 5 as long as rates are within bounds.
        rounded_up(kinds.into_iter().map(|(tokens, rate)| u128::from(tokens) * u128::from(rate)).sum())
    }

    /// The most that a call can cost with a prompt of at most `prompt` tokens and an answer of at most `output`:
    /// nothing read from a cache, and everything written to it when the call asks for that.
    #[must_use]
    pub fn most(&self, prompt: u64, output: u64, cache: PromptCache) -> MicroUsd {
        let rates = self.bound(prompt);
        rounded_up(
            u128::from(prompt) * u128::from(rates.prompt(cache))
                + u128::from(output) * u128::from(rates.output),
        )
    }

    /// The longest answer, in tokens, that `amount` pays for after a prompt of `prompt` tokens; `None` when it does
    /// not even pay for the prompt. With a price of zero for output there is no bound: `u64::MAX`.
    #[must_use]
    pub fn output_within(&self, amount: MicroUsd, prompt: u64, cache: PromptCache) -> Option<u64> {
        let rates = self.bound(prompt);
        let asked = u128::from(prompt) * u128::from(rates.prompt(cache));
        let left = (u128::from(amount.micro()) * PICO_IN_MICRO).checked_sub(asked)?;
        let tokens = left.checked_div(u128::from(rates.output)).unwrap_or(u128::from(u64::MAX));
        Some(u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    /// The price of a call that is served in a dearer way. Where the table has no factor for it, the usual one counts.
    #[must_use]
    pub fn with(&self, surcharge: Surcharge) -> Self {
        let factor = self.surcharges.get(surcharge).unwrap_or(surcharge.usual());
        Self {
            rates: self.rates.times(factor),
            long: self.long.map(|long| LongPrompt { rates: long.rates.times(factor), ..long }),
            ..*self
        }
    }

    /// A price that no call under either of the two exceeds.
    #[must_use]
    pub fn dearest(&self, other: &Self) -> Self {
        let highest = |price: &Self| price.long.map_or(price.rates, |long| long.rates.dearest(&price.rates));
        let mut surcharges = self.surcharges;
        for surcharge in Surcharge::ALL {
            let factor = surcharges.get(*surcharge).max(other.surcharges.get(*surcharge));
            *surcharges.slot(*surcharge) = factor;
        }
        Self {
            rates: highest(self).dearest(&highest(other)),
            long: None,
            surcharges,
            context: self.context.max(other.context),
            max_output: self.max_output.max(other.max_output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sonnet() -> Price {
        let rates = Rates {
            input: 3_000_000,
            cache_read: 300_000,
            cache_write: 3_750_000,
            cache_write_1h: 6_000_000,
            output: 15_000_000,
        };
        let long = Rates {
            input: 6_000_000,
            cache_read: 600_000,
            cache_write: 7_500_000,
            cache_write_1h: 12_000_000,
            output: 22_500_000,
        };
        Price {
            rates,
            long: Some(LongPrompt { above: 200_000, rates: long }),
            surcharges: Surcharges::default(),
            context: 1_000_000,
            max_output: 64_000,
        }
    }

    #[test]
    fn a_call_costs_what_a_hand_computes() {
        // 1,000 × $3 + 20,000 × $0.30 + 2,000 × $3.75 + 3,000 × $6 + 500 × $15, for a million each:
        // 0.003 + 0.006 + 0.0075 + 0.018 + 0.0075 = $0.042.
        let usage = Usage {
            input: 1_000,
            cache_read: 20_000,
            cache_write: 2_000,
            cache_write_1h: 3_000,
            output: 500,
            reasoning: 400,
        };
        assert_eq!(sonnet().cost(&usage).micro(), 42_000);
        // The same with an hour's cache priced like five minutes' would be $0.03525: too little.
        assert_ne!(sonnet().cost(&usage).micro(), 35_250);
    }

    #[test]
    fn reasoning_is_not_added_to_the_output() {
        let without = Usage { output: 1_000, ..Usage::default() };
        let with = Usage { reasoning: 900, ..without };
        assert_eq!(sonnet().cost(&with), sonnet().cost(&without));
    }

    #[test]
    fn a_long_prompt_costs_more_from_its_first_token() {
        // 200,000 tokens are not above 200,000: $0.60. One more: all of it doubles, $1.200006.
        let at = Usage { input: 200_000, ..Usage::default() };
        let over = Usage { input: 100_000, cache_read: 100_001, output: 1_000, ..Usage::default() };
        assert_eq!(sonnet().cost(&at).micro(), 600_000);
        assert_eq!(sonnet().cost(&Usage { input: 200_001, ..at }).micro(), 1_200_006);
        // Cached tokens count for the length: 0.6 + 0.0600006 + 0.0225 = 0.6825006, rounded up.
        assert_eq!(sonnet().cost(&over).micro(), 682_501);
    }

    #[test]
    fn a_cost_is_rounded_up_and_never_overflows() {
        let one = Usage { cache_read: 1, ..Usage::default() };
        assert_eq!(sonnet().cost(&one).micro(), 1);
        assert_eq!(sonnet().cost(&Usage::default()), MicroUsd::ZERO);
        let all = Usage { input: u64::MAX, output: u64::MAX, cache_write_1h: u64::MAX, ..Usage::default() };
        let dear = sonnet().with(Surcharge::Fast);
        assert_eq!(dear.cost(&all), MicroUsd::from_micro(u64::MAX));
    }

    #[test]
    fn surcharges_multiply_every_rate() {
        let mut price = sonnet();
        price.surcharges.us = Some(1_100);
        let usage = Usage { input: 1_000_000, output: 1_000_000, ..Usage::default() };
        // Long: $6 + $22.50 = $28.50; a tenth more: $31.35; with the usual 2.5 of priority on top: $78.375.
        assert_eq!(price.with(Surcharge::Us).cost(&usage).micro(), 31_350_000);
        assert_eq!(price.with(Surcharge::Us).with(Surcharge::Priority).cost(&usage).micro(), 78_375_000);
    }

    #[test]
    fn the_most_bounds_the_cost_and_the_output_that_money_buys() {
        let price = sonnet();
        assert_eq!(price.most(10_000, 1_000, PromptCache::Unasked).micro(), 45_000);
        assert_eq!(price.most(10_000, 1_000, PromptCache::Minutes).micro(), 52_500);
        assert_eq!(price.most(10_000, 1_000, PromptCache::Hour).micro(), 75_000);
        let amount = MicroUsd::from_micro(45_000);
        assert_eq!(price.output_within(amount, 10_000, PromptCache::Unasked), Some(1_000));
        assert_eq!(price.output_within(amount, 15_001, PromptCache::Unasked), None);
        let free = Price { rates: Rates { output: 0, ..price.rates }, ..price };
        assert_eq!(free.output_within(amount, 10_000, PromptCache::Unasked), Some(u64::MAX));
    }

    mod bounds {
        use super::*;
        use proptest::prelude::*;

        prop_compose! {
            fn usages()(input in 0u64..2_000_000, read in 0u64..2_000_000, write in 0u64..100_000,
                        hour in 0u64..100_000, output in 0u64..200_000) -> Usage {
                Usage { input, cache_read: read, cache_write: write, cache_write_1h: hour, output, reasoning: output / 2 }
            }
        }

        proptest! {
            #[test]
            fn what_was_reserved_covers_what_a_call_within_it_costs(usage in usages()) {
                let most = sonnet().most(usage.prompt(), usage.output, PromptCache::Hour);
                prop_assert!(sonnet().cost(&usage) <= most);
            }

            #[test]
            fn the_dearest_price_bounds_both(usage in usages(), input in 0u64..9_000_000, output in 0u64..90_000_000) {
                let mut other = sonnet();
                other.long = None;
                other.rates = Rates { input, output, cache_read: input, cache_write: input, cache_write_1h: input };
                let dearest = sonnet().dearest(&other);
                prop_assert!(dearest.cost(&usage) >= sonnet().cost(&usage));
                prop_assert!(dearest.cost(&usage) >= other.cost(&usage));
            }
        }
    }
}
