//! The first door to a scope: who is at the terminal of this machine.

use crate::audit::AuditReceipt;
use crate::error::StoreError;
use crate::scope::{LocalPrincipal, OrgScope, Principal};
use crate::sql::{Link, Row, statements, values};
use crate::store::{Db, Inner, Store, sqlite};
use crate::transaction::{OrgRead, OrgTx};
use std::sync::Arc;
use tipstaff_model::{AuditAction, AuditDraft, MemberId, OrgId};

statements! {
    system (engine Postgres) PRINCIPAL_SCOPE = "select set_config('app.principal', $1, true)";
    system (engine Postgres) ORG_SCOPE = "select set_config('app.org_id', $1, true)";
    system LOCAL_IDENTITY_GET = "select org_id, member_id from local_identity where principal = $1";
    system LOCAL_IDENTITY_ADD =
        "insert into local_identity (principal, org_id, member_id, created_at) values ($1, $2, $3, $4) \
         on conflict (principal) do nothing";
    scoped ORG_ADD = "insert into org (org_id, name, kind, created_at) values ($1, $2, $3, $4)";
    scoped ORG_GET = "select name, kind, created_at from org where org_id = $1";
    scoped MEMBER_ADD = "insert into member (org_id, id, name, role, created_at) values ($1, $2, $3, $4, $5)";
    scoped MEMBER_LIST = "select id, name, role, created_at from member where org_id = $1 order by id";
}

/// An org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// `personal`, or `team`.
    pub kind: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// A person in an org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The id.
    pub id: MemberId,
    /// The name to call the person by.
    pub name: String,
    /// `owner`, `admin`, `member` or `viewer`.
    pub role: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

impl Store {
    /// Authenticates the person at the terminal of this machine, as the operating system vouches for them. The first
    /// time, makes their personal org with its key ring, signing keys and audit log, all or nothing; processes that
    /// race for it get the same org.
    ///
    /// # Errors
    /// `wrapped-by-other` when the encryption key isn't the one that the org's ring was made with; errors of the
    /// database.
    pub async fn authenticate_local(&self, person: &LocalPrincipal) -> Result<Principal, StoreError> {
        let key = person.key();
        let mut link = self.begin_as(&key).await?;
        let driver = |error| self.inner.driver(error);
        let found = link.fetch_optional(LOCAL_IDENTITY_GET.text, values![&key]).await.map_err(driver)?;
        if let Some(row) = found {
            link.rollback().await.map_err(driver)?;
            return principal(&row);
        }
        let inner = &self.inner;
        let org = OrgId::new(&*inner.clock, &*inner.entropy);
        let member = MemberId::new(&*inner.clock, &*inner.entropy);
        let row = values![&key, org, member, inner.now()];
        if link.execute(LOCAL_IDENTITY_ADD.text, row).await.map_err(driver)? == 0 {
            // Another process was faster, and has committed.
            let row = link.fetch_optional(LOCAL_IDENTITY_GET.text, values![&key]).await.map_err(driver)?;
            link.rollback().await.map_err(driver)?;
            return row.as_ref().map_or(Err(StoreError::Missing { what: "local identity" }), principal);
        }
        let granted = Principal { scope: OrgScope::granted(org), member };
        org_create(inner, link, &granted, &person.name).await?;
        Ok(granted)
    }

    /// A writing transaction that sees one person's row of the local identities.
    async fn begin_as(&self, key: &str) -> Result<Link, StoreError> {
        let driver = |error| self.inner.driver(error);
        let mut link = sqlite::begin_write(&self.inner.db).await.map_err(driver)?;
        if matches!(self.inner.db, Db::Postgres { .. }) {
            link.fetch_optional(PRINCIPAL_SCOPE.text, values![key]).await.map_err(driver)?;
        }
        Ok(link)
    }
}

fn principal(row: &Row) -> Result<Principal, StoreError> {
    let mut columns = row.read("local_identity");
    let scope = OrgScope::granted(columns.parsed("org_id")?);
    Ok(Principal { scope, member: columns.parsed("member_id")? })
}

/// Makes an org, its first member, its ring, its signing keys and the first record of its log.
async fn org_create(
    inner: &Arc<Inner>,
    mut link: Link,
    owner: &Principal,
    name: &str,
) -> Result<AuditReceipt, StoreError> {
    if matches!(link, Link::Postgres(_)) {
        let org = owner.scope.org();
        link.fetch_optional(ORG_SCOPE.text, values![org]).await.map_err(|error| inner.driver(error))?;
    }
    let mut tx = OrgTx::over(link, inner, &owner.scope);
    let now = inner.now();
    tx.change(ORG_ADD, values![name, "personal", now]).await?;
    tx.change(MEMBER_ADD, values![owner.member, name, "owner", now]).await?;
    tx.ring_create().await?;
    tx.signing_keys_create().await?;
    tx.audit_head_create().await?;
    let draft = AuditDraft::new(owner.actor(), AuditAction::OrgCreated, format!("org:{}", owner.scope.org()));
    let receipt = tx.audit_append(vec![draft]).await?;
    tx.commit().await?;
    Ok(receipt)
}

impl OrgRead {
    /// The org.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn org_get(&mut self) -> Result<Option<Org>, StoreError> {
        let row = self.first(ORG_GET, &[]).await?;
        row.map(|row| {
            let mut columns = row.read("org");
            Ok(Org {
                id: self.org(),
                name: columns.text()?,
                kind: columns.text()?,
                created_at: columns.int()?,
            })
        })
        .transpose()
    }

    /// The people in the org.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn member_list(&mut self) -> Result<Vec<Member>, StoreError> {
        let rows = self.all(MEMBER_LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("member");
                Ok(Member {
                    id: columns.parsed("id")?,
                    name: columns.text()?,
                    role: columns.text()?,
                    created_at: columns.int()?,
                })
            })
            .collect()
    }
}
