//! The work of the run that is continued: brought into the new run's workspace before its agent starts.
//!
//! Promises: the earlier run's objects come out of its own quarantine, through the broker, into the sandbox of the new run,
//! and into nothing else of ours: neither the mirror nor the new run's quarantine has them. So whatever of them is in the
//! new run's result was pushed by it, and judged whole under its own warrant.

use crate::RunnerError;
use crate::collect::{no_listener, read_bounded};
use crate::compile::{SandboxRules, compile_spec};
use crate::prepare::Prepared;
use crate::runner::{Job, Runner};
use crate::verify::narrowed;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_broker::{Quarantine, ServedRepository, remote_url};
use tipstaff_model::{CommitId, ControlPlane, LiveWarrant, RunId, WarrantId};
use tipstaff_sandbox::{Access, ExecPolicy, StdioPolicy};
use tipstaff_seal::scrub::{Colours, scrub_terminal};

/// Fetches the commit, puts the files on it and the run's branch on what the agent had committed itself: the commit that
/// collected the rest names the earlier run, and its changes are uncommitted again, as the agent left them.
const SCRIPT: &str = "set -e\n\
    export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0 GIT_ATTR_NOSYSTEM=1 LC_ALL=C\n\
    ours() { git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 -c maintenance.auto=false \"$@\"; }\n\
    ours fetch -q --no-tags --no-write-fetch-head --no-recurse-submodules \"$TIPSTAFF_REMOTE\" \"$TIPSTAFF_COMMIT\"\n\
    ours merge-base --is-ancestor \"$TIPSTAFF_BASE\" \"$TIPSTAFF_COMMIT\"\n\
    ours reset -q --hard \"$TIPSTAFF_COMMIT\"\n\
    if ours log -1 --format=%B \"$TIPSTAFF_COMMIT\" | grep -q '^Tipstaff-Run: ' &&\n\
        ours merge-base --is-ancestor \"$TIPSTAFF_BASE\" \"$TIPSTAFF_COMMIT^\"; then ours reset -q \"$TIPSTAFF_COMMIT^\"; fi";
/// Longest time for it.
const TIME: Duration = Duration::from_secs(5 * 60);
/// Bytes that are read of what it says.
const SAID: u64 = 4096;

/// What a run left behind that another one continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierWork {
    /// The run.
    pub run: RunId,
    /// The commit at the tip of its branch, in its quarantine.
    pub commit: CommitId,
}

impl Runner {
    /// Brings the work of the run that is continued into a workspace that nobody works in yet.
    pub(crate) async fn bring_back(
        &self,
        job: &Job,
        live: &LiveWarrant,
        prepared: &Prepared,
        control: &Arc<dyn ControlPlane>,
    ) -> Result<(), RunnerError> {
        let Some(work) = job.resumed.as_ref().and_then(|resumed| resumed.work.as_ref()) else {
            return Ok(());
        };
        let failed = |why: &str| RunnerError::EarlierWork { run: work.run, why: why.to_owned() };
        let quarantine =
            Quarantine::open(Arc::clone(&self.config.git), &self.config.layout.result(work.run)).await?;
        if *quarantine.base() != job.task.base_commit {
            return Err(failed("it has another base"));
        }
        // It reads, and nothing else: what was judged under another warrant stays as it is.
        let id = WarrantId::new(self.config.clock.as_ref(), self.config.entropy.as_ref());
        let lesser =
            Arc::new(LiveWarrant::new(narrowed(&live.warrant(), id)?, Arc::clone(&self.config.clock)));
        let warrant = lesser.warrant();
        let env = [
            ("TIPSTAFF_BASE", job.task.base_commit.to_string()),
            ("TIPSTAFF_COMMIT", work.commit.to_string()),
            ("TIPSTAFF_REMOTE", remote_url(&job.task.repository)),
        ];
        let mut spec = compile_spec(
            &warrant,
            SandboxRules {
                identity: prepared.identity.clone(),
                workspace: prepared.workspace.clone(),
                grants: Vec::new(),
                read_only_mounts: prepared.read_only_mounts.clone(),
                home_folders: Vec::new(),
                env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                argv: ["sh", "-c", SCRIPT].into_iter().map(OsString::from).collect(),
                stdio: StdioPolicy::PIPED_OUTPUT,
                agent: false,
            },
        );
        spec.exec = ExecPolicy::InstalledOnly;
        spec.access = Access::ReadWrite;
        let mut running = self.start(spec).await?;
        let listener = running.listener.take().ok_or_else(no_listener)?;
        let served = ServedRepository { name: job.task.repository.clone(), quarantine };
        let broker = self.serve(listener, vec![served], &lesser, control, (None, None, &job.redactor))?;
        let said = read_bounded(running.stderr.take(), SAID);
        let ended = crate::wait::wait_for(&mut running, TIME).await?;
        broker.stop().await;
        match ended {
            Some(exit) if exit.success() => Ok(()),
            Some(_) => {
                let (said, _) = said.await.unwrap_or_default();
                let said = scrub_terminal(&said, Colours::Remove);
                Err(failed(said.lines().last().unwrap_or("git did not say why")))
            }
            None => Err(failed("it took too long")),
        }
    }
}
