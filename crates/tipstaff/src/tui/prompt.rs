//! A line that a person types into.

use crate::tui::text::{tame, tame_line};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tipstaff_model::ApprovalId;
use tipstaff_model::warrant::PathPattern;

/// Characters that a line holds.
const LONGEST: usize = 8_000;

/// What a line is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Allow(ApprovalId),
    Deny(ApprovalId),
    Paths(ApprovalId),
    Message,
    Cancel,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Yes, once, and why.
    Allow(ApprovalId, String),
    /// No, and why.
    Deny(ApprovalId, Option<String>),
    /// Yes, for these paths.
    Paths(ApprovalId, Vec<PathPattern>),
    /// A message for the agent.
    Message(String),
    /// The run is to end.
    Cancel,
    /// It is not.
    No,
    /// It can't be used; why.
    Wrong(String),
}

/// A line being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    purpose: Purpose,
    text: Vec<char>,
    cursor: usize,
}

impl Prompt {
    const fn new(purpose: Purpose) -> Self {
        Self { purpose, text: Vec::new(), cursor: 0 }
    }

    /// Why a critical action is allowed.
    pub(crate) const fn allow(id: ApprovalId) -> Self {
        Self::new(Purpose::Allow(id))
    }

    /// Why a question is answered with no.
    pub(crate) const fn deny(id: ApprovalId) -> Self {
        Self::new(Purpose::Deny(id))
    }

    /// For which paths a question is answered with yes.
    pub(crate) fn paths(id: ApprovalId, proposed: &[String]) -> Self {
        let mut prompt = Self::new(Purpose::Paths(id));
        prompt.insert(&proposed.join(" "));
        prompt
    }

    /// What the agent is told.
    pub(crate) const fn message() -> Self {
        Self::new(Purpose::Message)
    }

    /// Whether the run is to end.
    pub(crate) const fn cancel() -> Self {
        Self::new(Purpose::Cancel)
    }

    /// The question that it is about.
    pub(crate) const fn about(&self) -> Option<ApprovalId> {
        match self.purpose {
            Purpose::Allow(id) | Purpose::Deny(id) | Purpose::Paths(id) => Some(id),
            Purpose::Message | Purpose::Cancel => None,
        }
    }

    /// What is asked of the person.
    pub(crate) const fn title(&self) -> &'static str {
        match self.purpose {
            Purpose::Allow(_) => "it can't be taken back; yes, because: ",
            Purpose::Deny(_) => "no, because (may be empty): ",
            Purpose::Paths(_) => "allow changes to these paths for this run: ",
            Purpose::Message => "tell the agent: ",
            Purpose::Cancel => "end the run and keep its work? y/n ",
        }
    }

    /// The keys that it takes.
    pub(crate) const fn keys(&self) -> &'static str {
        match self.purpose {
            Purpose::Cancel => "y ends it   n or Esc goes on",
            Purpose::Paths(_) => "Enter allows   Esc goes back   * within a folder, ** in all below",
            _ => "Enter sends   Esc goes back",
        }
    }

    /// What was typed, before the cursor and from it on.
    pub(crate) fn parts(&self) -> (String, String) {
        let (before, after) = self.text.split_at(self.cursor.min(self.text.len()));
        (tame_line(&before.iter().collect::<String>()), tame_line(&after.iter().collect::<String>()))
    }

    /// Adds text at the cursor.
    pub(crate) fn insert(&mut self, text: &str) {
        if self.purpose == Purpose::Cancel {
            return;
        }
        let text = tame(&text.replace("\r\n", "\n").replace('\r', "\n"));
        for c in text.chars() {
            if self.text.len() >= LONGEST {
                return;
            }
            // A message may have lines; a reason and a pattern are one.
            let c = if c == '\n' && self.purpose != Purpose::Message { ' ' } else { c };
            self.text.insert(self.cursor.min(self.text.len()), c);
            self.cursor += 1;
        }
    }

    /// Takes a key; what was typed, once it is done.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Option<Asked> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if self.purpose == Purpose::Cancel {
            return match key.code {
                KeyCode::Char('y' | 'Y') if !control => Some(Asked::Cancel),
                KeyCode::Char('n' | 'N') => Some(Asked::No),
                _ => None,
            };
        }
        match key.code {
            KeyCode::Enter => return Some(self.done()),
            KeyCode::Char('u') if control => {
                self.text.drain(..self.cursor.min(self.text.len()));
                self.cursor = 0;
            }
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.text.len(),
            KeyCode::Char('w') if control => {
                while self.cursor > 0 && self.before() == Some(' ') {
                    self.remove();
                }
                while self.cursor > 0 && self.before() != Some(' ') {
                    self.remove();
                }
            }
            KeyCode::Char(c) if !control && !key.modifiers.contains(KeyModifiers::ALT) => {
                self.insert(c.encode_utf8(&mut [0; 4]));
            }
            KeyCode::Backspace if self.cursor > 0 => self.remove(),
            KeyCode::Delete if self.cursor < self.text.len() => {
                self.text.remove(self.cursor);
            }
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            _ => {}
        }
        None
    }

    fn before(&self) -> Option<char> {
        self.text.get(self.cursor.checked_sub(1)?).copied()
    }

    fn remove(&mut self) {
        self.cursor -= 1;
        self.text.remove(self.cursor);
    }

    fn done(&self) -> Asked {
        let text: String = self.text.iter().collect();
        let text = text.trim();
        match self.purpose {
            Purpose::Deny(id) => Asked::Deny(id, (!text.is_empty()).then(|| text.to_owned())),
            Purpose::Allow(_) if text.is_empty() => {
                Asked::Wrong("a critical action is allowed with a reason".to_owned())
            }
            Purpose::Allow(id) => Asked::Allow(id, text.to_owned()),
            Purpose::Message if text.is_empty() => Asked::Wrong("type a message first".to_owned()),
            Purpose::Message => Asked::Message(text.to_owned()),
            Purpose::Cancel => Asked::No,
            Purpose::Paths(id) => {
                let words: Vec<&str> =
                    text.split([' ', ',']).map(str::trim).filter(|word| !word.is_empty()).collect();
                if words.is_empty() {
                    return Asked::Wrong("type at least one path, such as src/**".to_owned());
                }
                match words.iter().map(|word| word.parse::<PathPattern>()).collect::<Result<Vec<_>, _>>() {
                    Ok(patterns) => Asked::Paths(id, patterns),
                    Err(error) => Asked::Wrong(error.to_string()),
                }
            }
        }
    }
}
