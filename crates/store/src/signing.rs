//! The signing keys of an org: one for warrants, one for the audit log. Private halves are sealed under the ring.

use crate::error::StoreError;
use crate::sql::{statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_seal::log::LogKey;
use tipstaff_seal::{SealContext, SigningKey, VerifyingKey};

statements! {
    scoped SIGNING_KEY_ADD =
        "insert into signing_key (org_id, id, purpose, public, ring_key_id, sealed, created_at) \
         values ($1, $2, $3, $4, $5, $6, $7)";
    scoped SIGNING_KEY_CURRENT =
        "select id, sealed from signing_key where org_id = $1 and purpose = $2 and retired_at is null \
         order by created_at desc, id desc limit 1";
    scoped SIGNING_KEY_PUBLICS =
        "select public from signing_key where org_id = $1 and purpose = $2 order by created_at desc, id desc";
}

/// What a signing key is for. A key is never used for two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Signs warrants.
    Warrant,
    /// Signs the checkpoints of the audit log.
    Audit,
    /// Signs the commits that leave quarantine.
    Commit,
}

impl KeyPurpose {
    pub(crate) const ALL: [Self; 3] = [Self::Warrant, Self::Audit, Self::Commit];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Warrant => "warrant",
            Self::Audit => "audit",
            Self::Commit => "commit",
        }
    }
}

impl OrgRead {
    /// The private key that signs for a purpose now.
    ///
    /// # Errors
    /// `sealed-altered`, `wrapped-by-other` when it can't be opened; errors of the database.
    pub async fn signing_key(&mut self, purpose: KeyPurpose) -> Result<SigningKey, StoreError> {
        let row = self.first(SIGNING_KEY_CURRENT, values![purpose.as_str()]).await?;
        let row = row.ok_or(StoreError::Missing { what: "signing key" })?;
        let mut columns = row.read("signing_key");
        let (id, sealed) = (columns.text()?, columns.text()?);
        let context = SealContext { org: self.org(), table: "signing_key", row: &id, column: "sealed" };
        let secret = self.ring_open(&context, &sealed).await?;
        Ok(SigningKey::from_secret(&secret)?)
    }

    /// The public keys of a purpose, newest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn verifying_keys(&mut self, purpose: KeyPurpose) -> Result<Vec<VerifyingKey>, StoreError> {
        let rows = self.all(SIGNING_KEY_PUBLICS, values![purpose.as_str()]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("signing_key");
                let public = columns.bytes()?;
                let public: [u8; 32] = public
                    .try_into()
                    .map_err(|_| columns.invalid("public", "it is not 32 bytes".to_owned()))?;
                Ok(VerifyingKey::from_bytes(&public)?)
            })
            .collect()
    }

    /// The public key of the org's audit log: what people keep to verify it offline.
    ///
    /// # Errors
    /// As [`OrgRead::verifying_keys`]; `missing` when the org has none.
    pub async fn audit_key(&mut self) -> Result<LogKey, StoreError> {
        let keys = self.verifying_keys(KeyPurpose::Audit).await?;
        let key = keys.into_iter().next().ok_or(StoreError::Missing { what: "audit key" })?;
        Ok(LogKey::new(self.org(), key))
    }
}

impl OrgTx {
    /// Makes the signing keys of a new org.
    pub(crate) async fn signing_keys_create(&mut self) -> Result<(), StoreError> {
        for purpose in KeyPurpose::ALL {
            self.signing_key_create(purpose).await?;
        }
        Ok(())
    }

    /// The private key that signs for a purpose now, made when the org is older than the purpose.
    ///
    /// # Errors
    /// As [`OrgRead::signing_key`].
    pub async fn signing_key_ensure(&mut self, purpose: KeyPurpose) -> Result<SigningKey, StoreError> {
        match self.signing_key(purpose).await {
            Err(StoreError::Missing { .. }) => self.signing_key_create(purpose).await,
            found => found,
        }
    }

    async fn signing_key_create(&mut self, purpose: KeyPurpose) -> Result<SigningKey, StoreError> {
        let key = SigningKey::generate(&*self.inner.entropy);
        let id = key.id().to_string();
        let context = SealContext { org: self.org(), table: "signing_key", row: &id, column: "sealed" };
        let (sealed, ring_key) = self.ring_seal(&context, key.to_secret().expose()).await?;
        let public = key.verifying_key().to_bytes();
        let now = self.inner.now();
        self.change(
            SIGNING_KEY_ADD,
            values![&id, purpose.as_str(), public.as_slice(), ring_key.as_str(), sealed.as_str(), now],
        )
        .await?;
        Ok(key)
    }
}
