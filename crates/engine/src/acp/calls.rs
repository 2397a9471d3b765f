//! What an agent told of its calls of tools: a call comes in pieces, and a question about it names only some of them.

use crate::session::{cut, text};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};

/// Calls that are remembered until they are over.
const CALLS: usize = 256;
/// Longest call that is remembered whole, in bytes of JSON; of a longer one only what is short.
const CALL: usize = 64 * 1024;
/// Longest id and longest name of a tool, in bytes.
const WORD: usize = 256;

/// A call, as far as it was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    /// The fields of the protocol's tool call.
    pub(super) fields: Value,
    /// The tool's name, where there is one: the protocol knows kinds only.
    pub(super) tool: Option<String>,
}

impl Call {
    /// The tool's name, else what kind it is of.
    pub(super) fn tool(&self) -> &str {
        self.tool.as_deref().or_else(|| text(&self.fields, &["kind"])).unwrap_or("other")
    }
}

/// Calls by their ids.
#[derive(Debug, Default)]
pub(super) struct Calls {
    known: BTreeMap<String, Call>,
    order: VecDeque<String>,
}

/// The id of a call.
pub(super) fn call_id(piece: &Value) -> Option<&str> {
    text(piece, &["toolCallId"]).filter(|id| !id.is_empty() && id.len() <= WORD)
}

impl Calls {
    /// Adds a piece to what is known of its call: the call as it is now.
    pub(super) fn learn(&mut self, piece: &Value) -> Call {
        let now = self.with(piece);
        if let Some(id) = call_id(piece) {
            let mut kept = now.clone();
            if let Value::Object(fields) = &mut kept.fields
                && now.fields.to_string().len() > CALL
            {
                fields.retain(|_, value| value.as_str().is_some_and(|text| text.len() <= WORD));
            }
            if self.known.insert(id.to_owned(), kept).is_none() {
                self.order.push_back(id.to_owned());
            }
            while self.known.len() > CALLS {
                let Some(oldest) = self.order.pop_front() else { break };
                self.known.remove(&oldest);
            }
        }
        now
    }

    /// What is known of a call with this piece, which is not remembered.
    pub(super) fn with(&self, piece: &Value) -> Call {
        let known = call_id(piece).and_then(|id| self.known.get(id));
        let mut fields: Map<String, Value> =
            known.and_then(|call| call.fields.as_object()).cloned().unwrap_or_default();
        for (name, value) in piece.as_object().into_iter().flatten() {
            // `null` is as good as absent; an empty list or object says nothing new.
            let is_empty = match value {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(pairs) => pairs.is_empty(),
                _ => false,
            };
            if name != "sessionUpdate" && (!is_empty || !fields.contains_key(name)) {
                fields.insert(name.clone(), value.clone());
            }
        }
        let tool = known.and_then(|call| call.tool.clone()).or_else(|| name(piece));
        Call { fields: Value::Object(fields), tool }
    }

    /// Whether it was told of.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// It is over.
    pub(super) fn forget(&mut self, id: &str) {
        if self.known.remove(id).is_some() {
            self.order.retain(|one| one != id);
        }
    }
}

/// The tool's name: a field of newer agents, a note of some, and the first title of others.
fn name(piece: &Value) -> Option<String> {
    let told = text(piece, &["name"])
        .or_else(|| text(piece, &["_meta", "claudeCode", "toolName"]))
        .or_else(|| text(piece, &["_meta", "toolName"]));
    let word = |title: &&str| {
        !title.is_empty()
            && title.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b))
    };
    let title = || text(piece, &["title"]).filter(word);
    told.or_else(title).filter(|name| !name.is_empty()).map(|name| cut(name, WORD))
}
