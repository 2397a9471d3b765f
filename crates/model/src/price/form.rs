//! The form of a price table's file, and what is refused of it.

use super::table::{LONGEST_NAME, MAX_TOKENS, PriceSource, PriceTableError};
use super::{LARGEST_RATE, LARGEST_SURCHARGE, LongPrompt, Price, Rates, Surcharge, Surcharges};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A map that refuses a key that stands in it twice.
pub(super) struct Once<V>(pub(super) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Once<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Once<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once<V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value()?;
                    let shown: String = key.chars().filter(|c| !c.is_control()).take(100).collect();
                    if entries.insert(key, value).is_some() {
                        return Err(serde::de::Error::custom(format!("'{shown}' stands in it twice")));
                    }
                }
                Ok(Once(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RatesForm {
    input: u64,
    output: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_read: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_write: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_write_1h: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LongForm {
    prompt_tokens: u64,
    rates: RatesForm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceForm {
    rates: RatesForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<LongForm>,
    #[serde(default, skip_serializing_if = "Surcharges::is_empty")]
    surcharge: Surcharges,
    #[serde(default)]
    context: u64,
    #[serde(default)]
    max_output: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableForm {
    pub(super) format: String,
    pub(super) version: String,
    pub(super) date: String,
    pub(super) source: PriceSource,
    #[serde(rename = "unit")]
    pub(super) _unit: Option<String>,
    pub(super) providers: Once<Once<PriceForm>>,
}

impl RatesForm {
    /// What a source doesn't price apart costs what comes next above it.
    pub(super) fn rates(&self) -> Rates {
        let cache_write = self.cache_write.unwrap_or(self.input);
        Rates {
            input: self.input,
            cache_read: self.cache_read.unwrap_or(self.input),
            cache_write,
            cache_write_1h: self.cache_write_1h.unwrap_or(cache_write),
            output: self.output,
        }
    }

    pub(super) fn of(rates: &Rates) -> Self {
        let unless = |rate: u64, usual: u64| Some(rate).filter(|rate| *rate != usual);
        Self {
            input: rates.input,
            output: rates.output,
            cache_read: unless(rates.cache_read, rates.input),
            cache_write: unless(rates.cache_write, rates.input),
            cache_write_1h: unless(rates.cache_write_1h, rates.cache_write),
        }
    }
}

impl From<&Price> for PriceForm {
    fn from(price: &Price) -> Self {
        Self {
            rates: RatesForm::of(&price.rates),
            above: price
                .long
                .as_ref()
                .map(|long| LongForm { prompt_tokens: long.above, rates: RatesForm::of(&long.rates) }),
            surcharge: price.surcharges,
            context: price.context,
            max_output: price.max_output,
        }
    }
}

/// What a reader said of a hostile file, fit for a terminal.
pub(super) fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

pub(super) fn name_is_valid(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(|c| c.is_ascii_graphic())
}

pub(super) fn price(provider: &str, model: &str, form: &PriceForm) -> Result<Price, PriceTableError> {
    let wrong = |why: String| PriceTableError::Content { why: format!("{provider}/{model} {why}") };
    let check = |rates: Rates| {
        let all = [rates.input, rates.cache_read, rates.cache_write, rates.cache_write_1h, rates.output];
        match all.into_iter().find(|rate| *rate > LARGEST_RATE) {
            Some(rate) => {
                Err(wrong(format!("has a rate of {rate} pico-dollars a token, more than {LARGEST_RATE}")))
            }
            None => Ok(rates),
        }
    };
    let long = match &form.above {
        Some(long) if long.prompt_tokens == 0 || long.prompt_tokens > MAX_TOKENS => {
            return Err(wrong(format!(
                "has other rates above {} tokens: write 1 to {MAX_TOKENS}",
                long.prompt_tokens
            )));
        }
        Some(long) => Some(LongPrompt { above: long.prompt_tokens, rates: check(long.rates.rates())? }),
        None => None,
    };
    for surcharge in Surcharge::ALL {
        let factor = form.surcharge.get(*surcharge);
        if factor.is_some_and(|factor| !(1..=LARGEST_SURCHARGE).contains(&factor)) {
            let why = format!(
                "has a surcharge '{}' outside 1 to {LARGEST_SURCHARGE} thousandths",
                surcharge.as_str()
            );
            return Err(wrong(why));
        }
    }
    if form.context.max(form.max_output) > MAX_TOKENS {
        return Err(wrong(format!("has a context or output above {MAX_TOKENS} tokens")));
    }
    Ok(Price {
        rates: check(form.rates.rates())?,
        long,
        surcharges: form.surcharge,
        context: form.context,
        max_output: form.max_output,
    })
}

/// A day as `YYYY-MM-DD`.
pub(super) fn date_is_valid(date: &str) -> bool {
    let parts: Vec<&str> = date.split('-').collect();
    let number = |part: &str, digits: usize, most: u32| {
        part.len() == digits
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|n| (1..=most).contains(&n))
    };
    matches!(parts.as_slice(), [y, m, d] if number(y, 4, 9999) && number(m, 2, 12) && number(d, 2, 31))
}
