#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod announce;
mod apply;
mod carry;
mod collect;
mod compile;
mod earlier;
mod error;
mod home;
mod kept;
mod layout;
mod life;
mod lines;
mod manner;
mod narrowing;
mod prepare;
mod privacy;
mod program;
mod project;
mod recover;
mod runner;
mod session;
mod setup;
mod supervise;
mod talk;
mod trust;
mod verify;
mod wait;
mod work;

pub use announce::{Notice, Observer, Stream};
pub use apply::{Applied, Applier, ApplyError, Person};
pub use compile::{BROKER_URL, SandboxRules, compile_limits, compile_spec, engine_request};
pub use earlier::EarlierWork;
pub use error::RunnerError;
pub use kept::{Keeping, KeptSession, MOST_SESSION_BYTES, MOST_SESSION_ENTRIES, keep_session};
pub use layout::{Layout, RunLock};
pub use prepare::Prepared;
pub use program::{FoundProgram, find_program};
pub use project::{
    Lockfiles, PROJECT_FILE, Project, PushRules, Verification, VerifyWorkspace, parse_policy, wrong_line,
};
pub use recover::{Leftover, leftovers, remove_leftover};
pub use runner::{Job, JobInspection, JobResumed, Outcome, Runner, RunnerConfig};
pub use setup::{
    JobSetup, ListedSetup, SETUP_SCRIPT, SetupCache, SetupCacheBounds, SetupEntry, SetupOutlook, SetupPlan,
    SetupScript, SetupTable,
};
pub use supervise::{Cancel, Stall};
pub use wait::wait_for;
