//! A scripted model server: real HTTP on loopback, in the languages of four providers.
//!
//! Promises: it answers real agents well enough that they do their work, and a test well enough that it can count every
//! token. What the model "wants" stands in the prompt (see [`script_prompt`]) and which step is next follows from the
//! conversation that the client sends, so two conversations never disturb each other and no clock or chance is involved;
//! only a step with `times` counts, and it counts per language, model and script. With a key in the configuration, a request without exactly
//! that key in its provider's header is refused as the provider would refuse it. Every request is kept for the test to
//! look at. Never for production.
//!
//! # Script
//!
//! `[[fake {"steps":[STEP, …]}]]` anywhere in what the user says. A step is an object with at most one action:
//!
//! | action | what the model does |
//! |---|---|
//! | `{"write":{"path","content"}}` | calls the tool of this client that writes a file |
//! | `{"edit":{"path","old","new"}}` | calls the tool that replaces text |
//! | `{"read":"path"}` | calls the tool that reads a file (Claude Code edits only what it has read) |
//! | `{"shell":"command"}` | calls the tool that runs a command |
//! | `{"tool":{"name","input"}}` | calls that tool; a text as `input` for a free-form one |
//! | `{"text":"…"}` | says so and ends its turn |
//! | `{"status":429,"retry_after":2,"should_retry":false}` | an error as the provider words it (`fail` is the same) |
//! | `{"stall":"headers"}` | silence until the client leaves: after the `headers`, in the `middle`, or `nothing` at all |
//! | `{"half":"text"}` | says the first half and breaks the connection |
//! | `{"break_off":"text"}` | says the first half, then that the provider is overloaded, and ends properly |
//! | `{"garbage":"html"}` | `html`: another type of content; `broken`: the right type and no JSON; `usage`: nonsense for token numbers |
//! | `{"flood":{"megabytes":100,"shape":"events"}}` | that much text, as `events` or as one `line`, then a proper end |
//! | `{"echo_key":true}` | answers with the key that it was sent, in the body and in the header `x-echoed-key` |
//!
//! and any of these beside the action (or alone, then they belong to the next step): `sleep` (milliseconds before the
//! answer), `slow` (milliseconds between pieces of a stream), `think` (what the model thinks first), `usage` (a
//! [`Usage`](tipstaff_model::Usage): the exact tokens), `times` (an error or a trouble happens so often and is then passed
//! over; without it, for ever). Calls of tools are counted in the conversation, so a client that tries again gets the
//! same step again. After the last step the model says [`FINISHED`].
//!
//! Requests that agents make on the side (titles, summaries, routing, probes of a quota) get a short answer that fits
//! and use nothing of the script.

mod anthropic;
mod api;
mod body;
mod chat;
mod conversation;
mod gemini;
mod handler;
mod record;
mod responses;
mod script;
mod server;
mod tools;

pub use record::{Ending, RecordedRequest, RequestKind};
pub use script::{FINISHED, UNSCRIPTED, script_prompt};
pub use server::{ModelServer, ModelServerConfig};

use tipstaff_model::Usage;

/// The tokens of an answer whose step doesn't say otherwise.
pub const DEFAULT_USAGE: Usage =
    Usage { input: 1000, cache_read: 200, cache_write: 0, cache_write_1h: 0, output: 100, reasoning: 0 };

/// The tokens of an answer to a request on the side.
pub const SIDE_USAGE: Usage =
    Usage { input: 10, cache_read: 0, cache_write: 0, cache_write_1h: 0, output: 5, reasoning: 0 };

/// What the server says to a request to count tokens.
pub const COUNTED_TOKENS: u64 = 1200;
