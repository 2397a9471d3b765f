//! The decisions under a warrant. Sandbox, broker and command line ask here and nowhere else.

use super::{PushGrant, RepositoryGrant, Warrant};
use crate::money::MicroUsd;
use crate::refusal::{Refusal, Rule};
use crate::repository::{RefName, RepositoryName};

impl Warrant {
    /// The grant to read `name`.
    ///
    /// # Errors
    /// The refusal, when the repository is not in the warrant.
    pub fn permits_read(&self, name: &RepositoryName) -> Result<&RepositoryGrant, Refusal> {
        self.repositories.iter().find(|grant| grant.name == *name).ok_or_else(|| {
            Refusal::new(
                Rule::RepositoryNotGranted,
                name.as_str(),
                format!("the warrant does not name {name}"),
            )
        })
    }

    /// Whether this warrant grants any push.
    #[must_use]
    pub fn push_grant(&self) -> Option<&PushGrant> {
        self.push.as_ref().filter(|_| self.kind.may_push())
    }

    /// The grant to push `reference` (as the client wrote it) to `name`.
    ///
    /// # Errors
    /// The refusal: no push at all, another repository, or another ref.
    pub fn permits_push(&self, name: &RepositoryName, reference: &str) -> Result<&PushGrant, Refusal> {
        self.permits_read(name)?;
        let grant = self.push_grant().filter(|grant| grant.repository == *name).ok_or_else(|| {
            Refusal::new(
                Rule::PushNotGranted,
                reference,
                format!("a {} warrant of role {} grants no push to {name}", self.kind, self.role),
            )
        })?;
        if grant.reference.as_str() == reference {
            Ok(grant)
        } else {
            Err(Refusal::new(
                Rule::RefNotGranted,
                reference,
                format!("only {} may be pushed", grant.reference.short()),
            ))
        }
    }

    /// The one ref of the warrant.
    #[must_use]
    pub fn push_ref(&self) -> Option<&RefName> {
        self.push_grant().map(|grant| &grant.reference)
    }

    /// Whether a push may change `path` (bytes as git reports them).
    ///
    /// # Errors
    /// The refusal: a protected path, or one outside the grant.
    pub fn permits_path_write(&self, path: &[u8]) -> Result<(), Refusal> {
        let shown = String::from_utf8_lossy(path);
        if let Some(rule) = self.paths.protected.iter().find(|pattern| pattern.matches_ignoring_case(path)) {
            return Err(Refusal::new(
                Rule::PathProtected,
                &shown,
                format!("{shown} is protected by {rule} for the role {}", self.role),
            ));
        }
        if self.paths.write.iter().any(|pattern| pattern.matches(path)) {
            return Ok(());
        }
        Err(Refusal::new(
            Rule::PathNotGranted,
            &shown,
            format!("{shown} is not among the paths that the role {} may change", self.role),
        ))
    }

    /// Whether anything that the repository or the agent made may be executed.
    ///
    /// # Errors
    /// The refusal.
    pub fn permits_exec(&self) -> Result<(), Refusal> {
        if self.tools.exec && self.kind.may_execute() {
            return Ok(());
        }
        Err(Refusal::new(
            Rule::ExecNotGranted,
            "exec",
            format!("a {} warrant of role {} grants no execution", self.kind, self.role),
        ))
    }

    /// Whether `host` (lower-case, no trailing dot) may be reached on `port`.
    ///
    /// # Errors
    /// The refusal: another port, or another host.
    pub fn permits_egress(&self, host: &str, port: u16) -> Result<(), Refusal> {
        if self.egress.iter().any(|pattern| pattern.matches(host, port)) {
            return Ok(());
        }
        let wanted = format!("{host}:{port}");
        if self.egress.iter().any(|pattern| pattern.matches_name(host)) {
            return Err(Refusal::new(
                Rule::PortNotGranted,
                &wanted,
                format!("{host} is granted, but not its port {port}"),
            ));
        }
        Err(Refusal::new(Rule::HostNotGranted, &wanted, format!("the warrant does not name {host}")))
    }

    /// Whether `model` of `provider` may be asked.
    ///
    /// # Errors
    /// The refusal.
    pub fn permits_model(&self, provider: &str, model: &str) -> Result<(), Refusal> {
        if self.models.iter().any(|grant| grant.provider == provider && grant.model.matches(model)) {
            return Ok(());
        }
        Err(Refusal::new(
            Rule::ModelNotGranted,
            format!("{provider}/{model}"),
            format!("the warrant does not name the model {model} of {provider}"),
        ))
    }

    /// Whether `total`, all money spent and reserved under this warrant, is within the budget.
    ///
    /// # Errors
    /// The refusal.
    pub fn permits_spend(&self, total: MicroUsd) -> Result<(), Refusal> {
        if total <= self.budget {
            return Ok(());
        }
        Err(Refusal::new(
            Rule::BudgetExceeded,
            total.to_string(),
            format!("the budget of {} is spent", self.budget),
        ))
    }
}
