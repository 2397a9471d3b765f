//! Repositories that an org knows, by name.

use crate::error::StoreError;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{RepositoryId, RepositoryName};

statements! {
    scoped REPOSITORY_SET =
        "insert into repository (org_id, id, name, kind, source, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $6) on conflict (org_id, name) do update set \
         kind = excluded.kind, source = excluded.source, updated_at = excluded.updated_at returning id";
    scoped REPOSITORY_GET = "select id, name, kind, source, created_at from repository where org_id = $1 and id = $2";
    scoped REPOSITORY_BY_NAME =
        "select id, name, kind, source, created_at from repository where org_id = $1 and name = $2";
    scoped REPOSITORY_BY_SOURCE =
        "select id, name, kind, source, created_at from repository where org_id = $1 and source = $2 order by id limit 1";
    scoped REPOSITORY_LIST =
        "select id, name, kind, source, created_at from repository where org_id = $1 order by name";
}

/// Where a repository comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A folder of this machine.
    Local,
    /// A URL.
    Url,
}

impl RepositoryKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Url => "url",
        }
    }
}

impl std::str::FromStr for RepositoryKind {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(Self::Local),
            "url" => Ok(Self::Url),
            _ => Err("neither local nor url"),
        }
    }
}

/// A repository that an org knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its id.
    pub id: RepositoryId,
    /// `owner/name`, unique in the org.
    pub name: RepositoryName,
    /// Where it comes from.
    pub kind: RepositoryKind,
    /// The folder or URL; never a credential.
    pub source: String,
    /// Since when it is known, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

fn repository(mut columns: Columns<'_>) -> Result<Repository, StoreError> {
    Ok(Repository {
        id: columns.parsed("id")?,
        name: columns.parsed("name")?,
        kind: columns.parsed("kind")?,
        source: columns.text()?,
        created_at: columns.int()?,
    })
}

impl OrgRead {
    /// A repository.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn repository_get(&mut self, id: RepositoryId) -> Result<Option<Repository>, StoreError> {
        let row = self.first(REPOSITORY_GET, values![id]).await?;
        row.map(|row| repository(row.read("repository"))).transpose()
    }

    /// The repository of a name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn repository_by_name(
        &mut self,
        name: &RepositoryName,
    ) -> Result<Option<Repository>, StoreError> {
        let row = self.first(REPOSITORY_BY_NAME, values![name.as_str()]).await?;
        row.map(|row| repository(row.read("repository"))).transpose()
    }

    /// The repository that comes from a folder or URL; the one known longest when there are several.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn repository_by_source(&mut self, source: &str) -> Result<Option<Repository>, StoreError> {
        let row = self.first(REPOSITORY_BY_SOURCE, values![source]).await?;
        row.map(|row| repository(row.read("repository"))).transpose()
    }

    /// All repositories, by name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn repository_list(&mut self) -> Result<Vec<Repository>, StoreError> {
        self.all(REPOSITORY_LIST, &[]).await?.iter().map(|row| repository(row.read("repository"))).collect()
    }
}

impl OrgTx {
    /// Makes a repository known, or changes where the one of this name comes from.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn repository_set(
        &mut self,
        name: &RepositoryName,
        kind: RepositoryKind,
        source: &str,
    ) -> Result<RepositoryId, StoreError> {
        let id = RepositoryId::new(&*self.inner.clock, &*self.inner.entropy);
        let now = self.inner.now();
        let row: &[Value<'_>] = values![id, name.as_str(), kind.as_str(), source, now];
        let row = self.first(REPOSITORY_SET, row).await?;
        row.ok_or(StoreError::Missing { what: "repository" })?.read("repository").parsed("id")
    }
}
