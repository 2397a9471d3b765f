//! Publications: what was pushed upstream, where to, and how it ended.
//!
//! Promises: a publication is on record before anything is pushed; one that was begun and has no end tells that nobody
//! knows how it ended, so that the next try looks upstream before it pushes.

use crate::error::StoreError;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::id::RowId;
use tipstaff_model::{CommitId, RefName, RunId};

statements! {
    scoped PUBLICATION_ADD =
        "insert into publication (org_id, id, run_id, url, reference, commit_id, state, begun_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8)";
    scoped PUBLICATION_END =
        "update publication set state = $3, error = $4, ended_at = $5 \
         where org_id = $1 and id = $2 and ended_at is null";
    scoped PUBLICATION_LIST_OF_RUN =
        "select id, run_id, url, reference, commit_id, state, error, begun_at, ended_at from publication \
         where org_id = $1 and run_id = $2 order by id";
}

/// How a publication stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicationState {
    /// It was begun; nobody knows yet how it ended.
    Begun,
    /// The commit is upstream.
    Done,
    /// The other side, or a check of ours, said no.
    Refused,
    /// It could not be carried out.
    Failed,
}

impl PublicationState {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for PublicationState {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Begun, Self::Done, Self::Refused, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or("not a state of a publication")
    }
}

/// What is to be pushed where.
#[derive(Debug, Clone)]
pub struct PublicationDraft {
    /// The run whose change it is.
    pub run: RunId,
    /// Where to: a URL or a path, without a credential.
    pub url: String,
    /// The branch there.
    pub reference: RefName,
    /// The attested commit.
    pub commit: CommitId,
}

/// A stored publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Its id; ids sort by time.
    pub id: RowId,
    /// The run whose change it is.
    pub run: RunId,
    /// Where to.
    pub url: String,
    /// The branch there.
    pub reference: RefName,
    /// The attested commit.
    pub commit: CommitId,
    /// How it stands.
    pub state: PublicationState,
    /// What went wrong, in our words.
    pub error: Option<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_at: i64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_at: Option<i64>,
}

fn publication(mut columns: Columns<'_>) -> Result<Publication, StoreError> {
    Ok(Publication {
        id: columns.parsed("id")?,
        run: columns.parsed("run_id")?,
        url: columns.text()?,
        reference: columns.parsed("reference")?,
        commit: columns.parsed("commit_id")?,
        state: columns.parsed("state")?,
        error: columns.text_opt()?,
        begun_at: columns.int()?,
        ended_at: columns.int_opt()?,
    })
}

impl OrgRead {
    /// The publications of a run, oldest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn publication_list_of_run(&mut self, run: RunId) -> Result<Vec<Publication>, StoreError> {
        let rows = self.all(PUBLICATION_LIST_OF_RUN, values![run]).await?;
        rows.iter().map(|row| publication(row.read("publication"))).collect()
    }
}

impl OrgTx {
    /// Notes that a push upstream is about to be made.
    ///
    /// # Errors
    /// `conflict` when there is no such run; errors of the database.
    pub async fn publication_begin(&mut self, draft: &PublicationDraft) -> Result<RowId, StoreError> {
        let id = RowId::new(&*self.inner.clock, &*self.inner.entropy);
        let now = self.inner.now();
        let row: &[Value<'_>] = values![
            id,
            draft.run,
            &draft.url,
            draft.reference.as_str(),
            draft.commit.as_str(),
            PublicationState::Begun.as_str(),
            now,
        ];
        self.change(PUBLICATION_ADD, row).await?;
        self.announce(Topic::Run);
        Ok(id)
    }

    /// Notes how it ended; whether that was unknown until now.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn publication_end(
        &mut self,
        id: RowId,
        state: PublicationState,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        let now = self.inner.now();
        let ended = self.change(PUBLICATION_END, values![id, state.as_str(), error, now]).await? > 0;
        self.announce(Topic::Run);
        Ok(ended)
    }
}
