//! Secrets of an org, sealed for their own row.

use crate::error::StoreError;
use crate::sql::{Row, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::id::RowId;
use tipstaff_seal::{SealContext, SealError, Secret};

statements! {
    scoped SECRET_GET = "select id, sealed from secret where org_id = $1 and name = $2";
    scoped SECRET_LIST = "select id, name, created_at, updated_at from secret where org_id = $1 order by name";
    scoped SECRET_SET =
        "insert into secret (org_id, id, name, ring_key_id, sealed, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $6) on conflict (org_id, name) do nothing";
    scoped SECRET_CHANGE =
        "update secret set ring_key_id = $3, sealed = $4, updated_at = $5 where org_id = $1 and id = $2";
    scoped SECRET_REMOVE = "delete from secret where org_id = $1 and name = $2";
}

/// The longest name of a secret, in bytes.
pub const SECRET_NAME_LIMIT: usize = 200;
/// Times that a value is read again because its key was rotated away between two statements.
const OPEN_TRIES: usize = 3;

/// A secret as a list shows it: everything but the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its id.
    pub id: RowId,
    /// Its name, unique in the org.
    pub name: String,
    /// When it was first set, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When it was set last, in milliseconds since the Unix epoch.
    pub updated_at: i64,
}

impl OrgRead {
    /// The value of a secret.
    ///
    /// # Errors
    /// `sealed-altered` when the row was tampered with; errors of keys and database.
    pub async fn secret_get(&mut self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(row) = self.first(SECRET_GET, values![name]).await? else { return Ok(None) };
            match self.secret_open(&row).await {
                // On PostgreSQL a rotation may end between the two statements: the row is sealed anew then.
                Err(StoreError::Seal(SealError::KeyUnknown { .. })) if tries < OPEN_TRIES => {}
                other => return other.map(Some),
            }
        }
    }

    async fn secret_open(&mut self, row: &Row) -> Result<Secret<Vec<u8>>, StoreError> {
        let mut columns = row.read("secret");
        let (id, sealed) = (columns.text()?, columns.text()?);
        let context = SealContext { org: self.org(), table: "secret", row: &id, column: "sealed" };
        self.ring_open(&context, &sealed).await
    }

    /// All secrets, by name, without their values.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn secret_list(&mut self) -> Result<Vec<SecretInfo>, StoreError> {
        let rows = self.all(SECRET_LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("secret");
                Ok(SecretInfo {
                    id: columns.parsed("id")?,
                    name: columns.text()?,
                    created_at: columns.int()?,
                    updated_at: columns.int()?,
                })
            })
            .collect()
    }
}

impl OrgTx {
    /// Sets a secret, new or not.
    ///
    /// # Errors
    /// `input` for a name that is empty, too long or holds control characters; `sealed-too-large`; errors of keys and
    /// database.
    pub async fn secret_set(&mut self, name: &str, value: &Secret<Vec<u8>>) -> Result<RowId, StoreError> {
        if name.is_empty() || name.len() > SECRET_NAME_LIMIT || name.chars().any(char::is_control) {
            let why = format!("write 1 to {SECRET_NAME_LIMIT} bytes without control characters");
            return Err(StoreError::Input { what: "secret's name", why });
        }
        let now = self.inner.now();
        let id = match self.first(SECRET_GET, values![name]).await? {
            Some(row) => row.read("secret").parsed("id")?,
            None => RowId::new(&*self.inner.clock, &*self.inner.entropy),
        };
        let (sealed, key) = self.secret_seal(id, value).await?;
        let row: &[Value<'_>] = values![id, name, key.as_str(), sealed.as_str(), now];
        if self.change(SECRET_SET, row).await? > 0 {
            return Ok(id);
        }
        // It is there: sealed for the id that it has, which another transaction may have given it just now.
        let row =
            self.first(SECRET_GET, values![name]).await?.ok_or(StoreError::Missing { what: "secret" })?;
        let id: RowId = row.read("secret").parsed("id")?;
        let (sealed, key) = self.secret_seal(id, value).await?;
        self.change(SECRET_CHANGE, values![id, key.as_str(), sealed.as_str(), now]).await?;
        Ok(id)
    }

    async fn secret_seal(
        &mut self,
        id: RowId,
        value: &Secret<Vec<u8>>,
    ) -> Result<(tipstaff_seal::SealedText, tipstaff_seal::DataKeyId), StoreError> {
        let row = id.to_string();
        let context = SealContext { org: self.org(), table: "secret", row: &row, column: "sealed" };
        self.ring_seal(&context, value.expose()).await
    }

    /// Removes a secret; whether there was one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn secret_remove(&mut self, name: &str) -> Result<bool, StoreError> {
        Ok(self.change(SECRET_REMOVE, values![name]).await? > 0)
    }
}
