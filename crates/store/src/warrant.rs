//! Warrants as they were signed, and their revocation.

use crate::error::StoreError;
use crate::lease::Lease;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{RunId, WarrantId};
use tipstaff_seal::SignedWarrant;

macro_rules! warrant_columns {
    () => {
        "body, signature, key_id, digest, run_id, revoked_at"
    };
}

statements! {
    scoped WARRANT_ADD =
        "insert into warrant (org_id, id, run_id, parent_id, body, signature, key_id, digest, issued_at, expires_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    scoped WARRANT_OF_RUN_SET = "update run set warrant_id = $3 where org_id = $1 and id = $2";
    // By comparison: of two narrowings at once, one finds that the warrant is not the run's any more.
    scoped WARRANT_OF_RUN_CHANGE =
        "update run set warrant_id = $4 where org_id = $1 and id = $2 and warrant_id = $3 and ended_at is null";
    scoped WARRANT_OF_RUN = concat!(
        "select ", warrant_columns!(),
        " from warrant where org_id = $1 and id = (select warrant_id from run where org_id = $1 and id = $2)"
    );
    scoped WARRANT_GET = concat!("select ", warrant_columns!(), " from warrant where org_id = $1 and id = $2");
    scoped WARRANT_LIST_OF_RUN = concat!(
        "select ", warrant_columns!(), " from warrant where org_id = $1 and run_id = $2 order by issued_at, id"
    );
    scoped WARRANT_LIST_LIVE = concat!(
        "select ", warrant_columns!(),
        " from warrant where org_id = $1 and revoked_at is null and expires_at > $2 and exists \
         (select 1 from run where org_id = $1 and run.id = warrant.run_id and run.warrant_id = warrant.id) \
         order by id desc limit $3"
    );
    scoped WARRANT_RUN = "select run_id from warrant where org_id = $1 and id = $2";
    // A warrant falls with those that it was narrowed from, and they with it: one of them is in force at a time.
    scoped WARRANT_REVOKE =
        "update warrant set revoked_at = $3 where org_id = $1 and revoked_at is null and run_id = \
         (select run_id from warrant where org_id = $1 and id = $2)";
    scoped WARRANT_REVOKE_RUN =
        "update warrant set revoked_at = $3 where org_id = $1 and run_id = $2 and revoked_at is null";
}

/// A stored warrant. Verify it before acting on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWarrant {
    /// What was signed.
    pub signed: SignedWarrant,
    /// Its run.
    pub run: RunId,
    /// When it was revoked, in milliseconds since the Unix epoch.
    pub revoked_at: Option<i64>,
}

fn warrant(mut columns: Columns<'_>) -> Result<StoredWarrant, StoreError> {
    let canonical = columns.text()?;
    let warrant =
        serde_json::from_str(&canonical).map_err(|error| columns.invalid("body", error.to_string()))?;
    let signature = columns.bytes()?;
    let signature: [u8; 64] =
        signature.try_into().map_err(|_| columns.invalid("signature", "it is not 64 bytes".to_owned()))?;
    let signed = SignedWarrant {
        warrant,
        canonical,
        signature: tipstaff_seal::Signature::from_bytes(signature),
        key_id: columns.parsed("key_id")?,
        digest: columns.parsed("digest")?,
    };
    Ok(StoredWarrant { signed, run: columns.parsed("run_id")?, revoked_at: columns.int_opt()? })
}

impl OrgRead {
    /// A warrant.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn warrant_get(&mut self, id: WarrantId) -> Result<Option<StoredWarrant>, StoreError> {
        self.first(WARRANT_GET, values![id]).await?.map(|row| warrant(row.read("warrant"))).transpose()
    }

    /// The warrants of a run: its own, and those narrowed from it.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn warrant_list_of_run(&mut self, run: RunId) -> Result<Vec<StoredWarrant>, StoreError> {
        let rows = self.all(WARRANT_LIST_OF_RUN, values![run]).await?;
        rows.iter().map(|row| warrant(row.read("warrant"))).collect()
    }

    /// The warrant that is the run's now: the one that it began under, or the last that it was narrowed to.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn warrant_of_run(&mut self, run: RunId) -> Result<Option<StoredWarrant>, StoreError> {
        self.first(WARRANT_OF_RUN, values![run]).await?.map(|row| warrant(row.read("warrant"))).transpose()
    }

    /// Warrants that are their runs' now and neither revoked nor expired, newest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn warrant_list_live(&mut self, limit: u32) -> Result<Vec<StoredWarrant>, StoreError> {
        let now = self.inner.now();
        let rows = self.all(WARRANT_LIST_LIVE, values![now, i64::from(limit)]).await?;
        rows.iter().map(|row| warrant(row.read("warrant"))).collect()
    }
}

impl OrgTx {
    /// Keeps a signed warrant of the lease's run. The one that was not narrowed from another one of the run becomes the
    /// run's own.
    ///
    /// # Errors
    /// `lease-lost`; `input` for a warrant of another org, task or run.
    pub async fn warrant_add(&mut self, lease: &Lease, signed: &SignedWarrant) -> Result<(), StoreError> {
        self.lease_guard(lease).await?;
        let (grant, token) = (&signed.warrant, lease.token());
        if grant.org != token.org || grant.task != token.task || grant.run != token.run {
            return Err(StoreError::Input {
                what: "warrant",
                why: "it is of another org, task or run than the lease".to_owned(),
            });
        }
        self.warrant_keep(signed).await?;
        let above = match grant.parent {
            Some(parent) => self.first(WARRANT_RUN, values![parent]).await?,
            None => None,
        };
        let above: Option<RunId> = above.map(|row| row.read("warrant").parsed("run_id")).transpose()?;
        if above != Some(grant.run) {
            self.change(WARRANT_OF_RUN_SET, values![grant.run, grant.id]).await?;
        }
        Ok(())
    }

    async fn warrant_keep(&mut self, signed: &SignedWarrant) -> Result<(), StoreError> {
        let grant = &signed.warrant;
        let row: &[Value<'_>] = values![
            grant.id,
            grant.run,
            grant.parent,
            &signed.canonical,
            signed.signature.as_bytes().as_slice(),
            signed.key_id.to_string(),
            signed.digest.to_string(),
            grant.issued_at,
            grant.expires_at,
        ];
        self.change(WARRANT_ADD, row).await.map(|_| ())
    }

    /// Puts a narrower warrant in the place of the one that is the run's now: its parent. The worker sees it with the next
    /// heartbeat.
    ///
    /// # Errors
    /// `input` when it grants more than its parent, when the parent is revoked or not the run's warrant any more, or when
    /// the run has ended; `missing` when the parent is not there. Nothing may be committed then.
    pub async fn warrant_narrow(&mut self, signed: &SignedWarrant) -> Result<(), StoreError> {
        let child = &signed.warrant;
        self.story_lock(child.run).await?;
        let parent = match child.parent {
            Some(id) => self.warrant_get(id).await?,
            None => None,
        };
        let parent = parent.ok_or(StoreError::Missing { what: "warrant to narrow" })?;
        let grant = &parent.signed.warrant;
        grant.covers(child).map_err(|error| StoreError::Input { what: "warrant", why: error.to_string() })?;
        self.warrant_keep(signed).await?;
        let moved = self.change(WARRANT_OF_RUN_CHANGE, values![child.run, grant.id, child.id]).await?;
        if moved == 0 || parent.revoked_at.is_some() {
            return Err(StoreError::Input {
                what: "warrant",
                why: "the one that it narrows is revoked, or not its run's any more".to_owned(),
            });
        }
        // Who answered had the wider warrant before them.
        self.approval_close(child.run, Some(child.id), "its warrant was narrowed").await?;
        self.announce(Topic::Task);
        Ok(())
    }

    /// Revokes a warrant, with those that it was narrowed from and to; its worker sees it with the next heartbeat. Whether
    /// it was alive until now.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn warrant_revoke(&mut self, id: WarrantId) -> Result<bool, StoreError> {
        let now = self.inner.now();
        let Some(run) = self.first(WARRANT_RUN, values![id]).await? else { return Ok(false) };
        let run = run.read("warrant").parsed("run_id")?;
        self.story_lock(run).await?;
        let revoked = self.change(WARRANT_REVOKE, values![id, now]).await? > 0;
        self.approval_close(run, None, "its warrant was revoked").await?;
        self.announce(Topic::Task);
        Ok(revoked)
    }

    /// Revokes all warrants of a run; how many were alive until now.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn warrant_revoke_run(&mut self, run: RunId) -> Result<u64, StoreError> {
        let now = self.inner.now();
        self.story_lock(run).await?;
        let revoked = self.change(WARRANT_REVOKE_RUN, values![run, now]).await?;
        self.approval_close(run, None, "its warrant was revoked").await?;
        self.announce(Topic::Task);
        Ok(revoked)
    }
}
