//! Projects: repositories whose money is counted together. A repository belongs to at most one.
//!
//! Promises: which project a run belongs to is what is stored here, never what a repository says about itself. The
//! ledger knows a project by its name, so what was spent stays on record when the project is removed.

use crate::error::StoreError;
use crate::sql::{Columns, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::budget::project_name_is_valid;
use tipstaff_model::id::RowId;
use tipstaff_model::{BudgetHolder, RepositoryId, RepositoryName};

statements! {
    scoped PROJECT_ADD =
        "insert into project (org_id, id, name, created_at) values ($1, $2, $3, $4) \
         on conflict (org_id, name) do nothing";
    scoped PROJECT_GET = "select id, name, created_at from project where org_id = $1 and name = $2";
    scoped PROJECT_LIST = "select id, name, created_at from project where org_id = $1 order by name";
    scoped PROJECT_REMOVE = "delete from project where org_id = $1 and id = $2";
    scoped PROJECT_ASSIGN =
        "insert into project_repository (org_id, repository_id, project_id, assigned_at) values ($1, $2, $3, $4) \
         on conflict (org_id, repository_id) do update set project_id = excluded.project_id, \
         assigned_at = excluded.assigned_at";
    scoped PROJECT_UNASSIGN = "delete from project_repository where org_id = $1 and repository_id = $2";
    scoped PROJECT_UNASSIGN_ALL = "delete from project_repository where org_id = $1 and project_id = $2";
    scoped PROJECT_OF_REPOSITORY =
        "select p.id, p.name, p.created_at from project_repository a join project p on p.org_id = $1 \
         and p.id = a.project_id where a.org_id = $1 and a.repository_id = $2";
    scoped PROJECT_REPOSITORIES =
        "select r.name from project_repository a join repository r on r.org_id = $1 and r.id = a.repository_id \
         where a.org_id = $1 and a.project_id = $2 order by r.name";
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: RowId,
    /// Its name, unique in the org: 1 to 40 of a-z, 0-9 and `-`, starting with a letter.
    pub name: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// What removing a project came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectRemoval {
    /// It is gone; its repositories belong to none.
    Removed,
    /// There is none of this name.
    Unknown,
    /// A budget binds it; nothing was changed.
    HasBudget,
}

fn project(mut columns: Columns<'_>) -> Result<Project, StoreError> {
    Ok(Project { id: columns.parsed("id")?, name: columns.text()?, created_at: columns.int()? })
}

impl OrgRead {
    /// The project of a name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn project_get(&mut self, name: &str) -> Result<Option<Project>, StoreError> {
        let row = self.first(PROJECT_GET, values![name]).await?;
        row.map(|row| project(row.read("project"))).transpose()
    }

    /// All projects, by name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn project_list(&mut self) -> Result<Vec<Project>, StoreError> {
        self.all(PROJECT_LIST, &[]).await?.iter().map(|row| project(row.read("project"))).collect()
    }

    /// The project that a repository belongs to.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn project_of(&mut self, repository: RepositoryId) -> Result<Option<Project>, StoreError> {
        let row = self.first(PROJECT_OF_REPOSITORY, values![repository]).await?;
        row.map(|row| project(row.read("project"))).transpose()
    }

    /// The repositories of a project, by name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn project_repositories(&mut self, project: RowId) -> Result<Vec<RepositoryName>, StoreError> {
        let rows = self.all(PROJECT_REPOSITORIES, values![project]).await?;
        rows.iter().map(|row| row.read("repository").parsed("name")).collect()
    }
}

impl OrgTx {
    /// Makes a project; whether there was none of this name.
    ///
    /// # Errors
    /// `input` for a name that can't be one.
    pub async fn project_add(&mut self, name: &str) -> Result<bool, StoreError> {
        if !project_name_is_valid(name) {
            let why = "write 1 to 40 of a-z, 0-9 and '-', starting with a letter".to_owned();
            return Err(StoreError::Input { what: "project's name", why });
        }
        let id = RowId::new(&*self.inner.clock, &*self.inner.entropy);
        let now = self.inner.now();
        Ok(self.change(PROJECT_ADD, values![id, name, now]).await? > 0)
    }

    /// Makes a repository part of a project, and of no other.
    ///
    /// # Errors
    /// `reference` when one of them is not there.
    pub async fn project_assign(
        &mut self,
        repository: RepositoryId,
        project: RowId,
    ) -> Result<(), StoreError> {
        let now = self.inner.now();
        self.change(PROJECT_ASSIGN, values![repository, project, now]).await?;
        Ok(())
    }

    /// Takes a repository out of its project; whether it was in one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn project_unassign(&mut self, repository: RepositoryId) -> Result<bool, StoreError> {
        Ok(self.change(PROJECT_UNASSIGN, values![repository]).await? > 0)
    }

    /// Removes a project that no budget binds; its repositories belong to none then.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn project_remove(&mut self, name: &str) -> Result<ProjectRemoval, StoreError> {
        let Some(known) = self.project_get(name).await? else { return Ok(ProjectRemoval::Unknown) };
        if !self.budget_list_of(&BudgetHolder::Project(known.name)).await?.is_empty() {
            return Ok(ProjectRemoval::HasBudget);
        }
        self.change(PROJECT_UNASSIGN_ALL, values![known.id]).await?;
        self.change(PROJECT_REMOVE, values![known.id]).await?;
        Ok(ProjectRemoval::Removed)
    }
}
