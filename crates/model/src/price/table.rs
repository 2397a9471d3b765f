//! The price table: which model costs what, from where, and how a model is found in it.
//!
//! A table is a JSON file. The one that comes with the program is generated; an operator may set another one, so the
//! reader takes nothing on trust.

use super::form::{PriceForm, TableForm, clip, date_is_valid, name_is_valid, price};
use super::{LARGEST_RATE, Price, Rates, Surcharges};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The table that comes with the program.
pub const BUILTIN_JSON: &str = include_str!("table.json");
/// The largest table that is read, in bytes.
pub const LARGEST_TABLE: usize = 4 << 20;
/// Models that a table may have.
const MOST_MODELS: usize = 20_000;
/// The longest name in it, in bytes.
pub(super) const LONGEST_NAME: usize = 200;
/// The largest number of tokens in it.
pub(super) const MAX_TOKENS: u64 = 1_000_000_000;
/// What the format calls itself.
const FORMAT: &str = "tipstaff-prices/1";
/// The name that prices every model of a provider which is not listed.
const ANY_MODEL: &str = "*";

/// A price table can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceTableError {
    /// It is too large.
    #[error(
        "the price table has {bytes} bytes, more than {LARGEST_TABLE}: leave out models that nobody uses"
    )]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// It is not JSON of this shape.
    #[error(
        "the price table can't be read: {why}; `tipstaff prices show --json` prints one of the right form"
    )]
    Form {
        /// What is wrong, and where.
        why: String,
    },
    /// It is of the right shape, and says something that can't be.
    #[error("the price table is refused: {why}")]
    Content {
        /// What is wrong.
        why: String,
    },
}

impl PriceTableError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "prices-too-large",
            Self::Form { .. } => "prices-form",
            Self::Content { .. } => "prices-content",
        }
    }
}

/// Where prices come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSource {
    /// The file or the person.
    pub name: String,
    /// The SHA-256 of the source file, in hexadecimal; empty when there is none.
    #[serde(default)]
    pub sha256: String,
    /// Its licence; empty when there is none.
    #[serde(default)]
    pub licence: String,
}

/// What a model costs, and whether the table knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The price.
    pub price: Price,
    /// Whether the table has this model of this provider. If not, the price is the dearest that fits, and costs are
    /// flagged.
    pub known: bool,
    /// What stands in the table, as `provider/model`; `*` where several were weighed.
    pub listed: String,
}

/// Which model costs what. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    version: String,
    date: String,
    source: PriceSource,
    providers: BTreeMap<String, BTreeMap<String, Price>>,
    /// The dearest of each provider, and the dearest of all under the empty name.
    dearest: BTreeMap<String, Price>,
    hash: OnceLock<String>,
}

impl PriceTable {
    pub(super) fn new(
        version: String,
        date: String,
        source: PriceSource,
        providers: BTreeMap<String, BTreeMap<String, Price>>,
    ) -> Self {
        let mut dearest = BTreeMap::new();
        let mut all: Option<Price> = None;
        for (provider, models) in &providers {
            let one = models.values().copied().reduce(|a, b| a.dearest(&b));
            if let Some(one) = one {
                all = Some(all.map_or(one, |all| all.dearest(&one)));
                dearest.insert(provider.clone(), one);
            }
        }
        dearest.extend(all.map(|all| (String::new(), all)));
        Self { inner: Arc::new(Inner { version, date, source, providers, dearest, hash: OnceLock::new() }) }
    }

    /// The table that comes with the program.
    ///
    /// # Errors
    /// Never for the file in the tree: a test reads it.
    pub fn builtin() -> Result<Self, PriceTableError> {
        static TABLE: OnceLock<Result<PriceTable, PriceTableError>> = OnceLock::new();
        TABLE.get_or_init(|| Self::parse(BUILTIN_JSON.as_bytes())).clone()
    }

    /// Reads a table.
    ///
    /// # Errors
    /// When it is too large, not of the form, or says what can't be; the message says where.
    pub fn parse(bytes: &[u8]) -> Result<Self, PriceTableError> {
        if bytes.len() > LARGEST_TABLE {
            return Err(PriceTableError::TooLarge { bytes: bytes.len() });
        }
        let form: TableForm = serde_json::from_slice(bytes)
            .map_err(|error| PriceTableError::Form { why: clip(&error.to_string()) })?;
        let refused = |why: String| Err(PriceTableError::Content { why });
        if form.format != FORMAT {
            let found: String = form.format.chars().filter(|c| !c.is_control()).take(40).collect();
            return refused(format!("it is of the format '{found}', this program reads '{FORMAT}'"));
        }
        if !date_is_valid(&form.date) {
            return refused("its date is not of the form YYYY-MM-DD".to_owned());
        }
        let texts = [&form.version, &form.source.name, &form.source.sha256, &form.source.licence];
        if form.version.is_empty() || texts.iter().any(|t| t.len() > 400 || t.chars().any(char::is_control)) {
            return refused(
                "its version or source is empty, longer than 400 bytes or holds control characters"
                    .to_owned(),
            );
        }
        let mut count = 0;
        let mut providers = BTreeMap::new();
        for (provider, models) in &form.providers.0 {
            if !name_is_valid(provider) || provider.contains('/') {
                return refused(format!("'{}' can't name a provider", provider.escape_debug()));
            }
            let mut known = BTreeMap::new();
            for (model, form) in &models.0 {
                if !name_is_valid(model) {
                    let shown: String = model.chars().take(100).collect();
                    return refused(format!("'{}' of {provider} can't name a model", shown.escape_debug()));
                }
                known.insert(model.clone(), price(provider, model, form)?);
            }
            count += known.len();
            if !known.is_empty() {
                providers.insert(provider.clone(), known);
            }
        }
        if count == 0 || count > MOST_MODELS {
            return refused(format!("it has {count} models; 1 to {MOST_MODELS} can be"));
        }
        Ok(Self::new(form.version, form.date, form.source, providers))
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// The day it is from.
    #[must_use]
    pub fn date(&self) -> &str {
        &self.inner.date
    }

    /// Where its prices come from.
    #[must_use]
    pub fn source(&self) -> &PriceSource {
        &self.inner.source
    }

    /// The SHA-256 of [`PriceTable::to_json`], in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        self.inner.hash.get_or_init(|| {
            Sha256::digest(self.to_json().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }

    /// How many models it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.providers.values().map(BTreeMap::len).sum()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All models by provider and name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &str, &Price)> {
        self.inner.providers.iter().flat_map(|(provider, models)| {
            models.iter().map(move |(model, price)| (provider.as_str(), model.as_str(), price))
        })
    }

    /// The table as a file: one model a line, in order, so that two versions compare well. Reads back to the same
    /// table.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\n");
        out.push_str(&format!(" \"format\": {},\n", text(FORMAT)));
        out.push_str(&format!(" \"version\": {},\n", text(self.version())));
        out.push_str(&format!(" \"date\": {},\n", text(self.date())));
        out.push_str(&format!(" \"source\": {},\n", text(self.source())));
        out.push_str(" \"unit\": \"pico-dollars a token\",\n \"providers\": {\n");
        let mut providers = self.inner.providers.iter().peekable();
        while let Some((provider, models)) = providers.next() {
            out.push_str(&format!("  {}: {{\n", text(provider)));
            let mut models = models.iter().peekable();
            while let Some((model, price)) = models.next() {
                let comma = if models.peek().is_some() { "," } else { "" };
                let form = PriceForm::from(price);
                out.push_str(&format!("   {}: {}{comma}\n", text(model), text(&form)));
            }
            out.push_str(if providers.peek().is_some() { "  },\n" } else { "  }\n" });
        }
        out.push_str(" }\n}\n");
        out
    }

    /// What a model of a provider costs. Always answers:
    ///
    /// 1. the provider's model of this name; without a `models/` or `PROVIDER/` before it; without a date or version
    ///    after it (`-20250929`, `-2026-04-23`, `-latest`, `-001`); the provider's entry `*`: **known**;
    /// 2. of another upstream than the table lists: the dearest listing of a model of this name, whoever's it is;
    /// 3. the dearest known price of the provider, or of all providers for one that the table doesn't list.
    ///
    /// A name can't borrow another provider's price: `openai` asked for `anthropic/claude…` is not known.
    #[must_use]
    pub fn quote(&self, provider: &str, model: &str) -> Quote {
        let names = candidates(provider, model);
        if let Some(models) = self.inner.providers.get(provider) {
            let found = names
                .iter()
                .map(String::as_str)
                .chain([ANY_MODEL])
                .find_map(|name| Some((name, models.get(name)?)));
            if let Some((name, price)) = found {
                return Quote { price: *price, known: true, listed: format!("{provider}/{name}") };
            }
            if let Some(price) = self.inner.dearest.get(provider) {
                return Quote { price: *price, known: false, listed: format!("{provider}/*") };
            }
        }
        for name in &names {
            let listings = self.inner.providers.iter().filter_map(|(listed, models)| {
                let rest = name.strip_prefix(listed.as_str()).and_then(|rest| rest.strip_prefix('/'));
                models.get(name.as_str()).or_else(|| models.get(rest?)).copied()
            });
            if let Some(price) = listings.reduce(|a, b| if a == b { a } else { a.dearest(&b) }) {
                return Quote { price, known: false, listed: format!("*/{name}") };
            }
        }
        // A table has at least one model, so there is a dearest one.
        let price = self.inner.dearest.get("").copied().unwrap_or(WITHOUT_TABLE);
        Quote { price, known: false, listed: "*/*".to_owned() }
    }
}

/// Nothing is cheaper than what can't be priced.
const WITHOUT_TABLE: Price = Price {
    rates: Rates {
        input: LARGEST_RATE,
        cache_read: LARGEST_RATE,
        cache_write: LARGEST_RATE,
        cache_write_1h: LARGEST_RATE,
        output: LARGEST_RATE,
    },
    long: None,
    surcharges: Surcharges { priority: None, fast: None, ultrafast: None, us: None },
    context: 0,
    max_output: 0,
};

/// The names under which a model may stand, the closest first.
fn candidates(provider: &str, model: &str) -> Vec<String> {
    let mut names = vec![model.to_owned()];
    let bare = model.strip_prefix("models/").unwrap_or(model);
    let bare = bare.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).unwrap_or(bare);
    for name in [bare, undated(bare)] {
        if names.last().is_none_or(|last| last != name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// A name without the date, the version or the `latest` at its end.
fn undated(name: &str) -> &str {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = name.strip_suffix("-latest") {
        return rest;
    }
    let Some((rest, last)) = name.rsplit_once(['-', '@']) else { return name };
    if digits(last, 8) || digits(last, 3) {
        return rest;
    }
    // -YYYY-MM-DD
    let dated = rest.rsplit_once('-').and_then(|(before, month)| {
        let (before, year) = before.rsplit_once('-')?;
        (digits(last, 2) && digits(month, 2) && digits(year, 4)).then_some(before)
    });
    dated.unwrap_or(name)
}

/// Writes a value whose serialization can't fail.
fn text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Serialize for PriceTable {
    /// As the file, except for the line breaks.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value =
            serde_json::from_str(&self.to_json()).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn small() -> serde_json::Value {
        json!({
            "format": FORMAT, "version": "mine", "date": "2026-11-12", "source": { "name": "me" },
            "providers": {
                "anthropic": {
                    "claude-big": { "rates": { "input": 10_000_000, "output": 50_000_000 } },
                    "claude-old": {
                        "rates": { "input": 5_000_000, "output": 25_000_000, "cache_read": 500_000, "cache_write": 6_250_000 },
                        "above": { "prompt_tokens": 100, "rates": { "input": 20_000_000, "output": 40_000_000 } },
                    },
                },
                "openai": { "gpt-5.5": { "rates": { "input": 5_000_000, "output": 30_000_000 } } },
                "local": { "*": { "rates": { "input": 0, "output": 0 } } },
            },
        })
    }

    fn parse(value: &serde_json::Value) -> Result<PriceTable, PriceTableError> {
        PriceTable::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_builtin_table_reads_and_is_as_its_writer_would_write_it() {
        let table = PriceTable::builtin().unwrap();
        assert_eq!(table.to_json(), BUILTIN_JSON);
        assert_eq!(table.version(), "litellm-1.109.1");
        assert_eq!(table.source().sha256, "8f8060d8ce7a40c91b995c74d6a27657543d49e3c1c53430dabd556f244392c6");
        assert!((250..400).contains(&table.len()), "{}", table.len());
        for (provider, model) in [
            ("anthropic", "claude-sonnet-4-5"),
            ("anthropic", "claude-haiku-4-5-20251001"),
            ("openai", "gpt-5.5"),
            ("openai", "gpt-5.1-codex"),
            ("gemini", "gemini-2.5-pro"),
            ("gemini", "models/gemini-2.5-flash"),
        ] {
            assert!(table.quote(provider, model).known, "{provider}/{model}");
        }
        let sonnet = table.quote("anthropic", "claude-sonnet-4-5").price;
        assert_eq!((sonnet.rates.cache_write, sonnet.rates.cache_write_1h), (3_750_000, 6_000_000));
        let gpt = table.quote("openai", "gpt-5.5").price;
        assert_eq!(gpt.long.map(|long| (long.above, long.rates.input)), Some((272_000, 10_000_000)));
    }

    #[test]
    fn a_table_reads_back_to_itself() {
        let table = parse(&small()).unwrap();
        let again = PriceTable::parse(table.to_json().as_bytes()).unwrap();
        assert_eq!(again.to_json(), table.to_json());
        assert_eq!(again.sha256(), table.sha256());
    }

    #[test]
    fn a_model_is_found_under_its_names() {
        let table = parse(&small()).unwrap();
        for name in [
            "gpt-5.5",
            "openai/gpt-5.5",
            "gpt-5.5-2026-04-23",
            "gpt-5.5-20260423",
            "models/gpt-5.5",
            "gpt-5.5-latest",
            "gpt-5.5-001",
            "gpt-5.5@20260423",
        ] {
            let quote = table.quote("openai", name);
            assert!(quote.known && quote.listed == "openai/gpt-5.5", "{name}: {}", quote.listed);
        }
        let local = table.quote("local", "qwen-9");
        assert!(local.known && local.price.rates.output == 0);
    }

    #[test]
    fn what_is_not_known_costs_the_dearest_that_fits() {
        let table = parse(&small()).unwrap();
        let unknown = table.quote("anthropic", "claude-new");
        assert!(!unknown.known);
        // The dearest of each kind: long prompts' input of one, the output of the other.
        assert_eq!((unknown.price.rates.input, unknown.price.rates.output), (20_000_000, 50_000_000));
        // A name can't borrow another provider's price.
        let borrowed = table.quote("anthropic", "openai/gpt-5.5");
        assert_eq!((borrowed.known, borrowed.price), (false, unknown.price));
        let borrowed = table.quote("anthropic", "local/anything");
        assert_eq!((borrowed.known, borrowed.price), (false, unknown.price));
        // Another upstream: by the model's name first, else the dearest of all.
        for name in ["gpt-5.5", "openai/gpt-5.5", "gpt-5.5-2026-04-23"] {
            let other = table.quote("router", name);
            assert_eq!((other.known, other.price.rates.input), (false, 5_000_000), "{name}");
        }
        let other = table.quote("router", "something");
        assert_eq!(
            (other.known, other.price.rates.input, other.price.rates.output),
            (false, 20_000_000, 50_000_000)
        );
        assert!(!table.quote("router", "*").known || table.quote("router", "*").price.rates.output > 0);
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let mut said = Vec::new();
        let mut refuse = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = small();
            change(&mut value);
            said.push(parse(&value).unwrap_err().to_string());
        };
        refuse(&|v| v["format"] = json!("other/9"));
        refuse(&|v| v["date"] = json!("yesterday"));
        refuse(&|v| v["version"] = json!("a\u{1b}[2J"));
        refuse(&|v| v["providers"] = json!({}));
        refuse(&|v| v["providers"]["openai"]["gpt-5.5"]["rates"]["input"] = json!(10_000_000_001_u64));
        refuse(&|v| v["providers"]["openai"]["gpt-5.5"]["rates"]["input"] = json!(-1));
        refuse(&|v| v["providers"]["openai"]["gpt-5.5"]["rates"]["input"] = json!(0.000003));
        refuse(&|v| v["providers"]["openai"]["gpt-5.5"]["surcharge"] = json!({ "priority": 0 }));
        refuse(&|v| v["providers"]["openai"]["gpt 5"] = json!({ "rates": { "input": 1, "output": 1 } }));
        refuse(&|v| v["providers"]["a/b"] = json!({}));
        refuse(&|v| v["providers"]["openai"]["gpt-5.5"]["inptu"] = json!(1));
        let twice = small().to_string().replacen("\"openai\":", "\"anthropic\":", 1);
        said.push(PriceTable::parse(twice.as_bytes()).unwrap_err().to_string());
        said.push(PriceTable::parse(&vec![b' '; LARGEST_TABLE + 1]).unwrap_err().to_string());
        insta::assert_debug_snapshot!(said);
    }

    mod hostile {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn no_file_is_read_halfway(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
                let _ = PriceTable::parse(&bytes);
            }

            #[test]
            fn a_damaged_table_is_refused_or_reads_back_to_itself(at in 0usize..2_000, with in any::<u8>()) {
                let mut bytes = small().to_string().into_bytes();
                let at = at % bytes.len();
                bytes[at] = with;
                if let Ok(table) = PriceTable::parse(&bytes) {
                    prop_assert_eq!(PriceTable::parse(table.to_json().as_bytes()).unwrap().to_json(), table.to_json());
                }
            }

            #[test]
            fn every_name_has_a_price(provider in ".{0,20}", model in ".{0,40}") {
                let table = PriceTable::builtin().unwrap();
                let quote = table.quote(&provider, &model);
                prop_assert!(quote.known || quote.price.rates.output > 0);
            }
        }
    }
}
