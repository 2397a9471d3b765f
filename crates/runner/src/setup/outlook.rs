//! What the set-up of a task would find, without doing it.

use super::copied::{self, Copied};
use super::{Form, JobSetup, SetupEntry, blocking, key};
use crate::RunnerError;
use crate::runner::Runner;
use std::sync::atomic::Ordering;

/// What the set-up of a run would find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupOutlook {
    /// The key in the cache.
    pub key: String,
    /// What an earlier one made, where it is kept.
    pub cached: Option<SetupEntry>,
    /// Files that are copied.
    pub copied: Vec<String>,
    /// Files that are wanted and not there.
    pub missing: Vec<String>,
}

impl Runner {
    /// Looks what the set-up of a task would find; does nothing.
    ///
    /// # Errors
    /// [`RunnerError::SetupCopy`], and what the system says.
    pub async fn setup_outlook(
        &self,
        org: tipstaff_model::OrgId,
        task: &tipstaff_model::TaskSpec,
        setup: &JobSetup,
        redactor: &tipstaff_seal::redact::Redactor,
    ) -> Result<SetupOutlook, RunnerError> {
        let copied = match &setup.tree {
            Some(tree) => copied::read(tree, &setup.plan.table.copy, redactor)?,
            None => Copied { files: Vec::new(), missing: setup.plan.table.copy.clone() },
        };
        let form = if self.no_overlay.load(Ordering::Relaxed) { Form::Archive } else { Form::Layer };
        let parts = key::KeyParts {
            org,
            repository: &task.repository,
            source: &task.source,
            form,
            grants: &self.config.grants,
            system: &key::system(),
        };
        let key = key::key(&setup.plan, &copied, &parts);
        let (cache, wanted) = (self.setups(org)?, key.clone());
        let held =
            blocking("looking for an earlier set-up", move || cache.find(&wanted, form)).await.ok().flatten();
        Ok(SetupOutlook {
            key,
            cached: held.map(|held| held.entry.clone()),
            copied: copied.files.into_iter().map(|file| file.path).collect(),
            missing: copied.missing,
        })
    }
}
