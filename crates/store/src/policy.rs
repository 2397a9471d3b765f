//! Policies of an org and of its projects: which actions are let through, asked about or denied.
//!
//! Promise: what is kept is the text that a person wrote, whole; whether it is a policy was found out before.

use crate::error::StoreError;
use crate::sql::{statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::policy::LARGEST_POLICY;

statements! {
    scoped POLICY_LIST = "select project, body, set_by, set_at from policy where org_id = $1 order by project";
    scoped POLICY_SET =
        "insert into policy (org_id, project, body, set_by, set_at) values ($1, $2, $3, $4, $5) \
         on conflict (org_id, project) do update set body = excluded.body, set_by = excluded.set_by, \
         set_at = excluded.set_at";
    scoped POLICY_REMOVE = "delete from policy where org_id = $1 and project = $2";
}

/// A policy as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The project whose policy it is; `None` for the whole org.
    pub project: Option<String>,
    /// The file, as it was written.
    pub text: String,
    /// Who set it, such as `member:<id>`.
    pub set_by: String,
    /// When, in milliseconds since the Unix epoch.
    pub set_at: i64,
}

impl OrgRead {
    /// The policies of the org and of its projects, the org's first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn policy_list(&mut self) -> Result<Vec<StoredPolicy>, StoreError> {
        let rows = self.all(POLICY_LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("policy");
                Ok(StoredPolicy {
                    project: Some(columns.text()?).filter(|name| !name.is_empty()),
                    text: columns.text()?,
                    set_by: columns.text()?,
                    set_at: columns.int()?,
                })
            })
            .collect()
    }
}

impl OrgTx {
    /// Sets the policy of the org, or of a project.
    ///
    /// # Errors
    /// `input` for a text that is too large.
    pub async fn policy_set(
        &mut self,
        project: Option<&str>,
        text: &str,
        set_by: &str,
    ) -> Result<(), StoreError> {
        if text.len() > LARGEST_POLICY {
            let why = format!("it is larger than {} KiB", LARGEST_POLICY >> 10);
            return Err(StoreError::Input { what: "policy", why });
        }
        let now = self.inner.now();
        self.change(POLICY_SET, values![project.unwrap_or_default(), text, set_by, now]).await?;
        Ok(())
    }

    /// Takes a policy away; whether there was one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn policy_remove(&mut self, project: Option<&str>) -> Result<bool, StoreError> {
        Ok(self.change(POLICY_REMOVE, values![project.unwrap_or_default()]).await? > 0)
    }
}
