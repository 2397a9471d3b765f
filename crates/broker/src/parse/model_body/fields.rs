//! The fields of a JSON object, read strictly and written again.

use super::BodyProblem;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The fields of a JSON object, in order, each with its value as written.
#[derive(Debug, Clone)]
pub(in crate::parse) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let value: &'de RawValue = map.next_value()?;
            fields.push((Cow::Owned(key), Cow::Borrowed(value.get())));
        }
        Ok(Fields(fields))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> Fields<'a> {
    pub(in crate::parse) fn read(text: &'a str) -> Result<Self, BodyProblem> {
        let fields: Self = serde_json::from_str(text).map_err(|_| BodyProblem::Form)?;
        let mut seen = BTreeSet::new();
        for (name, _) in &fields.0 {
            // Letters beyond ASCII fold onto ASCII in some servers.
            if !name.is_ascii() || !seen.insert(folded(name).collect::<String>()) {
                return Err(BodyProblem::Twice(name.chars().filter(|c| !c.is_control()).take(60).collect()));
            }
        }
        Ok(fields)
    }

    pub(in crate::parse) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
            .filter(|value| *value != "null")
    }

    /// The value under whichever of two spellings is there.
    pub(super) fn either(&self, camel: &str, snake: &str) -> Option<&str> {
        self.get(camel).or_else(|| self.get(snake))
    }

    pub(in crate::parse) fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((Cow::Owned(name.to_owned()), Cow::Owned(value))),
        }
    }

    pub(in crate::parse) fn write(&self) -> String {
        let size: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let mut text = String::with_capacity(size + 2);
        text.push('{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }

    /// Refuses names that mean the same as one of `names` to some reader, and are none of them.
    pub(in crate::parse) fn exactly(&self, names: &[&str]) -> Result<(), BodyProblem> {
        for (key, _) in &self.0 {
            let meant = || names.iter().find(|name| folded(name).eq(folded(key)));
            if !names.contains(&key.as_ref())
                && let Some(name) = meant()
            {
                return Err(BodyProblem::Twice((*name).to_owned()));
            }
        }
        Ok(())
    }
}

/// A name as servers read it that ignore case and underscores.
fn folded(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase())
}

/// A count, where there is one.
pub(super) fn number(raw: Option<&str>, name: &'static str) -> Result<Option<u64>, BodyProblem> {
    raw.map(|raw| serde_json::from_str::<u64>(raw).map_err(|_| BodyProblem::Field(name))).transpose()
}
