//! The program behind an engine: where it is, and which version.
//!
//! Promise: an agent's program never runs on the host, not even to say its version: it is asked inside a sandbox with
//! no way out. The answer is kept until the file changes.

use crate::compile::{AGENT_HOME_BYTES, compile_limits};
use crate::runner::Runner;
use crate::wait::wait_for;
use crate::{Layout, RunnerError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tipstaff_engine::{Program, engine};
use tipstaff_model::{EngineKind, Limits};
use tipstaff_sandbox::{ExecPolicy, RunIdentity, SandboxSpec, ToolchainGrant, Workspace};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// How long a program may take to say its version: some start slowly the first time.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is read of its answer, in bytes.
const ANSWER: u64 = 4096;

/// A program that was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundProgram {
    /// Where.
    pub path: PathBuf,
    /// Its version, where it says one that can be read.
    pub version: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known(BTreeMap<PathBuf, Answer>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// The file behind the links, with what tells whether it changed.
    file: PathBuf,
    size: u64,
    modified: i64,
    version: Option<String>,
}

/// Where a sandbox with these grants would find `name`.
#[must_use]
pub fn find_program(name: &str, grants: &[ToolchainGrant]) -> Option<PathBuf> {
    let granted = grants.iter().flat_map(|grant| &grant.path_entries).cloned();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].map(PathBuf::from);
    granted.chain(system).map(|folder| folder.join(name)).find(|path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

impl Runner {
    /// The program of an engine; `None` where the engine brings none of its own.
    ///
    /// # Errors
    /// [`RunnerError::EngineMissing`], [`RunnerError::EngineTooOld`]; errors of the sandbox.
    pub async fn program(&self, kind: EngineKind) -> Result<Option<FoundProgram>, RunnerError> {
        let Some(program) = engine(kind).program() else { return Ok(None) };
        let Some(path) = find_program(program.name, self.grants()) else {
            return Err(RunnerError::EngineMissing {
                engine: kind,
                program: program.name,
                install: program.install,
            });
        };
        let version = self.version(program, &path).await?;
        if let Some(found) = version.as_deref().filter(|found| program.is_too_old(found)) {
            return Err(RunnerError::EngineTooOld {
                engine: kind,
                found: found.to_owned(),
                oldest: program.oldest,
                install: program.install,
            });
        }
        Ok(Some(FoundProgram { path, version }))
    }

    async fn version(&self, program: &'static Program, path: &Path) -> Result<Option<String>, RunnerError> {
        let looking = RunnerError::io("looking at the agent's program");
        let (file, size, modified) = std::fs::canonicalize(path)
            .and_then(|file| {
                let found = file.metadata()?;
                Ok((file, found.len(), found.mtime()))
            })
            .map_err(looking)?;
        let answer = |version| Answer { file: file.clone(), size, modified, version };
        let mut known = read(self.layout());
        if let Some(answered) = known.0.get(path)
            && *answered == answer(answered.version.clone())
        {
            return Ok(answered.version.clone());
        }
        let version = self.ask_version(program).await?;
        known.0.insert(path.to_owned(), answer(version.clone()));
        write(self.layout(), &known);
        Ok(version)
    }

    async fn ask_version(&self, program: &'static Program) -> Result<Option<String>, RunnerError> {
        let identity = RunIdentity::acquire(self.identities())?;
        let argv = std::iter::once(program.name).chain(program.version_args.iter().copied());
        let mut spec = SandboxSpec::new(identity, Workspace::Empty, argv);
        spec.exec = ExecPolicy::InstalledOnly;
        spec.limits = compile_limits(&Limits::default());
        spec.limits.home_bytes = AGENT_HOME_BYTES;
        spec.grants = self.grants().to_vec();
        let mut running = self.start(spec).await?;
        let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
        let read = tokio::spawn(async move {
            let mut text = Vec::new();
            if let Some(Ok(pipe)) = stdout.map(Receiver::from_owned_fd) {
                let mut bounded = pipe.take(ANSWER);
                let _ended = bounded.read_to_end(&mut text).await;
            }
            text
        });
        drop(stderr);
        wait_for(&mut running, PATIENCE).await?;
        let text = read.await.unwrap_or_default();
        Ok(Program::parse_version(&String::from_utf8_lossy(&text)))
    }
}

fn place(layout: &Layout) -> PathBuf {
    layout.home().join("programs.json")
}

fn read(layout: &Layout) -> Known {
    std::fs::read(place(layout))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Keeps what is known. It is only a shortcut: when it can't be kept, the program is asked again.
fn write(layout: &Layout, known: &Known) {
    let draft = place(layout).with_extension(format!("json-{}", std::process::id()));
    if let Ok(text) = serde_json::to_vec(known)
        && std::fs::write(&draft, text).is_ok()
    {
        let _kept = std::fs::rename(&draft, place(layout));
    }
}
