//! Which models an org and its projects may ask, and who serves them.

use crate::error::StoreError;
use crate::sql::{statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{ModelEffect, OfferPattern};

statements! {
    scoped MODEL_RULE_LIST =
        "select project, pattern, effect from model_rule where org_id = $1 order by project, pattern";
    scoped MODEL_RULE_SET =
        "insert into model_rule (org_id, project, pattern, effect, updated_at) values ($1, $2, $3, $4, $5) \
         on conflict (org_id, project, pattern) do update set effect = excluded.effect, updated_at = excluded.updated_at";
    scoped MODEL_RULE_REMOVE = "delete from model_rule where org_id = $1 and project = $2 and pattern = $3";
    scoped MODEL_ROUTE_LIST =
        "select project, pattern, hops from model_route where org_id = $1 order by project, pattern";
    scoped MODEL_ROUTE_SET =
        "insert into model_route (org_id, project, pattern, hops, updated_at) values ($1, $2, $3, $4, $5) \
         on conflict (org_id, project, pattern) do update set hops = excluded.hops, updated_at = excluded.updated_at";
    scoped MODEL_ROUTE_REMOVE = "delete from model_route where org_id = $1 and project = $2 and pattern = $3";
}

/// A rule about which models may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRule {
    /// The project that it binds; `None` for the whole org.
    pub project: Option<String>,
    /// Which models.
    pub pattern: OfferPattern,
    /// What it says.
    pub effect: ModelEffect,
}

/// Who serves some models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRouteRow {
    /// The project whose route it is; `None` for the whole org.
    pub project: Option<String>,
    /// Which models.
    pub pattern: OfferPattern,
    /// The upstreams, as the writer wrote them (JSON).
    pub hops: String,
}

/// The longest list of upstreams, in bytes.
const LONGEST_HOPS: usize = 4_096;

fn project_of(name: String) -> Option<String> {
    if name.is_empty() { None } else { Some(name) }
}

impl OrgRead {
    /// All rules about which models may be asked, of the org and of its projects.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn model_rule_list(&mut self) -> Result<Vec<ModelRule>, StoreError> {
        let rows = self.all(MODEL_RULE_LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("model_rule");
                Ok(ModelRule {
                    project: project_of(columns.text()?),
                    pattern: columns.parsed("pattern")?,
                    effect: columns.parsed("effect")?,
                })
            })
            .collect()
    }

    /// All routes of models, of the org and of its projects.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn model_route_list(&mut self) -> Result<Vec<ModelRouteRow>, StoreError> {
        let rows = self.all(MODEL_ROUTE_LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("model_route");
                Ok(ModelRouteRow {
                    project: project_of(columns.text()?),
                    pattern: columns.parsed("pattern")?,
                    hops: columns.text()?,
                })
            })
            .collect()
    }
}

impl OrgTx {
    /// Sets a rule about which models may be asked: of the org, or of a project.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn model_rule_set(
        &mut self,
        project: Option<&str>,
        pattern: &OfferPattern,
        effect: ModelEffect,
    ) -> Result<(), StoreError> {
        let now = self.inner.now();
        let row = values![project.unwrap_or_default(), pattern.to_string(), effect.as_str(), now];
        self.change(MODEL_RULE_SET, row).await?;
        Ok(())
    }

    /// Removes a rule; whether there was one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn model_rule_remove(
        &mut self,
        project: Option<&str>,
        pattern: &OfferPattern,
    ) -> Result<bool, StoreError> {
        let row = values![project.unwrap_or_default(), pattern.to_string()];
        Ok(self.change(MODEL_RULE_REMOVE, row).await? > 0)
    }

    /// Sets who serves some models: in the org, or in a project.
    ///
    /// # Errors
    /// `input` for a list of upstreams that is too long.
    pub async fn model_route_set(
        &mut self,
        project: Option<&str>,
        pattern: &OfferPattern,
        hops: &str,
    ) -> Result<(), StoreError> {
        if hops.len() > LONGEST_HOPS {
            let why = format!("it has more than {LONGEST_HOPS} bytes");
            return Err(StoreError::Input { what: "route", why });
        }
        let now = self.inner.now();
        let row = values![project.unwrap_or_default(), pattern.to_string(), hops, now];
        self.change(MODEL_ROUTE_SET, row).await?;
        Ok(())
    }

    /// Removes a route; whether there was one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn model_route_remove(
        &mut self,
        project: Option<&str>,
        pattern: &OfferPattern,
    ) -> Result<bool, StoreError> {
        let row = values![project.unwrap_or_default(), pattern.to_string()];
        Ok(self.change(MODEL_ROUTE_REMOVE, row).await? > 0)
    }
}
