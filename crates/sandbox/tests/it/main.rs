//! Attacks on the sandbox and proofs of what it gives, in one binary.
//!
//! The binary is itself the program of the init stage, and it is a sloppy launcher on purpose: it holds a secret in
//! its environment and a directory descriptor that is not closed on exec, and neither may be seen inside.
#![expect(clippy::disallowed_methods, reason = "tests start processes, read their environment and measure")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the helpers of tests fail as tests do"
)]

mod escape;
mod exit;
mod files;
mod identity;
mod kill;
mod layers;
mod limits;
mod listener;
mod ordinary;
mod pause;
mod plan;
mod probe;
mod streams;
mod support;
mod toolchain;
mod tree;

/// The secret in the launcher's environment.
const SECRET: &str = "SECRET_TOKEN";

/// Runs before the test harness's `main`: a harness of its own would not be counted by every runner.
extern "C" fn before_main() {
    tipstaff_sandbox::init_stage_if_requested();
    if std::env::var_os(SECRET).is_none() {
        become_sloppy();
    }
}

#[expect(unsafe_code, reason = "a static in this section is called by the loader")]
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

fn become_sloppy() {
    use std::os::unix::process::CommandExt;
    let directory = rustix::fs::open("/", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty());
    let error = std::process::Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(SECRET, "CANARY-environment")
        .exec();
    drop(directory);
    panic!("executing the tests again failed: {error}");
}
