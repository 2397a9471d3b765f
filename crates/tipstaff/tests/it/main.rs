//! End-to-end tests: the real binary on real repositories, in real sandboxes.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests start the binary and other programs, and wait for them"
)]

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod attended;
#[cfg(test)]
mod attended_acp;
#[cfg(test)]
mod attended_codex;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod backend;
#[cfg(test)]
mod bad_agents;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod budgets;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod first_run;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod hostile;
mod hostile_agent;
#[cfg(test)]
mod inspect;
#[cfg(test)]
mod inspect_tools;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod models;
#[cfg(test)]
mod money;
#[cfg(test)]
mod narrowing;
#[cfg(test)]
mod plain_agents;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod privacy;
#[cfg(test)]
mod provenance;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod push_rules;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod real_agents;
#[cfg(test)]
mod real_aider;
#[cfg(test)]
mod redact;
#[cfg(test)]
mod results;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod session;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod terminal_agent;
#[cfg(test)]
mod under;
#[cfg(test)]
mod usage_compared;
#[cfg(test)]
mod verification;
#[cfg(test)]
mod world;
