//! Modes of a session: whether an agent asks before it acts is a mode, and its default is often one that does not.

use crate::session::{list, text};
use serde_json::{Value, json};

/// Modes in which the known agents ask, best first: `default` of Claude, Gemini and Qwen, `read-only` of Codex, `build` of
/// `OpenCode`.
const ASKING: &[&str] = &["default", "ask", "manual", "read-only", "readonly", "build", "normal"];
/// Words in the names of modes that don't ask.
const RASH: &[&str] =
    &["yolo", "auto", "bypass", "full", "accept", "dont", "never", "unrestricted", "agent", "write"];
/// Words in the names of modes that do nothing.
const IDLE: &[&str] = &["plan", "architect"];

/// A choice that a session offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// The option's id where it is one of `configOptions`.
    config: Option<String>,
    current: String,
    /// Ids, with the names for people.
    values: Vec<(String, String)>,
}

impl Offer {
    /// The modes of a new session.
    pub(super) fn modes(session: &Value) -> Option<Self> {
        let modes = session.get("modes").and_then(|modes| {
            let values = list(modes, &["availableModes"]).iter().take(64);
            let values: Vec<_> = values.filter_map(|mode| named(mode, "id")).collect();
            let current = text(modes, &["currentModeId"])?.to_owned();
            (!values.is_empty()).then_some(Self { config: None, current, values })
        });
        modes.or_else(|| Self::option(session, "mode"))
    }

    /// Its models.
    pub(super) fn models(session: &Value) -> Option<Self> {
        Self::option(session, "model").or_else(|| {
            let models = session.get("models")?;
            let values = list(models, &["availableModels"]).iter().take(1024);
            let values: Vec<_> = values.filter_map(|model| named(model, "modelId")).collect();
            let current = text(models, &["currentModelId"])?.to_owned();
            Some(Self { config: None, current, values })
        })
    }

    fn option(session: &Value, category: &str) -> Option<Self> {
        let options = list(session, &["configOptions"]).iter().take(64);
        let mut fitting = options.filter(|option| text(option, &["category"]) == Some(category));
        let option = fitting.next()?;
        let mut values = Vec::new();
        for entry in list(option, &["options"]).iter().take(1024) {
            // Options may stand in groups.
            values.extend(named(entry, "value"));
            values.extend(
                list(entry, &["options"]).iter().take(1024).filter_map(|entry| named(entry, "value")),
            );
        }
        Some(Self {
            config: Some(text(option, &["id"])?.to_owned()),
            current: text(option, &["currentValue"])?.to_owned(),
            values,
        })
    }

    /// What is chosen now.
    pub(super) fn current(&self) -> &str {
        &self.current
    }

    /// The mode that asks, where it is another than the current one.
    pub(super) fn asking(&self) -> Wanted {
        let has = |wanted: &str| self.values.iter().find(|(id, _)| id.eq_ignore_ascii_case(wanted));
        let found = ASKING.iter().find_map(|wanted| has(wanted)).map(|(id, _)| id);
        if let Some(id) = found {
            return if *id == self.current { Wanted::Current } else { Wanted::Other(id.clone()) };
        }
        if !is_rash(&self.current) {
            return Wanted::Current;
        }
        let calm = |(id, name): &&(String, String)| {
            !is_rash(id) && !is_rash(name) && !has_word(id, IDLE) && !has_word(name, IDLE)
        };
        self.values.iter().find(calm).map_or(Wanted::None, |(id, _)| Wanted::Other(id.clone()))
    }

    /// The model of this name, where it is another than the current one.
    pub(super) fn model(&self, wanted: &str) -> Wanted {
        let is_it = |value: &str| value == wanted || value.rsplit('/').next() == Some(wanted);
        if is_it(&self.current) {
            return Wanted::Current;
        }
        let found = self.values.iter().find(|(id, name)| is_it(id) || name == wanted);
        match found {
            Some((id, _)) if *id == self.current => Wanted::Current,
            Some((id, _)) => Wanted::Other(id.clone()),
            None => Wanted::None,
        }
    }

    /// The method and the parameters that choose a mode.
    pub(super) fn choosing_mode(&self, session: &str, value: &str) -> (&'static str, Value) {
        self.choosing(session, value, ("session/set_mode", "modeId"))
    }

    /// The method and the parameters that choose a model.
    pub(super) fn choosing_model(&self, session: &str, value: &str) -> (&'static str, Value) {
        self.choosing(session, value, ("session/set_model", "modelId"))
    }

    fn choosing(
        &self,
        session: &str,
        value: &str,
        (method, name): (&'static str, &str),
    ) -> (&'static str, Value) {
        match &self.config {
            Some(config) => (
                "session/set_config_option",
                json!({ "sessionId": session, "configId": config, "value": value }),
            ),
            None => (method, json!({ "sessionId": session, name: value })),
        }
    }
}

/// What is to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What is chosen already.
    Current,
    /// This one.
    Other(String),
    /// Nothing of what is offered.
    None,
}

fn named(entry: &Value, key: &str) -> Option<(String, String)> {
    let id = text(entry, &[key])?;
    Some((id.to_owned(), text(entry, &["name"]).unwrap_or(id).to_owned()))
}

fn has_word(text: &str, words: &[&str]) -> bool {
    let plain: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    words.iter().any(|word| plain.contains(word))
}

/// Whether an agent in a mode of this name acts without asking, as far as the name tells.
pub(super) fn is_rash(mode: &str) -> bool {
    has_word(mode, RASH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(current: &str, ids: &[&str]) -> Wanted {
        let available: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "name": id })).collect();
        let session = json!({ "modes": { "currentModeId": current, "availableModes": available } });
        Offer::modes(&session).unwrap().asking()
    }

    #[test]
    fn the_mode_that_asks_is_found_among_those_of_the_known_agents() {
        let other = |id: &str| Wanted::Other(id.to_owned());
        let gemini = ["default", "autoEdit", "yolo", "plan"];
        assert_eq!(modes("default", &gemini), Wanted::Current);
        assert_eq!(modes("yolo", &gemini), other("default"));
        assert_eq!(modes("auto", &["plan", "default", "auto-edit", "auto", "yolo"]), other("default"));
        let codex = ["read-only", "workspace-write", "agent", "agent-full-access"];
        assert_eq!(modes("agent", &codex), other("read-only"));
        let claude = ["auto", "default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"];
        assert_eq!(modes("bypassPermissions", &claude), other("default"));
        assert_eq!(modes("build", &["build", "plan"]), Wanted::Current);
        // Unknown agents: a name that promises rashness is left, any other is kept.
        assert_eq!(modes("code", &["code", "yolo"]), Wanted::Current);
        assert_eq!(modes("YOLO!", &["YOLO!", "plan", "careful"]), other("careful"));
        assert_eq!(modes("yolo", &["yolo", "plan"]), Wanted::None);
    }

    #[test]
    fn a_model_is_found_by_its_name_with_or_without_a_provider() {
        let session = json!({ "configOptions": [{
            "id": "m", "category": "model", "currentValue": "a/one",
            "options": [{ "value": "a/one", "name": "One" }, { "group": "g", "options": [{ "value": "b/two", "name": "Two" }] }],
        }] });
        let offer = Offer::models(&session).unwrap();
        assert_eq!(offer.model("one"), Wanted::Current);
        assert_eq!(offer.model("two"), Wanted::Other("b/two".to_owned()));
        assert_eq!(offer.model("three"), Wanted::None);
        let (method, params) = offer.choosing_model("s", "b/two");
        assert_eq!((method, &params["configId"]), ("session/set_config_option", &"m".into()));
    }
}
