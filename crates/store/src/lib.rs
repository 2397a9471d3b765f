#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agent;
mod approval;
mod approval_answer;
mod audit;
mod audit_verify;
mod budget;
mod budget_alert;
mod charge;
mod config;
mod error;
mod event;
mod identity;
mod lease;
mod ledger;
mod migrate;
mod model;
mod outbox;
mod policy;
mod price;
mod project;
mod publication;
mod reap;
mod refusal;
mod repository;
mod retention;
mod ring;
mod run;
mod scope;
mod secret;
mod signal;
mod signing;
pub mod sql;
mod steering;
mod store;
mod task;
mod transaction;
mod under;
mod warrant;

pub use agent::AgentDraft;
pub use approval::{ApprovalFilter, ApprovalFound};
pub use approval_answer::ApprovalAnswered;
pub use audit::{AuditBody, AuditCheckpoint, AuditEntry, AuditErasure, AuditReceipt};
pub use budget::{Budget, BudgetStanding};
pub use budget_alert::{BUDGET_ALERT, BudgetAlert};
pub use charge::{Charge, ChargeAccount, ChargeBy, ChargeState, ChargeSum};
pub use config::{BUSY_TIMEOUT_MS, Engine, StoreConfig};
pub use error::StoreError;
pub use event::Event;
pub use identity::{Member, Org};
pub use lease::{LEASE_MS, Lease, TakeOver};
pub use ledger::{Reservation, Slowed};
pub use migrate::SCHEMA_VERSION;
pub use model::{ModelRouteRow, ModelRule};
pub use outbox::OutboxMessage;
pub use policy::StoredPolicy;
pub use project::{Project, ProjectRemoval};
pub use publication::{Publication, PublicationDraft, PublicationState};
pub use reap::Reaped;
pub use refusal::StoredRefusal;
pub use repository::{Repository, RepositoryKind};
pub use retention::SweepSize;
pub use ring::{RingKeyStatus, RingRotation};
pub use run::{Run, RunDecision, RunDraft, RunFound};
pub use scope::{LocalPrincipal, OrgScope, Principal};
pub use secret::{SECRET_NAME_LIMIT, SecretInfo};
pub use signal::{Subscription, Topic};
pub use signing::KeyPurpose;
pub use sql::driver::DriverError;
pub use steering::{Steering, SteeringAdded};
pub use store::Store;
pub use store::postgres::{APP_ROLE, PostgresPasswords, SCHEDULER_ROLE};
pub use task::{Task, TaskAdded, TaskCancel, TaskDraft, TaskFilter};
pub use transaction::{OrgRead, OrgTx};
pub use warrant::StoredWarrant;

/// The statements of every module.
const STATEMENTS: &[&[sql::Statement]] = &[
    agent::STATEMENTS,
    approval::STATEMENTS,
    approval_answer::STATEMENTS,
    audit::STATEMENTS,
    budget::STATEMENTS,
    event::STATEMENTS,
    identity::STATEMENTS,
    lease::STATEMENTS,
    migrate::STATEMENTS,
    model::STATEMENTS,
    outbox::STATEMENTS,
    policy::STATEMENTS,
    price::STATEMENTS,
    project::STATEMENTS,
    publication::STATEMENTS,
    refusal::STATEMENTS,
    repository::STATEMENTS,
    retention::STATEMENTS,
    ring::STATEMENTS,
    run::STATEMENTS,
    secret::STATEMENTS,
    signal::STATEMENTS,
    signing::STATEMENTS,
    steering::STATEMENTS,
    charge::STATEMENTS,
    store::postgres::STATEMENTS,
    store::sqlite::STATEMENTS,
    task::STATEMENTS,
    under::STATEMENTS,
    warrant::STATEMENTS,
];
