//! Speaking with an agent while it works: its questions, our answers, what a person tells it.
//!
//! A conversation is a state machine without I/O: lines in, steps out. It sees the lines as the agent wrote them, since an
//! answer often repeats the question; what it says about them to people is redacted by the caller. What an agent writes is
//! hostile: a line that is not understood is no step, a question that can't be read is answered with no, and nothing is
//! ever done for an agent outside of its sandbox (`fs/*`, terminals).

use tipstaff_model::Action;

/// What a conversation wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write this line, without its end, to the agent's standard input.
    Send(String),
    /// The agent wants to do this, and waits for [`Conversation::answer`].
    Ask(Asked),
    /// It no longer waits for this answer.
    Withdrawn {
        /// The id of [`Asked`].
        id: String,
    },
    /// It wanted something that is never done, and was told so: for the list of refusals.
    Refused {
        /// What it wanted, such as `fs/write_text_file /etc/passwd`.
        wanted: String,
        /// Why not.
        why: String,
    },
    /// Its turn is over. When nobody has anything to say, its input is closed and it ends.
    TurnEnded,
    /// It can't be spoken with any more: the reason, for people.
    Broken(String),
}

/// A question of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The id of the question in the agent's protocol, unique in this conversation.
    pub id: String,
    /// What it wants to do.
    pub action: Action,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It may do this, once.
    Allow,
    /// It may not.
    Deny {
        /// What it is told.
        why: String,
        /// Whether its turn ends with that.
        interrupt: bool,
    },
}

/// This can't be done with this agent, or not now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPossible(pub &'static str);

/// One conversation with one agent.
pub trait Conversation: Send {
    /// What is said first: the handshake and, once it is through, the prompt.
    fn begin(&mut self) -> Vec<Step>;
    /// Takes one line of the agent's standard output, as it came, without its end.
    fn line(&mut self, line: &str) -> Vec<Step>;
    /// Answers a question. An id that is not open (any more) yields no step: an answer is given once.
    fn answer(&mut self, id: &str, reply: &Reply) -> Vec<Step>;
    /// Tells the agent something: at once where its protocol can, else when its turn is over.
    ///
    /// # Errors
    /// [`NotPossible`] when it can't be told.
    fn say(&mut self, text: &str) -> Result<Vec<Step>, NotPossible>;
    /// Ends the turn.
    ///
    /// # Errors
    /// [`NotPossible`] when there is none, or it can't be ended.
    fn interrupt(&mut self) -> Result<Vec<Step>, NotPossible>;
}
