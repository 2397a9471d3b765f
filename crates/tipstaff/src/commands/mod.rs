//! One file per command.

pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod budgets;
pub(crate) mod costs;
pub(crate) mod database;
pub(crate) mod doctor;
pub(crate) mod keys;
pub(crate) mod learn;
pub(crate) mod models;
pub(crate) mod narrow;
pub(crate) mod policy;
pub(crate) mod prices;
pub(crate) mod projects;
pub(crate) mod provenance;
pub(crate) mod publish;
pub(crate) mod redact;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod sandbox;
pub(crate) mod secrets;
pub(crate) mod sessions;
pub(crate) mod steer;
pub(crate) mod warrants;
pub(crate) mod worker;
