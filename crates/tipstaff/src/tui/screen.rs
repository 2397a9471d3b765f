//! What a person sees of a run and may do about it: a state without any I/O.
//!
//! Events and snapshots of the store and keys go in; rows ([`crate::tui::view`]) and orders come out. Promises: an answer
//! is about the question that stood on the screen when the key was pressed, never about one that has just come up or that
//! was not shown whole; nothing that is pasted is a key; what was not understood does nothing.

use crate::output::Tone;
use crate::transcript::{of_event, tool_words};
use crate::tui::facts::{Facts, Snapshot, is_open, since};
use crate::tui::prompt::{Asked, Prompt};
use crate::tui::story::Story;
use crate::tui::text::tame_line;
use crate::tui::view;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::VecDeque;
use tipstaff_model::approval::ApprovalScope;
use tipstaff_model::risk::Place;
use tipstaff_model::{
    AgentEvent, Approval, ApprovalAnswer, ApprovalId, EventKind, FileChangeKind, Risk, SteerKind, SteerState,
};
use tipstaff_store::Event;

/// The smallest screen, in columns and rows.
pub(crate) const SMALLEST: (u16, u16) = (60, 16);
/// How long a question stands on the screen before a key answers it, in milliseconds: nobody answers by a slip what they
/// have not seen.
pub(crate) const LOOK_FIRST_MS: u64 = 400;
/// Files that are listed.
const MOST_FILES: usize = 500;
/// Tools under way that are followed.
const MOST_TOOLS: usize = 64;

/// What is shown below the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// The session, and the question that waits.
    Session,
    /// What the run changed.
    Change,
    /// What it was refused.
    Blocked,
    /// The whole of the question that waits.
    Action,
    /// The keys.
    Help,
}

/// What a person wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Answer a question.
    Answer(ApprovalId, ApprovalAnswer),
    /// Tell the run something.
    Steer(SteerKind),
    /// End the run, keeping its work.
    Cancel,
    /// The signal of the terminal: what Ctrl-C means outside of this screen.
    Interrupt,
    /// Keep the proposal of grants as a file.
    Propose,
    /// Read the change.
    ReadChange,
    /// Leave the screen.
    Leave,
}

/// A tool that the agent uses now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) since: i64,
}

/// The state of the screen.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) facts: Facts,
    pub(crate) now: Snapshot,
    pub(crate) story: Story,
    pub(crate) patch: Story,
    pub(crate) has_patch: bool,
    pub(crate) action: Story,
    pub(crate) view: View,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) files: VecDeque<(String, FileChangeKind)>,
    pub(crate) paused: bool,
    /// What was said last about what a person did.
    pub(crate) note: Option<(Tone, String)>,
    /// The question that is on the screen, and since when.
    pub(crate) asked: Option<(ApprovalId, i64)>,
    pub(crate) blocked_top: usize,
    pub(crate) size: (u16, u16),
}

impl Screen {
    /// The screen of a run.
    pub(crate) fn new(facts: Facts, now: Snapshot) -> Self {
        let mut screen = Self {
            facts,
            now,
            story: Story::new(),
            patch: Story::new(),
            has_patch: false,
            action: Story::new(),
            view: View::Session,
            prompt: None,
            tools: Vec::new(),
            files: VecDeque::new(),
            paused: false,
            note: None,
            asked: None,
            blocked_top: 0,
            size: SMALLEST,
        };
        screen.look_at_questions();
        screen
    }

    /// Takes what the store knows now.
    pub(crate) fn take(&mut self, now: Snapshot) {
        self.now = now;
        if self.now.state.is_final() {
            self.tools.clear();
            self.paused = false;
        }
        self.look_at_questions();
    }

    /// Takes the next event of the run.
    pub(crate) fn event(&mut self, event: &Event) {
        self.story.push(&of_event(event));
        match event.kind {
            EventKind::Agent => {
                if let Ok(said) = serde_json::from_value::<AgentEvent>(event.body.clone()) {
                    self.agent(&said, event.at);
                }
            }
            EventKind::Steer => {
                let word = |name: &str| event.body.get(name).and_then(serde_json::Value::as_str);
                if word("state") == Some(SteerState::Taken.as_str()) {
                    match word("type") {
                        Some("pause") => self.paused = true,
                        Some("resume") => self.paused = false,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn agent(&mut self, event: &AgentEvent, at: i64) {
        match event {
            AgentEvent::ToolCall { id, name, title, .. } => {
                self.tools.retain(|tool| tool.id != *id);
                if self.tools.len() >= MOST_TOOLS {
                    self.tools.remove(0);
                }
                let what = tame_line(&tool_words(name, title));
                self.tools.push(Tool { id: id.clone(), what, since: at });
            }
            AgentEvent::ToolResult { id, .. } => self.tools.retain(|tool| tool.id != *id),
            AgentEvent::Finished { .. } => self.tools.clear(),
            AgentEvent::FileChange { path, change } => {
                let path = tame_line(path);
                let before = self.files.iter().position(|(known, _)| *known == path);
                let first = before.and_then(|at| self.files.remove(at)).map(|(_, first)| first);
                // A new file that is changed again is still new.
                let change = match (first, change) {
                    (Some(FileChangeKind::Added), FileChangeKind::Changed) => FileChangeKind::Added,
                    (_, change) => *change,
                };
                self.files.push_front((path, change));
                self.files.truncate(MOST_FILES);
            }
            _ => {}
        }
    }

    /// The question on the screen, if one waits.
    pub(crate) fn question(&self) -> Option<&Approval> {
        let (id, _) = self.asked?;
        self.now.pending.iter().find(|approval| approval.request.id == id)
    }

    /// The place of the question among those that wait, from 1, and how many they are.
    pub(crate) fn question_place(&self) -> (usize, usize) {
        let at = self.asked.and_then(|(id, _)| self.now.pending.iter().position(|one| one.request.id == id));
        (at.map_or(0, |at| at + 1), self.now.pending.len())
    }

    /// Keeps the question that is on the screen as long as it waits; then the next one comes up.
    fn look_at_questions(&mut self) {
        let now = self.now.now;
        self.now.pending.retain(|approval| is_open(approval, now));
        if self.question().is_none() {
            let next = self.now.pending.first().map(|approval| approval.request.id);
            self.ask(next);
        }
        if let Some(id) = self.prompt.as_ref().and_then(Prompt::about)
            && !self.now.pending.iter().any(|approval| approval.request.id == id)
        {
            self.prompt = None;
            self.say(Tone::Warn, format!("approval {} no longer waits: nothing was sent", id.short()));
        }
    }

    fn ask(&mut self, id: Option<ApprovalId>) {
        self.asked = id.map(|id| (id, self.now.now));
        if self.view == View::Action {
            self.view = View::Session;
        }
    }

    /// Says something about what a person did, until the next key.
    pub(crate) fn say(&mut self, tone: Tone, text: impl AsRef<str>) {
        self.note = Some((tone, tame_line(text.as_ref())));
    }

    /// Shows the change.
    pub(crate) fn show_patch(&mut self, patch: &str) {
        self.patch.replace(patch, |line| match line.as_bytes().first() {
            Some(b'+') => Some(Tone::Good),
            Some(b'-') => Some(Tone::Bad),
            Some(b'@') => Some(Tone::Dim),
            Some(b'd') => Some(Tone::Bold),
            _ => None,
        });
        self.has_patch = true;
    }

    /// Fits it to a size, in columns and rows.
    pub(crate) fn fit(&mut self, columns: u16, rows: u16) {
        self.size = (columns, rows);
        let (width, height) = view::room(self);
        self.story.fit(width, height);
        let (whole, body) = view::body(self);
        self.patch.fit(whole, body);
        self.action.fit(whole, body);
    }

    /// Whether the terminal is large enough.
    pub(crate) const fn fits(&self) -> bool {
        self.size.0 >= SMALLEST.0 && self.size.1 >= SMALLEST.1
    }

    /// Text that was pasted: words for a prompt, and nothing else.
    pub(crate) fn paste(&mut self, text: &str) {
        if let Some(prompt) = &mut self.prompt {
            prompt.insert(text);
        }
    }

    /// Takes a key, at a time in milliseconds since the Unix epoch.
    pub(crate) fn key(&mut self, key: KeyEvent, now: i64) -> Option<Order> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Some(Order::Interrupt);
        }
        self.note = None;
        if let Some(prompt) = &mut self.prompt {
            if key.code == KeyCode::Esc {
                self.prompt = None;
                self.say(Tone::Dim, "nothing was sent");
                return None;
            }
            let asked = prompt.key(key)?;
            return self.answered(asked);
        }
        if control || key.modifiers.contains(KeyModifiers::ALT) {
            return None;
        }
        if !self.fits() {
            return (key.code == KeyCode::Char('q')).then_some(Order::Leave);
        }
        match key.code {
            KeyCode::Char('q') => Some(Order::Leave),
            KeyCode::Char('?') => self.show(View::Help),
            KeyCode::Char('b') => self.show(View::Blocked),
            KeyCode::Char('d') => {
                self.show(View::Change);
                (self.view == View::Change && !self.has_patch && self.now.change.is_some())
                    .then_some(Order::ReadChange)
            }
            KeyCode::Char('v') => {
                self.show_action();
                None
            }
            KeyCode::Esc => self.show(View::Session),
            KeyCode::Tab => {
                self.next_question();
                None
            }
            KeyCode::Char('w') if self.view == View::Blocked => Some(Order::Propose),
            KeyCode::Char(c @ ('a' | 'r' | 'p' | 'n')) => self.answer(c, now),
            KeyCode::Char(c @ ('m' | 'i' | ' ' | 'c')) => self.steer(c),
            code => {
                self.move_by(code);
                None
            }
        }
    }

    /// Shows something, or the session again when it is shown already.
    fn show(&mut self, view: View) -> Option<Order> {
        self.view = if self.view == view { View::Session } else { view };
        self.blocked_top = 0;
        None
    }

    fn show_action(&mut self) {
        let Some(approval) = self.question() else {
            return self.say(Tone::Dim, "no question waits");
        };
        if self.view == View::Action {
            self.view = View::Session;
            return;
        }
        let text = view::whole_action(approval, self.now.now);
        self.action.replace(&text, |_| None);
        self.view = View::Action;
    }

    fn next_question(&mut self) {
        let (place, all) = self.question_place();
        if all > 1 {
            let next = self.now.pending.get(place % all).map(|approval| approval.request.id);
            self.ask(next);
            // It came up because it was asked for.
            self.asked = next.map(|id| (id, i64::MIN));
        }
    }

    fn move_by(&mut self, code: KeyCode) {
        let page = isize::try_from(view::room(self).1.max(2) - 1).unwrap_or(1);
        let by = match code {
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -page,
            KeyCode::PageDown => page,
            KeyCode::Home | KeyCode::Char('g') => isize::MIN,
            KeyCode::End | KeyCode::Char('G') => isize::MAX,
            _ => return,
        };
        let story = match self.view {
            View::Session => &mut self.story,
            View::Change => &mut self.patch,
            View::Action => &mut self.action,
            View::Blocked => {
                let most = self.now.refused.len().saturating_sub(1);
                self.blocked_top = self.blocked_top.saturating_add_signed(by).min(most);
                return;
            }
            View::Help => return,
        };
        match by {
            isize::MIN => story.rewind(),
            isize::MAX => story.follow(),
            by => story.scroll(by),
        }
    }

    /// A key that answers a question.
    fn answer(&mut self, key: char, now: i64) -> Option<Order> {
        if !matches!(self.view, View::Session | View::Action) {
            if self.question().is_some() {
                self.say(Tone::Warn, "Esc shows the question; answer it there");
            }
            return None;
        }
        let Some(approval) = self.question() else {
            self.say(Tone::Dim, "no question waits");
            return None;
        };
        let (id, risk, paths) = (approval.request.id, approval.request.risk, patterns_for(approval));
        let whole = match self.view {
            View::Action => self.action.below() == 0,
            _ => view::shows_whole_question(self),
        };
        let shown = self.asked.map_or(0, |(_, shown)| since(shown, now));
        if shown < LOOK_FIRST_MS {
            self.say(Tone::Warn, "this question has just come up: look at it, then press the key again");
            return None;
        }
        // A no needs no reading.
        if key == 'n' {
            self.prompt = Some(Prompt::deny(id));
            return None;
        }
        if !whole {
            if self.view != View::Action {
                self.show_action();
            }
            self.say(Tone::Warn, "there is more of it: go down to its end (PgDn), then answer");
            return None;
        }
        match key {
            // What can't be taken back is allowed once, and with a reason.
            'a' if risk == Risk::Critical => {
                self.prompt = Some(Prompt::allow(id));
                None
            }
            'a' => Some(self.send(id, yes(ApprovalScope::Once))),
            'r' => Some(self.send(id, yes(ApprovalScope::Run))),
            _ => {
                if paths.is_empty() {
                    self.say(Tone::Warn, "this action names no files: p is for changes to files");
                } else {
                    self.prompt = Some(Prompt::paths(id, &paths));
                }
                None
            }
        }
    }

    fn send(&mut self, id: ApprovalId, answer: ApprovalAnswer) -> Order {
        let word = if answer.allow { "allowing" } else { "denying" };
        self.say(Tone::Dim, format!("{word} {}", id.short()));
        self.view = View::Session;
        Order::Answer(id, answer)
    }

    /// A key that tells the run something.
    fn steer(&mut self, key: char) -> Option<Order> {
        if self.now.state.is_final() {
            self.say(Tone::Dim, format!("the run has ended: {}", self.now.state));
            return None;
        }
        match key {
            'm' => self.prompt = Some(Prompt::message()),
            'c' => self.prompt = Some(Prompt::cancel()),
            'i' => return Some(Order::Steer(SteerKind::Interrupt)),
            _ if self.paused => return Some(Order::Steer(SteerKind::Resume)),
            _ => return Some(Order::Steer(SteerKind::Pause)),
        }
        None
    }

    /// What was typed into a prompt.
    fn answered(&mut self, asked: Asked) -> Option<Order> {
        let order = match asked {
            Asked::Wrong(why) => {
                self.say(Tone::Warn, why);
                return None;
            }
            Asked::No => {
                self.say(Tone::Dim, "the run goes on");
                None
            }
            Asked::Allow(id, reason) => {
                Some(self.send(id, ApprovalAnswer { reason: Some(reason), ..yes(ApprovalScope::Once) }))
            }
            Asked::Deny(id, reason) => {
                let scope = ApprovalScope::Once;
                Some(self.send(id, ApprovalAnswer { allow: false, scope, until: None, reason }))
            }
            Asked::Paths(id, patterns) => Some(self.send(id, yes(ApprovalScope::Paths { patterns }))),
            Asked::Message(text) => Some(Order::Steer(SteerKind::Message { text })),
            Asked::Cancel => Some(Order::Cancel),
        };
        self.prompt = None;
        order
    }
}

const fn yes(scope: ApprovalScope) -> ApprovalAnswer {
    ApprovalAnswer { allow: true, scope, until: None, reason: None }
}

/// What could be allowed for good: the folders of the files that the action changes.
fn patterns_for(approval: &Approval) -> Vec<String> {
    let place = Place { workspace: tipstaff_sandbox::INSIDE_WORK };
    let mut patterns: Vec<String> = Vec::new();
    for path in &approval.request.action.paths {
        let Some(path) = place.within(path).filter(|path| !path.is_empty()) else { continue };
        let pattern =
            path.rsplit_once('/').map_or_else(|| path.clone(), |(folder, _)| format!("{folder}/**"));
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    patterns
}
