//! What a run sees of one repository: its quarantine.
//!
//! The quarantine holds the history of the base and what the run pushed, and nothing else. So an object that is there is
//! granted, and one that is not granted is not there.

use crate::broker::ServedRepository;
use crate::error::BrokerError;
use crate::quarantine::Quarantine;
use std::sync::Arc;
use tipstaff_model::RepositoryName;
use tokio::sync::Mutex;

/// A repository of the run.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) name: RepositoryName,
    pub(crate) quarantine: Quarantine,
    /// Held while a push is judged and written down: one at a time.
    pub(crate) landing: Arc<Mutex<()>>,
}

impl View {
    pub(crate) fn new(repository: ServedRepository) -> Self {
        let ServedRepository { name, quarantine } = repository;
        Self { name, quarantine, landing: Arc::default() }
    }

    /// The first of the wanted objects that is not in the view.
    pub(crate) async fn missing(&self, wants: &[String]) -> Result<Option<String>, BrokerError> {
        if wants.iter().all(|want| want == self.quarantine.base().as_str()) {
            return Ok(None);
        }
        let mut input = wants.join("\n");
        input.push('\n');
        let output = self
            .quarantine
            .command("cat-file")
            .arg("--batch-check=%(objectname)")
            .run_with_input(input.into_bytes())
            .await?;
        Ok(output.text().lines().find_map(|line| line.strip_suffix(" missing")).map(str::to_owned))
    }
}
