//! What a person tells a run that goes on, and the conversation with an agent from its first line to its end.

use super::input::Input;
use super::questions::{Answer, Questions};
use super::{Attended, End, Present, within};
use crate::RunnerError;
use crate::announce::Notice;
use crate::lines::{Line, LineSplitter};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tipstaff_engine::{Conversation, Step};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{ControlPlaneError, Rule, RunState, Steer, SteerId, SteerKind, SteerState};
use tipstaff_sandbox::{Running, SandboxError};
use tokio::time::Instant;

/// How often news are asked for while an agent is spoken with, and else.
const ATTENTIVE: Duration = Duration::from_millis(250);
const CASUAL: Duration = Duration::from_secs(1);
/// How long an agent may take to end once its input is closed.
const FAREWELL: Duration = Duration::from_secs(20);
/// Steps that one line may lead to.
const MOST_STEPS: usize = 10_000;
/// The longest message of a person, in bytes.
const LONGEST_MESSAGE: usize = 256 * 1024;
/// Lines of a conversation that can't be read are remarked on this often.
const MOST_REMARKS: u32 = 3;

const NOT_ATTENDED: &str =
    "nobody can speak with this run: its engine can't, or it was not started with --attended";
const OVER: &str =
    "the agent's work is over; its change is collected and verified now, and nobody reads this";
const ENDING: &str = "the agent is ending: its turn is over and its input is closed";

/// What can be made to stand still.
pub(crate) trait Pausable {
    /// Makes it stand still.
    fn pause(&mut self) -> Result<(), SandboxError>;
    /// Lets it go on.
    fn unpause(&mut self) -> Result<(), SandboxError>;
}

impl Pausable for Running {
    fn pause(&mut self) -> Result<(), SandboxError> {
        Self::pause(self)
    }

    fn unpause(&mut self) -> Result<(), SandboxError> {
        Self::unpause(self)
    }
}

/// A run that goes on, and whoever attends to it.
pub(crate) struct Attendance {
    talk: Option<Talk>,
    paused: bool,
    /// What was done with steering: one whose outcome could not be told comes again.
    steered: BTreeMap<SteerId, (SteerState, Option<String>)>,
    shown_waiting: bool,
}

struct Talk {
    conversation: Box<dyn Conversation>,
    questions: Questions,
    input: Input,
    lines: LineSplitter,
    ask_timeout: Duration,
    turn_over: bool,
    /// A person ended the turn: until when it waits for what it is told next.
    interrupted: bool,
    told_by: Option<Instant>,
    /// When it is ended if it has not ended by itself.
    closing: Option<Instant>,
    /// Whether it closed its input before we did.
    deaf: bool,
    unread: u32,
}

impl Attendance {
    /// `input` is the write end of the agent's standard input.
    pub(crate) fn new(attended: Option<Attended>, input: Option<OwnedFd>) -> Result<Self, RunnerError> {
        let talk = match (attended, input) {
            (Some(attended), Some(input)) => Some(Talk {
                conversation: attended.conversation,
                questions: Questions::new(
                    attended.policies,
                    attended.ask_timeout,
                    attended.redactor,
                    attended.entropy,
                ),
                input: Input::new(input)?,
                lines: LineSplitter::default(),
                ask_timeout: attended.ask_timeout,
                turn_over: false,
                interrupted: false,
                told_by: None,
                closing: None,
                deaf: false,
                unread: 0,
            }),
            _ => None,
        };
        Ok(Self { talk, paused: false, steered: BTreeMap::new(), shown_waiting: false })
    }

    /// How often [`Attendance::look`] is to be called.
    pub(crate) const fn pace(&self) -> Duration {
        if self.talk.is_some() { ATTENTIVE } else { CASUAL }
    }

    /// Whether it waits for a person, or stands still: silence is no sign of a stall then.
    pub(crate) fn waits_for_a_person(&self) -> bool {
        self.paused || self.talk.as_ref().is_some_and(Talk::waits_for_a_person)
    }

    /// When an agent whose conversation is over is ended, if it has not ended by itself.
    pub(crate) fn closing(&self) -> Option<Instant> {
        self.talk.as_ref().filter(|_| !self.paused)?.closing
    }

    /// What it means that the agent had to be ended then: nothing when its turn was over, else that it can't be spoken
    /// with.
    pub(crate) fn not_closed(&self) -> Option<End> {
        let deaf = self.talk.as_ref().is_some_and(|talk| talk.deaf && !talk.turn_over);
        deaf.then(|| End::Broken("it closed its input and did not end".to_owned()))
    }

    /// Says what is said first.
    pub(crate) async fn begin(&mut self, mut at: Present<'_, '_>) -> Result<(), End> {
        match &mut self.talk {
            Some(talk) => {
                let steps = talk.conversation.begin();
                talk.carry_out(steps, &mut at).await
            }
            None => Ok(()),
        }
    }

    /// Takes what the agent wrote on its standard output.
    pub(crate) async fn hear(&mut self, bytes: &[u8], mut at: Present<'_, '_>) -> Result<(), End> {
        let Some(talk) = &mut self.talk else { return Ok(()) };
        let mut lines = Vec::new();
        talk.lines.push(bytes, &mut lines);
        for line in lines {
            talk.hear(&line, &mut at).await?;
        }
        Ok(())
    }

    /// Asks for news and does what follows from them.
    pub(crate) async fn look(
        &mut self,
        running: &mut impl Pausable,
        mut at: Present<'_, '_>,
    ) -> Result<(), End> {
        let ids = self.talk.as_ref().map(|talk| talk.questions.ids()).unwrap_or_default();
        let news = match within(at.watch.control.news(ids)).await {
            Ok(news) => Some(news),
            Err(ControlPlaneError::LeaseLost) => return Err(End::Control(ControlPlaneError::LeaseLost)),
            // The heartbeat notices when it is gone for long; questions expire by our own clock.
            Err(_) => None,
        };
        let known = news.is_some();
        let news = news.unwrap_or_default();
        if let Some(talk) = &mut self.talk {
            let answers = talk.questions.news(news.approvals, &mut at).await?;
            talk.answer(answers, &mut at).await?;
        }
        for steer in news.steering {
            self.steer(steer, running, &mut at).await?;
        }
        if let Some(talk) = &mut self.talk {
            if known {
                talk.close_when_nothing_waits();
            }
            talk.mind_its_input();
        }
        self.show_waiting(&mut at).await
    }

    /// Moves the run between running and waiting for a person.
    async fn show_waiting(&mut self, at: &mut Present<'_, '_>) -> Result<(), End> {
        let waiting = self.talk.as_ref().is_some_and(Talk::waits_for_a_person);
        if waiting == self.shown_waiting {
            return Ok(());
        }
        let state = if waiting { RunState::NeedsInput } else { RunState::Running };
        let update = RunUpdate { state: Some(state), ..RunUpdate::default() };
        match within(at.watch.control.run_update(update)).await {
            Err(ControlPlaneError::LeaseLost) => Err(End::Control(ControlPlaneError::LeaseLost)),
            // It is told again at the next look.
            Err(ControlPlaneError::Unavailable(_)) => Ok(()),
            Err(ControlPlaneError::Rejected(_)) | Ok(()) => {
                self.shown_waiting = waiting;
                Ok(())
            }
        }
    }

    async fn steer(
        &mut self,
        steer: Steer,
        running: &mut impl Pausable,
        at: &mut Present<'_, '_>,
    ) -> Result<(), End> {
        let known = self.steered.get(&steer.id).cloned();
        let is_new = known.is_none();
        let (state, note) = match known {
            Some(known) => known,
            None => self.follow(&steer.kind, running, at).await?,
        };
        self.steered.insert(steer.id, (state, note.clone()));
        if is_new {
            let steer = steer.clone();
            at.listener.observer.notice(Notice::Steer { steer, state, note: note.clone() });
        }
        match within(at.watch.control.steer_taken(steer.id, state, note)).await {
            Err(ControlPlaneError::LeaseLost) => Err(End::Control(ControlPlaneError::LeaseLost)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Does what a person wants; what became of it.
    async fn follow(
        &mut self,
        kind: &SteerKind,
        running: &mut impl Pausable,
        at: &mut Present<'_, '_>,
    ) -> Result<(SteerState, Option<String>), End> {
        let refused = |note: &str| Ok((SteerState::Refused, Some(note.to_owned())));
        let later = self.paused.then(|| "it stands still, and reads it when it goes on".to_owned());
        match kind {
            SteerKind::Pause if self.paused => refused("it stands still already"),
            SteerKind::Pause => match running.pause() {
                Ok(()) => {
                    self.paused = true;
                    at.remark("every process of the run stands still".to_owned());
                    Ok((SteerState::Taken, None))
                }
                Err(error) => refused(&format!("it could not be stopped: {error}")),
            },
            SteerKind::Resume if !self.paused => refused("it does not stand still"),
            SteerKind::Resume => match running.unpause() {
                Ok(()) => {
                    self.paused = false;
                    if let Some(talk) = &mut self.talk {
                        talk.go_on_after_a_pause();
                    }
                    at.remark("the run goes on".to_owned());
                    Ok((SteerState::Taken, None))
                }
                Err(error) => refused(&format!("it could not be let go: {error}")),
            },
            SteerKind::Message { text } if text.len() > LONGEST_MESSAGE => {
                refused(&format!("a message has {} KiB at most", LONGEST_MESSAGE / 1024))
            }
            SteerKind::Message { text } => {
                let Some(talk) = &mut self.talk else { return refused(NOT_ATTENDED) };
                if talk.is_ending() {
                    return refused(ENDING);
                }
                match talk.conversation.say(text) {
                    Ok(steps) => {
                        talk.turn_over = false;
                        talk.interrupted = false;
                        talk.told_by = None;
                        talk.carry_out(steps, at).await?;
                        Ok((SteerState::Taken, later))
                    }
                    Err(error) => refused(error.0),
                }
            }
            SteerKind::Interrupt => {
                let Some(talk) = &mut self.talk else { return refused(NOT_ATTENDED) };
                if talk.is_ending() {
                    return refused(ENDING);
                }
                match talk.conversation.interrupt() {
                    Ok(steps) => {
                        talk.interrupted = true;
                        talk.carry_out(steps, at).await?;
                        Ok((SteerState::Taken, later))
                    }
                    Err(error) => refused(error.0),
                }
            }
        }
    }

    /// Takes every question back, and says of what a person still wanted that it came too late.
    pub(crate) async fn finish(&mut self, mut at: Present<'_, '_>) {
        if let Some(talk) = &mut self.talk {
            talk.questions.withdraw_all(&mut at).await;
        }
        let Ok(news) = within(at.watch.control.news(Vec::new())).await else { return };
        for steer in news.steering {
            let late = (SteerState::Refused, Some(OVER.to_owned()));
            let known = self.steered.remove(&steer.id);
            let is_new = known.is_none();
            let (state, note) = known.unwrap_or(late);
            let id = steer.id;
            if is_new {
                at.listener.observer.notice(Notice::Steer { steer, state, note: note.clone() });
            }
            let _too_late_to_tell = within(at.watch.control.steer_taken(id, state, note)).await;
        }
    }
}

impl Talk {
    fn waits_for_a_person(&self) -> bool {
        self.questions.is_waiting() || self.told_by.is_some()
    }

    fn is_ending(&self) -> bool {
        self.input.is_closed() || self.input.is_gone()
    }

    async fn hear(&mut self, line: &Line, at: &mut Present<'_, '_>) -> Result<(), End> {
        match line.exact() {
            Some(text) => {
                let steps = self.conversation.line(text);
                self.carry_out(steps, at).await
            }
            None => {
                self.unread = self.unread.saturating_add(1);
                if self.unread <= MOST_REMARKS {
                    at.remark(
                        "a line of the agent is too long or no text: if it was a question, it is not answered"
                            .to_owned(),
                    );
                }
                Ok(())
            }
        }
    }

    async fn answer(&mut self, answers: Vec<Answer>, at: &mut Present<'_, '_>) -> Result<(), End> {
        for (id, reply) in answers {
            let steps = self.conversation.answer(&id, &reply);
            self.carry_out(steps, at).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, steps: Vec<Step>, at: &mut Present<'_, '_>) -> Result<(), End> {
        let mut steps = VecDeque::from(steps);
        let mut done = 0_usize;
        while let Some(step) = steps.pop_front() {
            done += 1;
            if done > MOST_STEPS {
                return Err(End::Broken("one line of it asks for more than can be done".to_owned()));
            }
            match step {
                Step::Send(line) => self.input.send(&line).map_err(|_unread| {
                    End::Broken(format!(
                        "it does not read its input: {} MiB wait for it",
                        super::input::WAITING >> 20
                    ))
                })?,
                Step::Ask(asked) => {
                    let id = asked.id.clone();
                    if let Some(reply) = self.questions.take(asked, at).await? {
                        steps.extend(self.conversation.answer(&id, &reply));
                    }
                }
                Step::Withdrawn { id } => self.questions.withdraw(&id, at).await?,
                Step::Refused { wanted, why } => {
                    self.questions.refuse_wanted(Rule::OutsideSandbox, &wanted, &why, at).await?;
                }
                Step::TurnEnded => self.turn_over = true,
                Step::Broken(why) => return Err(End::Broken(why)),
            }
        }
        Ok(())
    }

    /// Called after the news were read: what a person said before the turn was over is not lost.
    fn close_when_nothing_waits(&mut self) {
        if !self.turn_over || self.input.is_closed() || self.questions.is_waiting() {
            return;
        }
        if self.interrupted {
            let until = *self.told_by.get_or_insert_with(|| Instant::now() + self.ask_timeout);
            if Instant::now() < until {
                return;
            }
            self.told_by = None;
        }
        self.input.close();
        self.closing = Some(Instant::now() + FAREWELL);
    }

    /// An agent that closed its input ends soon, or can't be spoken with.
    fn mind_its_input(&mut self) {
        if self.input.is_gone() && self.closing.is_none() {
            self.deaf = true;
            self.closing = Some(Instant::now() + FAREWELL);
        }
    }

    fn go_on_after_a_pause(&mut self) {
        if self.closing.is_some() {
            self.closing = Some(Instant::now() + FAREWELL);
        }
    }
}
