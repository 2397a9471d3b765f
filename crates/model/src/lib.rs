#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod agent;
pub mod allowed;
pub mod audit;
pub mod budget;
pub mod canonical;
pub mod charge;
pub mod door;
pub mod event;
pub mod explain;
pub mod id;
pub mod lease;
pub mod limits;
pub mod money;
pub mod ports;
pub mod price;
pub mod refusal;
pub mod repository;
pub mod run;
pub mod session;
pub mod span;
pub mod state;
pub mod warrant;

pub use agent::{Agent, AgentRole, EngineKind};
pub use allowed::{AllowedModels, ModelDenied, ModelEffect, ModelLayer, OfferPattern};
pub use audit::{AuditAction, AuditDraft, AuditOutcome, AuditRecord};
pub use budget::{BudgetActions, BudgetHolder, BudgetPeriod, CalendarDay};
pub use charge::{BudgetScope, CallOutcome, ChargeAnswer, ChargeRequest, ChargeSettlement, Usage};
pub use door::{Clock, Entropy, FixedClock, FixedEntropy};
pub use event::{EventDraft, EventKind};
pub use id::{AgentId, MemberId, OrgId, RepositoryId, RunId, TaskId, WarrantId};
pub use lease::LeaseToken;
pub use limits::Limits;
pub use money::MicroUsd;
pub use ports::{BoxFuture, ControlPlane, ControlPlaneError, Heartbeat};
pub use price::{Price, PriceTable, PriceTableError, PromptCache, Quote, Surcharge};
pub use refusal::{Refusal, Rule};
pub use repository::{CommitId, RefName, RepositoryName};
pub use run::{RunSummary, TaskSpec};
pub use session::{AgentEvent, FileChangeKind};
pub use state::{ExitReason, RunState};
pub use warrant::{LiveWarrant, Narrowing, Warrant, WarrantKind};
