//! Reads the price file that much of the field shares: `model_prices_and_context_window_backup.json` of the Python
//! package `litellm` (MIT licence), for the providers and the kinds of call that coding agents use.
//!
//! The file writes dollars as decimal fractions for one token. They become whole pico-dollars here, once; nothing
//! computes with a fraction afterwards.

use super::table::{MAX_TOKENS, PriceSource, PriceTable};
use super::{LARGEST_RATE, LARGEST_SURCHARGE, LongPrompt, Price, Rates, Surcharges};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Providers that are taken over, as the file and as we name them.
const PROVIDERS: &[&str] = &[
    "anthropic",
    "openai",
    "gemini",
    "cerebras",
    "deepseek",
    "groq",
    "minimax",
    "mistral",
    "moonshot",
    "xai",
    "zai",
];
/// Tokens above which the file may have other rates, the longest first: a model has one of them.
const THRESHOLDS: &[u64] = &[272, 256, 200, 128, 100];

/// The price file of `litellm` can't be taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceImportError {
    /// Not a JSON object.
    #[error("the file is not a JSON object of models: {0}")]
    Json(String),
    /// A price is no price.
    #[error("the {field} of '{model}' is not a price: {why}")]
    Rate {
        /// The model.
        model: String,
        /// The field.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// Nothing of it is of use.
    #[error("the file names no model of a provider that agents use")]
    Empty,
}

struct Entry<'v> {
    model: &'v str,
    fields: &'v Map<String, Value>,
}

impl Entry<'_> {
    fn number(&self, field: &str) -> Option<f64> {
        self.fields.get(field).and_then(Value::as_f64)
    }

    /// Dollars a token, as pico-dollars.
    fn rate(&self, field: &str) -> Result<Option<u64>, PriceImportError> {
        let Some(dollars) = self.number(field) else { return Ok(None) };
        whole(dollars * 1e12, LARGEST_RATE).map(Some).ok_or_else(|| PriceImportError::Rate {
            model: self.model.chars().take(100).collect(),
            field: field.to_owned(),
            why: format!("{dollars} dollars a token"),
        })
    }

    fn tokens(&self, field: &str) -> u64 {
        self.number(field).and_then(|tokens| whole(tokens, MAX_TOKENS)).unwrap_or(0)
    }

    /// The rates with a suffix, `base` where the file has none.
    fn rates(&self, suffix: &str, base: Option<&Rates>) -> Result<Option<Rates>, PriceImportError> {
        let rate = |field: &str| self.rate(&format!("{field}{suffix}"));
        let input = rate("input_cost_per_token")?.or(base.map(|base| base.input));
        let output = rate("output_cost_per_token")?.or(base.map(|base| base.output));
        let (Some(input), Some(output)) = (input, output) else { return Ok(None) };
        let cache_write = rate("cache_creation_input_token_cost")?
            .unwrap_or(base.map_or(input, |base| base.cache_write.max(input)));
        let hour = rate("cache_creation_input_token_cost_above_1hr")?
            .max(rate("cache_creation_input_token_cost_above_12hr")?)
            .unwrap_or(base.map_or(cache_write, |base| base.cache_write_1h.max(cache_write)));
        let cache_read =
            rate("cache_read_input_token_cost")?.unwrap_or(base.map_or(input, |base| base.cache_read));
        Ok(Some(Rates { input, cache_read, cache_write, cache_write_1h: hour, output }))
    }

    fn price(&self) -> Result<Option<Price>, PriceImportError> {
        let Some(rates) = self.rates("", None)? else { return Ok(None) };
        // A price of nothing is a trial that ended, or a service that counts otherwise: it's not taken for a price.
        if rates.input == 0 || rates.output == 0 {
            return Ok(None);
        }
        let mut long = None;
        for thousands in THRESHOLDS {
            let suffix = format!("_above_{thousands}k_tokens");
            if self.fields.contains_key(&format!("input_cost_per_token{suffix}")) {
                long = self
                    .rates(&suffix, Some(&rates))?
                    .map(|rates| LongPrompt { above: thousands * 1_000, rates });
            }
        }
        let factor = |name: &str| -> Result<Option<u32>, PriceImportError> {
            let input = self.rate(&format!("input_cost_per_token_{name}"))?;
            let output = self.rate(&format!("output_cost_per_token_{name}"))?;
            let ratio = |dear: Option<u64>, usual: u64| dear.map(|dear| (dear * 1_000).div_ceil(usual));
            let factor = ratio(input, rates.input).max(ratio(output, rates.output));
            Ok(factor.map(|factor| u32::try_from(factor).unwrap_or(LARGEST_SURCHARGE).min(LARGEST_SURCHARGE)))
        };
        let special = |name: &str| {
            let factor = self.fields.get("provider_specific_entry")?.get(name)?.as_f64()?;
            let factor = whole(factor * 1e3, u64::from(LARGEST_SURCHARGE))?;
            u32::try_from(factor).ok().filter(|factor| *factor >= 1_000)
        };
        let surcharges = Surcharges {
            priority: factor("priority")?,
            fast: special("fast"),
            ultrafast: factor("ultrafast")?,
            us: special("us"),
        };
        Ok(Some(Price {
            rates,
            long,
            surcharges,
            context: self.tokens("max_input_tokens"),
            max_output: self.tokens("max_output_tokens"),
        }))
    }
}

/// The nearest whole number from 0 to `most`.
fn whole(number: f64, most: u64) -> Option<u64> {
    // Written out, since no conversion of types from a float says when it doesn't fit.
    format!("{:.0}", number.round()).parse().ok().filter(|number| *number <= most)
}

impl PriceTable {
    /// Takes over the price file of `litellm`: chat and responses models of the providers that coding agents use.
    /// `version` names the release, `date` is its day.
    ///
    /// # Errors
    /// When it is not such a file, or holds a price that is none.
    pub fn from_litellm(bytes: &[u8], version: &str, date: &str) -> Result<Self, PriceImportError> {
        let file: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| PriceImportError::Json(error.to_string()))?;
        let mut models: BTreeMap<String, BTreeMap<String, Price>> = BTreeMap::new();
        for (model, fields) in &file {
            let Some(fields) = fields.as_object() else { continue };
            let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
            let provider = text("litellm_provider");
            let useful = PROVIDERS.contains(&provider) && matches!(text("mode"), "chat" | "responses");
            // Fine-tuned models have names of their own, which no list knows.
            if !useful || model.starts_with("ft:") {
                continue;
            }
            let entry = Entry { model, fields };
            let Some(price) = entry.price()? else { continue };
            let name = model.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model);
            let known = models.entry(provider.to_owned()).or_default();
            // A model may be listed with its provider's name and without it: the dearer one counts.
            let price =
                known.get(name).filter(|other| **other != price).map_or(price, |other| other.dearest(&price));
            known.insert(name.to_owned(), price);
        }
        if models.is_empty() {
            return Err(PriceImportError::Empty);
        }
        let source = PriceSource {
            name: "litellm model_prices_and_context_window_backup.json".to_owned(),
            sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            licence: "MIT, Copyright (c) 2023 Berri AI".to_owned(),
        };
        Ok(Self::new(version.to_owned(), date.to_owned(), source, models))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_become_whole_pico_dollars() {
        for (dollars, pico) in [(3e-6, 3_000_000), (1.25e-7, 125_000), (1.5625e-5, 15_625_000), (0.0, 0)] {
            assert_eq!(whole(dollars * 1e12, LARGEST_RATE), Some(pico));
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e30] {
            assert_eq!(whole(bad, LARGEST_RATE), None);
        }
    }

    #[test]
    fn a_file_is_taken_over_with_its_traps() {
        let file = serde_json::json!({
            "sample_spec": { "mode": "one of", "litellm_provider": "one of" },
            "gemini/pro": {
                "litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1.25e-6,
                "output_cost_per_token": 1e-5, "input_cost_per_token_above_200k_tokens": 2.5e-6,
                "output_cost_per_token_above_200k_tokens": 1.5e-5, "cache_read_input_token_cost": 1.25e-7,
                "max_input_tokens": 1_048_576, "max_output_tokens": 65_535, "input_cost_per_token_priority": 2.25e-6,
            },
            "free": { "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0 },
            "words": { "litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 1e-6, "output_cost_per_token": 0.0 },
            "elsewhere": { "litellm_provider": "nowhere", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6 },
        });
        let table = PriceTable::from_litellm(file.to_string().as_bytes(), "test", "2026-01-01").unwrap();
        assert_eq!(table.len(), 1);
        let quote = table.quote("gemini", "pro");
        assert!(quote.known);
        let long = quote.price.long.unwrap();
        assert_eq!((long.above, long.rates.input, long.rates.output), (200_000, 2_500_000, 15_000_000));
        // No rate for writing to a cache: as dear as input; for reading a long prompt: as dear as a short one.
        assert_eq!((long.rates.cache_write, long.rates.cache_read), (2_500_000, 125_000));
        assert_eq!(quote.price.surcharges.priority, Some(1_800));
        let wrong = file.to_string().replace("1.25e-6", "-1");
        let error = PriceTable::from_litellm(wrong.as_bytes(), "test", "2026-01-01").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the input_cost_per_token of 'gemini/pro' is not a price: -1 dollars a token"
        );
    }
}
