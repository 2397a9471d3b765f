//! Runs of the class `meta`: the control plane is told that something was said and how much, never what.
//!
//! Promises: nothing that a command, an agent, a repository or a set-up wrote reaches the store through here; what stands in
//! its place are kinds, counts, sizes and salted digests. The person who watches sees everything all the same.

use serde_json::{Value, json};
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    ActionDigest, AgentEvent, Approval, ApprovalId, ApprovalRequest, AuditDraft, BoxFuture, ChargeAnswer,
    ChargeRequest, ChargeSettlement, ControlPlane, ControlPlaneError, EventDraft, EventKind, Heartbeat,
    Refusal, RunId, RunNews, SteerId, SteerState,
};
use tipstaff_seal::StreamDigest;

/// Digits of a digest that stand in place of a text.
const DIGITS: usize = 16;
/// Details of records that are words, ids and numbers of ours.
const PLAIN: &[&str] = &[
    "attempt",
    "base",
    "branch",
    "bytes",
    "code",
    "commands",
    "commit",
    "digest",
    "duration_ms",
    "entries",
    "evidence",
    "files_changed",
    "generation",
    "key",
    "made_at",
    "new",
    "objects",
    "old",
    "outer_uid",
    "parent",
    "reason",
    "ref",
    "repository",
    "restored",
    "rule",
    "run",
    "script",
    "state",
    "task",
    "times",
    "to",
    "warrant",
];

/// A control plane that keeps no text.
pub(crate) struct MetaOnly {
    pub(crate) inner: Arc<dyn ControlPlane>,
    /// Salts the digests, so that those of two runs can't be compared.
    pub(crate) run: RunId,
}

impl MetaOnly {
    fn digest(&self, text: &str) -> String {
        let mut digest = StreamDigest::default();
        digest.update(self.run.to_string().as_bytes());
        digest.update(b"\0");
        digest.update(text.as_bytes());
        let hex: String = digest.hex().chars().take(DIGITS).collect();
        format!("digest:{hex}")
    }

    fn refusal_of(&self, refusal: Refusal) -> Refusal {
        Refusal {
            rule: refusal.rule,
            wanted: self.digest(&refusal.wanted),
            why: "not kept (privacy meta)".to_owned(),
        }
    }

    fn record_of(&self, mut draft: AuditDraft) -> AuditDraft {
        for (name, value) in &mut draft.detail {
            if name == "result" {
                *value = if value == "passed" { "passed" } else { "failed" }.to_owned();
            } else if !PLAIN.contains(&name.as_str()) {
                *value = self.digest(value);
            }
        }
        draft
    }
}

/// What is kept of an event.
fn event_of(event: EventDraft) -> Option<EventDraft> {
    let EventDraft { kind, at, body } = event;
    let bytes = sizes(&body);
    let body = match kind {
        EventKind::State => body,
        EventKind::Stdout | EventKind::Stderr => json!({ "bytes": bytes }),
        EventKind::Agent => match serde_json::from_value::<AgentEvent>(body.clone()) {
            // Numbers only.
            Ok(AgentEvent::Usage { .. }) => body,
            _ => json!({ "event": word(&body, "type"), "bytes": bytes }),
        },
        EventKind::Verify | EventKind::Setup => {
            let mut kept = serde_json::Map::new();
            for name in ["code", "duration_ms"] {
                kept.extend(
                    body.get(name)
                        .filter(|value| value.is_number())
                        .map(|value| (name.to_owned(), value.clone())),
                );
            }
            if let Some(report) = body.get("report") {
                kept.insert("report".to_owned(), report.clone());
            }
            if let Some(step) = body.get("step").filter(|step| step.is_number()) {
                kept.insert("step".to_owned(), step.clone());
                kept.insert("command".to_owned(), "(not kept)".into());
            }
            kept.insert("bytes".to_owned(), bytes.into());
            Value::Object(kept)
        }
        EventKind::Files => json!({ "count": body.as_array().map_or(0, Vec::len) }),
        // They are made from what passes here.
        EventKind::Notice | EventKind::Refusal | EventKind::Push | EventKind::Approval | EventKind::Steer => {
            return None;
        }
    };
    Some(EventDraft { kind, at, body })
}

/// A word of ours in a body: it is one of few, and an unknown one is not kept.
fn word(body: &Value, name: &str) -> &'static str {
    const WORDS: &[&str] = &[
        "started",
        "text",
        "thinking",
        "tool_call",
        "tool_result",
        "file_change",
        "usage",
        "question",
        "error",
        "finished",
        "raw",
    ];
    let found = body.get(name).and_then(Value::as_str).unwrap_or_default();
    WORDS.iter().copied().find(|word| *word == found).unwrap_or("other")
}

/// Bytes of all texts in a body.
fn sizes(body: &Value) -> u64 {
    match body {
        Value::String(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
        Value::Array(items) => items.iter().map(sizes).fold(0, u64::saturating_add),
        Value::Object(fields) => fields.values().map(sizes).fold(0, u64::saturating_add),
        _ => 0,
    }
}

impl ControlPlane for MetaOnly {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        self.inner.heartbeat()
    }

    fn record(&self, draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.record(self.record_of(draft))
    }

    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.refusal(self.refusal_of(refusal))
    }

    fn refusal_counts(&self, counts: Vec<(Refusal, u64)>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.refusal_counts(
            counts.into_iter().map(|(refusal, times)| (self.refusal_of(refusal), times)).collect(),
        )
    }

    fn events(&self, events: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let kept: Vec<EventDraft> = events.into_iter().filter_map(event_of).collect();
        if kept.is_empty() {
            return Box::pin(async { Ok(()) });
        }
        self.inner.events(kept)
    }

    fn run_update(&self, mut update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        // The reason says what kind of thing it was; the person who watches was told the rest.
        update.error = None;
        self.inner.run_update(update)
    }

    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        self.inner.charge_reserve(request)
    }

    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.charge_settle(settlement)
    }

    // A question is a text, and it would have to be stored to be answered. An error means no.
    fn approval_ask(&self, _request: ApprovalRequest) -> BoxFuture<'_, Result<Approval, ControlPlaneError>> {
        let text =
            "nobody can be asked in a run of the class meta, since questions are not stored".to_owned();
        Box::pin(async move { Err(ControlPlaneError::Rejected(text)) })
    }

    fn approval_use(
        &self,
        id: ApprovalId,
        digest: ActionDigest,
    ) -> BoxFuture<'_, Result<bool, ControlPlaneError>> {
        self.inner.approval_use(id, digest)
    }

    fn approval_withdraw(&self, id: ApprovalId) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.approval_withdraw(id)
    }

    fn news(&self, open: Vec<ApprovalId>) -> BoxFuture<'_, Result<RunNews, ControlPlaneError>> {
        self.inner.news(open)
    }

    fn steer_taken(
        &self,
        id: SteerId,
        state: SteerState,
        _note: Option<String>,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.steer_taken(id, state, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKER: &str = "MARKER";

    fn texts() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(MARKER)), any::<u32>().prop_map(|n| json!(n)), Just(Value::Null)];
        let name = prop_oneof![
            Just("text"),
            Just("type"),
            Just("command"),
            Just("step"),
            Just("code"),
            Just("input"),
            Just("output"),
            Just("title"),
            Just("id"),
            Just("session"),
            Just("path")
        ];
        leaf.prop_recursive(3, 20, 5, move |inner| {
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            })
        })
    }

    proptest! {
        #[test]
        fn no_text_of_any_event_is_kept(body in texts(), kind in 0..9_usize) {
            let kinds = [
                EventKind::Stdout, EventKind::Stderr, EventKind::Agent, EventKind::Verify, EventKind::Setup,
                EventKind::Files, EventKind::Notice, EventKind::Push, EventKind::Refusal,
            ];
            let kept = event_of(EventDraft { kind: kinds[kind], at: 1, body });
            let text = kept.map(|event| event.body.to_string()).unwrap_or_default();
            prop_assert!(!text.contains(MARKER), "{}", text);
        }
    }

    #[test]
    fn what_an_agent_says_becomes_its_size() {
        let events = [
            AgentEvent::Text { text: MARKER.into(), delta: false },
            AgentEvent::ToolCall {
                id: MARKER.into(),
                name: MARKER.into(),
                title: MARKER.into(),
                input: json!({ MARKER: MARKER }),
            },
            AgentEvent::Started { session: Some(MARKER.into()), model: Some(MARKER.into()), version: None },
            AgentEvent::Raw { value: json!({ "text": MARKER }) },
        ];
        for event in events {
            let body = serde_json::to_value(&event).unwrap();
            let kept = event_of(EventDraft { kind: EventKind::Agent, at: 1, body }).unwrap();
            assert!(!kept.body.to_string().contains(MARKER), "{}", kept.body);
            assert!(kept.body["bytes"].as_u64().unwrap() >= 6, "{}", kept.body);
        }
    }
}
