//! Which models may be asked at all: by the operator, by an org, by a project.
//!
//! Promises: a layer only takes away from the layers above it; what is permitted for a pattern is permitted for every
//! model that the pattern matches.

use crate::warrant::{ModelPattern, PatternError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Models of one provider or of all: `anthropic/claude-*`, `openai/*`, `claude-*` at whoever offers it, `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfferPattern {
    provider: Option<String>,
    models: ModelPattern,
}

/// Whether this can be a provider's name: 1 to 40 lower-case letters, digits, `-` and `_`.
#[must_use]
pub fn provider_name_is_valid(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=40).contains(&name.len()) && name.bytes().all(plain)
}

impl OfferPattern {
    /// The provider; `None` for any.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// Its models.
    #[must_use]
    pub const fn models(&self) -> &ModelPattern {
        &self.models
    }

    fn is_about(&self, provider: &str) -> bool {
        self.provider.as_deref().is_none_or(|own| own == provider)
    }

    /// Whether it means this model.
    #[must_use]
    pub fn matches(&self, provider: &str, model: &str) -> bool {
        self.is_about(provider) && self.models.matches(model)
    }

    /// Whether it means every model that `models` of `provider` means.
    #[must_use]
    pub fn covers(&self, provider: &str, models: &ModelPattern) -> bool {
        self.is_about(provider) && self.models.covers(models)
    }

    /// Whether it means any model that `models` of `provider` means.
    #[must_use]
    pub fn touches(&self, provider: &str, models: &ModelPattern) -> bool {
        self.is_about(provider) && (self.models.covers(models) || models.covers(&self.models))
    }

    /// How closely it looks: of two patterns that match, the one with the larger value is meant.
    #[must_use]
    pub fn closeness(&self) -> (bool, bool, usize) {
        let text = self.models.to_string();
        (self.provider.is_some(), !text.ends_with('*'), text.len())
    }
}

impl FromStr for OfferPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (provider, models) = match text.split_once('/') {
            None | Some(("*", _)) => (None, text.strip_prefix("*/").unwrap_or(text)),
            Some((provider, models)) if provider_name_is_valid(provider) => {
                (Some(provider.to_owned()), models)
            }
            Some(_) => {
                return Err(PatternError::Model(
                    text.chars().filter(|c| !c.is_control()).take(100).collect(),
                ));
            }
        };
        Ok(Self { provider, models: models.parse()? })
    }
}

impl fmt::Display for OfferPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Some(provider) => write!(f, "{provider}/{}", self.models),
            None if self.models.to_string().contains('/') => write!(f, "*/{}", self.models),
            None => self.models.fmt(f),
        }
    }
}

impl Serialize for OfferPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OfferPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a rule about models says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelEffect {
    /// These may be asked. As soon as a layer allows some, it allows no others.
    Allow,
    /// These may not, whatever is allowed.
    Deny,
}

impl ModelEffect {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl FromStr for ModelEffect {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|effect| effect.as_str() == text)
            .ok_or_else(|| "write allow or deny".to_owned())
    }
}

/// The rules of one: the operator, an org, a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLayer {
    /// Whose they are, as a person is told: `config.toml`, `your org`.
    pub owner: String,
    /// The rules, in any order.
    pub rules: Vec<(OfferPattern, ModelEffect)>,
}

/// Why a model may not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelDenied {
    /// A layer denies it.
    #[error("{owner} denies {pattern}")]
    Denied {
        /// Whose rule it is.
        owner: String,
        /// The rule.
        pattern: OfferPattern,
    },
    /// A layer allows others.
    #[error("{owner} allows only {}", list(.allowed))]
    NotAllowed {
        /// Whose rules they are.
        owner: String,
        /// What is allowed.
        allowed: Vec<OfferPattern>,
    },
}

fn list(patterns: &[OfferPattern]) -> String {
    const MOST: usize = 8;
    let mut text: Vec<String> = patterns.iter().take(MOST).map(ToString::to_string).collect();
    if patterns.len() > MOST {
        text.push(format!("and {} more", patterns.len() - MOST));
    }
    text.join(", ")
}

/// All layers that bind somebody, the widest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedModels(pub Vec<ModelLayer>);

impl AllowedModels {
    /// Whether every model that `models` of `provider` means may be asked: every layer must let it.
    ///
    /// # Errors
    /// The first layer that doesn't.
    pub fn permits(&self, provider: &str, models: &ModelPattern) -> Result<(), ModelDenied> {
        for layer in &self.0 {
            let of = |wanted: ModelEffect| layer.rules.iter().filter(move |(_, effect)| *effect == wanted);
            if let Some((pattern, _)) =
                of(ModelEffect::Deny).find(|(pattern, _)| pattern.touches(provider, models))
            {
                return Err(ModelDenied::Denied { owner: layer.owner.clone(), pattern: pattern.clone() });
            }
            let mut allowed = of(ModelEffect::Allow).peekable();
            let has_allowed = allowed.peek().is_some();
            if has_allowed && !allowed.any(|(pattern, _)| pattern.covers(provider, models)) {
                let allowed = of(ModelEffect::Allow).map(|(pattern, _)| pattern.clone()).collect();
                return Err(ModelDenied::NotAllowed { owner: layer.owner.clone(), allowed });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> OfferPattern {
        text.parse().unwrap()
    }

    fn layer(owner: &str, allow: &[&str], deny: &[&str]) -> ModelLayer {
        let allow = allow.iter().map(|text| (pattern(text), ModelEffect::Allow));
        let deny = deny.iter().map(|text| (pattern(text), ModelEffect::Deny));
        ModelLayer { owner: owner.to_owned(), rules: allow.chain(deny).collect() }
    }

    fn says(layers: &[ModelLayer], provider: &str, model: &str) -> String {
        AllowedModels(layers.to_vec())
            .permits(provider, &model.parse().unwrap())
            .map_or_else(|denied| denied.to_string(), |()| "yes".to_owned())
    }

    #[test]
    fn each_layer_takes_away_and_says_so() {
        let operator = layer("config.toml", &["anthropic/*", "gpt-5*"], &[]);
        let org = layer("your org", &[], &["*/claude-opus*"]);
        let project = layer("the project site", &["*"], &[]);
        let layers = [operator, org, project];
        assert_eq!(says(&layers, "anthropic", "claude-sonnet-5"), "yes");
        assert_eq!(says(&layers, "azure", "gpt-5.5"), "yes");
        assert_eq!(says(&layers, "anthropic", "claude-opus-4"), "your org denies claude-opus*");
        assert_eq!(says(&layers, "openai", "o3"), "config.toml allows only anthropic/*, gpt-5*");
        // A grant of many is only as good as the worst of them.
        assert_eq!(says(&layers, "anthropic", "claude-*"), "your org denies claude-opus*");
        assert_eq!(says(&layers, "openai", "gpt-*"), "config.toml allows only anthropic/*, gpt-5*");
        assert_eq!(says(&[], "anybody", "anything"), "yes");
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in ["*", "claude-*", "anthropic/claude-*", "openrouter/a/b-1", "*/a/b*", "x/*"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        for bad in ["", "/", "A/b", "a b", "a/", "anthropic/cl*ude", "a/b\n"] {
            assert!(bad.parse::<OfferPattern>().is_err(), "{bad:?}");
        }
        let mut all = ["*", "claude-*", "a/*", "a/claude-*", "a/claude-1"].map(pattern);
        all.sort_by_key(OfferPattern::closeness);
        assert_eq!(all.map(|one| one.to_string()), ["*", "claude-*", "a/*", "a/claude-*", "a/claude-1"]);
    }

    fn any_pattern() -> impl Strategy<Value = OfferPattern> {
        ("((a|b|\\*)/)?[ab]{0,2}\\*?").prop_filter_map("no pattern", |text| text.parse().ok())
    }

    proptest! {
        #[test]
        fn a_further_layer_never_widens_and_a_pattern_stands_for_all_it_means(
            rules in prop::collection::vec(prop::collection::vec((any_pattern(), any::<bool>()), 0..4), 0..3),
            provider in "[ab]", models in "[ab]{1,2}\\*?", model in "[ab]{1,3}",
        ) {
            let layers: Vec<ModelLayer> = rules.into_iter().map(|rules| ModelLayer {
                owner: String::new(),
                rules: rules.into_iter().map(|(pattern, allow)| (pattern, if allow { ModelEffect::Allow } else { ModelEffect::Deny })).collect(),
            }).collect();
            let models: ModelPattern = models.parse().unwrap();
            let exactly: ModelPattern = model.parse().unwrap();
            let all = AllowedModels(layers.clone());
            if all.permits(&provider, &models).is_ok() && models.matches(&model) {
                prop_assert!(all.permits(&provider, &exactly).is_ok());
            }
            if all.permits(&provider, &exactly).is_ok() {
                for count in 0..layers.len() {
                    let fewer = AllowedModels(layers.iter().take(count).cloned().collect());
                    prop_assert!(fewer.permits(&provider, &exactly).is_ok());
                }
            }
        }
    }
}
