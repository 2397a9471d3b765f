//! The key ring of an org: data keys that seal secrets, wrapped by the encryption key, rotated while work goes on.
//!
//! Promises: a value is sealed only under a key that is current in the same transaction; a rotation that was killed
//! anywhere goes on where it stopped; a key is forgotten only when nothing is sealed under it, and what it wrapped is
//! erased then.

use crate::error::StoreError;
use crate::sql::{statements, values};
use crate::transaction::{OrgRead, OrgTx};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tipstaff_model::OrgId;
use tipstaff_seal::{DataKeyId, Ring, SealContext, SealedText, Secret, SigningKey, WrappedKey};

/// The ring's name, bound to its wrapped keys.
const RING: &str = "at-rest";

statements! {
    scoped RING_KEYS = "select id, wrapped from ring_key where org_id = $1 and retired_at is null order by generation";
    scoped RING_STATUS =
        "select id, generation, created_at, retired_at, \
         (select count(*) from secret where org_id = $1 and ring_key_id = ring_key.id) + \
         (select count(*) from signing_key where org_id = $1 and ring_key_id = ring_key.id) \
         from ring_key where org_id = $1 order by generation";
    scoped RING_KEY_ADD =
        "insert into ring_key (org_id, id, generation, wrapped, created_at) select $1, $2, \
         coalesce(max(generation), 0) + 1, $3, $4 from ring_key where org_id = $1";
    // Takes the row's lock on both engines: a retirement waits, or is seen.
    scoped RING_KEY_HOLD =
        "update ring_key set retired_at = null where org_id = $1 and id = $2 and retired_at is null and generation = \
         (select max(generation) from ring_key where org_id = $1) returning id";
    scoped RING_KEY_RETIRE =
        "update ring_key set retired_at = $3, wrapped = '' where org_id = $1 and id = $2 and retired_at is null \
         and not exists (select 1 from secret where org_id = $1 and ring_key_id = $2) \
         and not exists (select 1 from signing_key where org_id = $1 and ring_key_id = $2)";
    scoped RING_KEY_LOCK = "update ring_key set retired_at = null where org_id = $1 and id = $2 and retired_at is null";
    scoped RING_KEY_REWRAP = "update ring_key set wrapped = $3 where org_id = $1 and id = $2 and wrapped = $4";
    scoped SECRETS_TO_RESEAL =
        "select id, sealed from secret where org_id = $1 and ring_key_id <> $2 order by id limit $3";
    scoped SECRET_RESEAL =
        "update secret set sealed = $3, ring_key_id = $4 where org_id = $1 and id = $2 and sealed = $5";
    scoped SIGNING_KEYS_TO_RESEAL =
        "select id, sealed from signing_key where org_id = $1 and ring_key_id <> $2 order by id limit $3";
    scoped SIGNING_KEY_RESEAL =
        "update signing_key set sealed = $3, ring_key_id = $4 where org_id = $1 and id = $2 and sealed = $5";
}

/// What is kept in memory of an org: opened once, dropped when the ring changes.
#[derive(Clone, Default)]
pub(crate) struct OrgKeys {
    pub(crate) ring: Option<Ring>,
    pub(crate) audit: Option<SigningKey>,
    /// The stored form of the log's head that this process has checked or written last.
    pub(crate) trusted_head: Option<Vec<u8>>,
}

/// Opened rings by org.
#[derive(Default)]
pub(crate) struct RingCache(Mutex<HashMap<OrgId, Arc<OrgKeys>>>);

impl RingCache {
    pub(crate) fn get(&self, org: OrgId) -> Arc<OrgKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&org).cloned().unwrap_or_default()
    }

    pub(crate) fn change(&self, org: OrgId, change: impl FnOnce(&mut OrgKeys)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(all.entry(org).or_default()));
    }

    pub(crate) fn forget(&self, org: OrgId) {
        self.change(org, |keys| keys.ring = None);
    }
}

/// A data key of the ring, as people may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKeyStatus {
    /// Its id.
    pub id: String,
    /// Counts the keys of the ring from 1; the largest one seals.
    pub generation: i64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When it was forgotten.
    pub retired_at: Option<i64>,
    /// Values that are sealed under it.
    pub values: u64,
}

/// What beginning a rotation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingRotation {
    /// A new key was made.
    Begun,
    /// An earlier rotation was not finished: it goes on.
    Resumed,
}

impl OrgRead {
    /// The keys of the ring, oldest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn ring_list(&mut self) -> Result<Vec<RingKeyStatus>, StoreError> {
        let rows = self.all(RING_STATUS, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("ring_key");
                Ok(RingKeyStatus {
                    id: columns.text()?,
                    generation: columns.int()?,
                    created_at: columns.int()?,
                    retired_at: columns.int_opt()?,
                    values: columns.count("values")?,
                })
            })
            .collect()
    }

    /// The ring as this transaction sees it.
    pub(crate) async fn ring_load(&mut self) -> Result<Ring, StoreError> {
        let rows = self.all(RING_KEYS, &[]).await?;
        let mut wrapped = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut columns = row.read("ring_key");
            columns.text()?;
            wrapped.push(columns.text()?.parse::<WrappedKey>()?);
        }
        let Some(current) = wrapped.last().map(|key| key.id().clone()) else {
            return Err(StoreError::Missing { what: "key ring" });
        };
        let org = self.org();
        let ring = Ring::open_ring(org, RING, &self.inner.key, &current, &wrapped)?;
        self.inner.rings.change(org, |keys| keys.ring = Some(ring.clone()));
        Ok(ring)
    }

    /// A ring that may be old: good for opening values, not for sealing.
    pub(crate) async fn ring_cached(&mut self) -> Result<Ring, StoreError> {
        match &self.inner.rings.get(self.org()).ring {
            Some(ring) => Ok(ring.clone()),
            None => self.ring_load().await,
        }
    }

    /// Opens a value; a key that the cached ring doesn't know makes it look at the stored ring.
    pub(crate) async fn ring_open(
        &mut self,
        context: &SealContext<'_>,
        sealed: &str,
    ) -> Result<Secret<Vec<u8>>, StoreError> {
        match self.ring_cached().await?.open(context, sealed) {
            Err(tipstaff_seal::SealError::KeyUnknown { .. }) => {
                Ok(self.ring_load().await?.open(context, sealed)?)
            }
            other => Ok(other?),
        }
    }
}

impl OrgTx {
    /// Seals a value under the key that is current in this transaction, which can't be retired before it ends.
    pub(crate) async fn ring_seal(
        &mut self,
        context: &SealContext<'_>,
        plain: &[u8],
    ) -> Result<(SealedText, DataKeyId), StoreError> {
        let mut ring = self.ring_cached().await?;
        let held = self.first(RING_KEY_HOLD, values![ring.current().as_str()]).await?;
        if held.is_none() {
            ring = self.ring_load().await?;
            if self.first(RING_KEY_HOLD, values![ring.current().as_str()]).await?.is_none() {
                return Err(StoreError::Missing { what: "current key of the ring" });
            }
        }
        let sealed = ring.seal(context, plain, &*self.inner.entropy)?;
        Ok((sealed, ring.current().clone()))
    }

    /// Makes the ring of a new org.
    pub(crate) async fn ring_create(&mut self) -> Result<(), StoreError> {
        let org = self.org();
        let inner = Arc::clone(&self.inner);
        let (_, wrapped) = Ring::create(org, RING, &inner.key, &*inner.clock, &*inner.entropy)?;
        let (id, text, now) = (wrapped.id().to_string(), wrapped.to_string(), inner.now());
        self.change(RING_KEY_ADD, values![&id, &text, now]).await?;
        self.ring_changed = true;
        Ok(())
    }

    /// Begins a rotation: makes a new current key, unless an earlier rotation is not finished yet.
    ///
    /// Then call [`OrgTx::ring_reseal_step`] in transactions of its own until it answers 0, and
    /// [`OrgTx::ring_retire_unused`]. Runs may go on meanwhile.
    ///
    /// # Errors
    /// `wrapped-by-other` when the encryption key isn't the ring's; errors of the database.
    pub async fn ring_rotate_begin(&mut self) -> Result<RingRotation, StoreError> {
        let keys = self.ring_list().await?;
        if keys.iter().filter(|key| key.retired_at.is_none()).count() > 1 {
            return Ok(RingRotation::Resumed);
        }
        let ring = self.ring_load().await?;
        let inner = Arc::clone(&self.inner);
        let (_, wrapped) = ring.rotate(&inner.key, &*inner.clock, &*inner.entropy)?;
        let (id, text, now) = (wrapped.id().to_string(), wrapped.to_string(), inner.now());
        self.change(RING_KEY_ADD, values![&id, &text, now]).await?;
        self.ring_changed = true;
        Ok(RingRotation::Begun)
    }

    /// Seals up to `limit` values anew under the current key; how many it looked at. 0 means that none is left.
    ///
    /// # Errors
    /// `sealed-altered` for a value that doesn't open; errors of the database.
    pub async fn ring_reseal_step(&mut self, limit: u32) -> Result<u64, StoreError> {
        let ring = self.ring_load().await?;
        let (current, limit) = (ring.current().to_string(), i64::from(limit.max(1)));
        let mut seen = 0;
        let tables = [
            ("secret", SECRETS_TO_RESEAL, SECRET_RESEAL),
            ("signing_key", SIGNING_KEYS_TO_RESEAL, SIGNING_KEY_RESEAL),
        ];
        for (table, list, update) in tables {
            if seen >= limit {
                break;
            }
            let rows = self.all(list, values![&current, limit - seen]).await?;
            for row in rows {
                let mut columns = row.read(table);
                let (id, sealed) = (columns.text()?, columns.text()?);
                let context = SealContext { org: self.org(), table, row: &id, column: "sealed" };
                if let Some(fresh) = ring.reseal(&context, &sealed, &*self.inner.entropy)? {
                    // Set only if nobody else has set it since.
                    self.change(update, values![&id, fresh.as_str(), &current, &sealed]).await?;
                }
                seen += 1;
            }
        }
        Ok(u64::try_from(seen).unwrap_or(0))
    }

    /// Forgets the old keys that nothing is sealed under any more, and erases what was stored of them; how many.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn ring_retire_unused(&mut self) -> Result<u64, StoreError> {
        let keys = self.ring_list().await?;
        let newest = keys.iter().map(|key| key.generation).max().unwrap_or(0);
        let now = self.inner.now();
        let mut retired = 0;
        for key in keys.iter().filter(|key| key.retired_at.is_none() && key.generation < newest) {
            // First the lock, then the count: a writer that still seals under this key has it until it commits.
            self.change(RING_KEY_LOCK, values![&key.id]).await?;
            retired += self.change(RING_KEY_RETIRE, values![&key.id, now]).await?;
        }
        self.ring_changed = retired > 0 || self.ring_changed;
        Ok(retired)
    }

    /// Wraps every key of the ring anew: the encryption key changes from `old` to the one that the store was opened
    /// with. Values stay as they are. Keys that are wrapped by the new one already are left alone.
    ///
    /// # Errors
    /// `wrapped-by-other` when a key was wrapped by neither; errors of the database.
    pub async fn ring_rewrap(&mut self, old: &tipstaff_seal::RingKey) -> Result<u64, StoreError> {
        let rows = self.all(RING_KEYS, &[]).await?;
        let mut changed = 0;
        for row in rows {
            let mut columns = row.read("ring_key");
            let (id, stored) = (columns.text()?, columns.text()?);
            let wrapped = stored.parse::<WrappedKey>()?;
            if wrapped.wrapped_by() == self.inner.key.id() {
                continue;
            }
            let (org, inner) = (self.org(), Arc::clone(&self.inner));
            let fresh =
                tipstaff_seal::rewrap(org, RING, old, &inner.key, &wrapped, &*inner.entropy)?.to_string();
            changed += self.change(RING_KEY_REWRAP, values![&id, &fresh, &stored]).await?;
        }
        self.ring_changed = changed > 0 || self.ring_changed;
        Ok(changed)
    }
}
