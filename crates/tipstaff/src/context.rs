//! What every command stands on: the state folder, the open store, the person, the sandbox, our git.

use crate::config::Config;
use crate::env::Environment;
use crate::exit::Problem;
use crate::notify::Notifier;
use crate::output::Output;
use anyhow::Context as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tipstaff_broker::{GatewayClient, Git, Mirrors, UpstreamTrust};
use tipstaff_model::{AuditAction, AuditDraft, Clock, Entropy, RunId};
use tipstaff_runner::{Layout, Runner, RunnerConfig, leftovers, remove_leftover};
use tipstaff_sandbox::{Discovery, Sandbox, SandboxConfig, SandboxError, discover_toolchains};
use tipstaff_seal::{KekSource, SystemClock, SystemEntropy};
use tipstaff_store::{LocalPrincipal, OrgScope, Principal, Store, StoreConfig, TakeOver};
use tokio::task::JoinHandle;

/// The open house.
pub(crate) struct Context {
    pub(crate) env: Environment,
    pub(crate) config: Config,
    pub(crate) output: Output,
    pub(crate) layout: Layout,
    pub(crate) store: Store,
    pub(crate) principal: Principal,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    gateway_client: OnceLock<GatewayClient>,
    trust: OnceLock<UpstreamTrust>,
}

/// The state folder.
pub(crate) fn layout(env: &Environment) -> anyhow::Result<Layout> {
    let home = env.home.clone().ok_or_else(|| {
        Problem::usage("home-unknown", "there is no place for the state: set TIPSTAFF_HOME or HOME")
    })?;
    let home =
        std::path::absolute(&home).with_context(|| format!("{} is no usable folder", home.display()))?;
    Ok(Layout::create(home)?)
}

/// Where the ring's key comes from.
pub(crate) fn key_source(env: &Environment, layout: &Layout) -> KekSource {
    match &env.encryption_key {
        Some(key) => KekSource::Hex(tipstaff_seal::Secret::new(key.expose().clone())),
        None if env.keychain => KekSource::Keychain {
            service: "tipstaff".to_owned(),
            account: layout.home().display().to_string(),
            lock: layout.home().join("keychain.lock"),
        },
        None => KekSource::File(layout.ring_key()),
    }
}

/// The user that this process runs as.
pub(crate) fn own_uid() -> anyhow::Result<u32> {
    Ok(std::fs::metadata("/proc/self").context("/proc is not mounted")?.uid())
}

/// How the sandbox is set up on this machine.
pub(crate) fn sandbox_config(env: &Environment, layout: &Layout) -> anyhow::Result<SandboxConfig> {
    let mut config = SandboxConfig::default();
    if let Some(bwrap) = &env.bwrap {
        config.bwrap.clone_from(bwrap);
    }
    // Root shares the identities with every other server of the machine; an ordinary user has only their own.
    if own_uid()? != 0 {
        config.lock_dir = layout.home().join("identities");
    }
    Ok(config)
}

/// The sandbox being tried, and the person's toolchains being looked for, while other things are done.
pub(crate) struct Trying {
    task: JoinHandle<(Result<Sandbox, SandboxError>, Discovery)>,
    identities: PathBuf,
}

/// Begins to try the sandbox.
pub(crate) fn try_sandbox(env: &Environment, layout: &Layout) -> anyhow::Result<Trying> {
    let config = sandbox_config(env, layout)?;
    let identities = config.lock_dir.clone();
    let env = env.clone();
    Ok(Trying {
        task: tokio::task::spawn_blocking(move || (Sandbox::new(config), toolchains(&env))),
        identities,
    })
}

/// What of the person's toolchains a sandbox may read.
pub(crate) fn toolchains(env: &Environment) -> Discovery {
    match &env.user_home {
        Some(home) => discover_toolchains(home, &env.path),
        None => Discovery::default(),
    }
}

/// Our git.
pub(crate) async fn git(env: &Environment, layout: &Layout) -> anyhow::Result<Arc<Git>> {
    let program = Git::find(&env.path)?;
    Ok(Arc::new(Git::open(program, layout.home().join("git")).await?))
}

/// A random name of this installation, kept in the state folder.
fn installation(layout: &Layout, entropy: &dyn Entropy) -> anyhow::Result<String> {
    let path = layout.home().join("installation");
    let read = |path: &Path| {
        std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| text.len() == 32)
    };
    if let Some(name) = read(&path) {
        return Ok(name);
    }
    let mut bytes = [0_u8; 16];
    entropy.fill(&mut bytes);
    let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = layout.home().join(format!("installation-{name}"));
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(name.as_bytes())?;
        file.sync_all()?;
        // The first process wins; the others read what it wrote.
        match std::fs::hard_link(&draft, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::remove_file(&draft),
        }
    };
    write().with_context(|| format!("{} can't be written", path.display()))?;
    read(&path).ok_or_else(|| {
        Problem::failed("installation-unreadable", format!("{} is damaged; remove it", path.display()))
    })
}

impl Context {
    /// Opens everything, and cleans up after processes that died.
    pub(crate) async fn open(env: Environment, output: Output) -> anyhow::Result<Self> {
        let layout = layout(&env)?;
        let config = Config::read(layout.home())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let key = key_source(&env, &layout).load(entropy.as_ref())?;
        let database = match &env.database_url {
            Some(url) => {
                let config = StoreConfig::from_url(url)?;
                match &env.database_owner_url {
                    Some(owner) => config.owner_url(owner.clone()),
                    None => config,
                }
            }
            None => StoreConfig::sqlite(layout.database()),
        };
        let store = Store::open(database, key, Arc::clone(&clock), Arc::clone(&entropy)).await?;
        let person = LocalPrincipal {
            installation: installation(&layout, entropy.as_ref())?,
            uid: own_uid()?,
            name: env.user.clone().unwrap_or_else(|| "person".to_owned()),
        };
        let principal = store.authenticate_local(&person).await?;
        let context = Self {
            env,
            config,
            output,
            layout,
            store,
            principal,
            clock,
            entropy,
            gateway_client: OnceLock::new(),
            trust: OnceLock::new(),
        };
        context.recover().await?;
        Ok(context)
    }

    /// The person's org.
    pub(crate) fn scope(&self) -> &OrgScope {
        &self.principal.scope
    }

    /// Whoever tells the operator about budgets.
    pub(crate) fn notifier(&self) -> Notifier {
        Notifier {
            store: self.store.clone(),
            scope: self.scope().clone(),
            command: self.config.notify.command.clone(),
            home: self.layout.home().to_owned(),
            output: self.output,
        }
    }

    /// The one client for models' providers of this process, made when it is first needed.
    pub(crate) fn gateway_client(&self) -> anyhow::Result<&GatewayClient> {
        if self.gateway_client.get().is_none() {
            // Of two threads that make one, the first is kept.
            let _kept = self.gateway_client.set(GatewayClient::new()?);
        }
        self.gateway_client.get().context("the client for models is missing")
    }

    /// Whom this process trusts to be an inspected host, read when it is first needed.
    pub(crate) fn trust(&self) -> anyhow::Result<UpstreamTrust> {
        if self.trust.get().is_none() {
            let extra = self.config.network.extra_roots(self.layout.home())?;
            let trust = UpstreamTrust::new(&extra)
                .map_err(|error| crate::exit::Problem::usage(error.code(), error.to_string()))?;
            // Of two threads that make one, the first is kept.
            let _kept = self.trust.set(trust);
        }
        self.trust.get().cloned().context("the certificate authorities are missing")
    }

    /// The runner of this machine: it needs a sandbox that holds. `meanwhile` is done while the sandbox is tried.
    pub(crate) async fn runner_while<T>(
        &self,
        git: &Arc<Git>,
        trying: Trying,
        meanwhile: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(Arc<Runner>, T)> {
        let stall = self.config.stall(self.env.stall_warning.as_deref(), self.env.stall_stop.as_deref())?;
        let done = meanwhile.await;
        // No sandbox is the first thing to know.
        let (sandbox, found) = trying.task.await?;
        let runner = Runner::new(RunnerConfig {
            layout: self.layout.clone(),
            sandbox: Arc::new(sandbox?),
            git: Arc::clone(git),
            identities: trying.identities,
            grants: found.grants,
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            bounds: Default::default(),
            allow_private_addresses: Vec::new(),
            host_addresses: Arc::new(self.config.network.host_addresses()?),
            stall,
            layers: self.config.run.layers.unwrap_or(true),
        });
        Ok((Arc::new(runner), done?))
    }

    /// The runner of this machine.
    pub(crate) async fn runner(&self) -> anyhow::Result<Arc<Runner>> {
        let git = git(&self.env, &self.layout).await?;
        let trying = try_sandbox(&self.env, &self.layout)?;
        Ok(self.runner_while(&git, trying, async { Ok(()) }).await?.0)
    }

    /// The mirrors of the person's org.
    pub(crate) fn mirrors(&self, git: &Arc<Git>) -> anyhow::Result<Mirrors> {
        let root = self.layout.mirrors().join(self.scope().org().to_string());
        Ok(Mirrors::new(Arc::clone(git), root, Default::default())?)
    }

    /// Marks the runs of dead processes, and only then removes what they left.
    async fn recover(&self) -> anyhow::Result<()> {
        crate::control::successor::spools_written(self).await?;
        self.notifier().deliver().await;
        for leftover in leftovers(&self.layout)? {
            let run = leftover.run;
            self.mark_interrupted(run, |owner| owner == leftover.owner).await?;
            match crate::landed::correct(self, run).await {
                Ok(false) => {}
                Ok(true) => self.output.warn(&format!(
                    "run {}: its last push was on record and had not landed when its process died; the log says so now",
                    run.short()
                )),
                // What is left stays, and so is asked about again.
                Err(error) => {
                    self.output.warn(&format!(
                        "run {}: whether its last push landed is not known: {error:#}; it is looked at again with the next command",
                        run.short()
                    ));
                    continue;
                }
            }
            crate::kept::keep_leftover(self, run).await;
            let layout = self.layout.clone();
            let removed = tokio::task::spawn_blocking(move || remove_leftover(&layout, leftover)).await?;
            if let Err(error) = removed {
                self.output.warn(&format!("{error}; it is tried again with the next command"));
                continue;
            }
            self.workspace_gone(run).await?;
            self.output.note(&format!(
                "run {} was interrupted: its process died; its workspace is gone",
                run.short()
            ));
        }
        // Runs of this machine that are on record as open and have no lock: the state folder was moved or emptied.
        let mut read = self.store.read(self.scope()).await?;
        let open = read.run_list_open().await?;
        drop(read);
        for run in
            open.into_iter().filter(|run| run.host == self.host() && !self.layout.run_lock(run.id).exists())
        {
            let mine = format!("{}:", self.host());
            self.mark_interrupted(run.id, |owner| owner.starts_with(&mine)).await?;
        }
        Ok(())
    }

    /// Marks a run whose process is dead, if the lease is still the dead one's: another worker may have taken it over.
    async fn mark_interrupted(&self, run: RunId, is_dead: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let mut read = self.store.read(self.scope()).await?;
        let Some(found) = read.run_get(run).await? else { return Ok(()) };
        let task = read.task_get(found.task).await?;
        drop(read);
        let owner = task.and_then(|task| task.lease_owner).filter(|owner| is_dead(owner));
        if let (false, Some(owner)) = (found.state.is_final(), owner) {
            // Owners are named once per run, so nobody alive is meant.
            self.store.task_reap(TakeOver::Dead(&owner), &self.worker_name()).await?;
        }
        Ok(())
    }

    async fn workspace_gone(&self, run: RunId) -> anyhow::Result<()> {
        let mut tx = self.store.begin(self.scope()).await?;
        let Some(found) = tx.run_get(run).await? else { return Ok(()) };
        if found.state.is_final() && found.workspace.is_some() {
            tx.run_workspace_destroyed(run).await?;
            tx.audit_note(AuditDraft::new("system", AuditAction::WorkspaceDestroyed, format!("run:{run}")));
            tx.commit().await?;
        }
        Ok(())
    }

    /// The name of this machine in the table of runs.
    pub(crate) fn host(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
    }

    /// A name for a lease that nobody else ever has.
    pub(crate) fn worker_name(&self) -> String {
        let mut bytes = [0_u8; 8];
        self.entropy.fill(&mut bytes);
        let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{}:{random}", self.host(), std::process::id())
    }

    /// Keeps the newest checkpoint beside the database, so that a log that was cut off shows.
    pub(crate) async fn pin_checkpoint(&self) -> anyhow::Result<()> {
        let mut read = self.store.read(self.scope()).await?;
        let Some(newest) = read.audit_checkpoint().await? else { return Ok(()) };
        drop(read);
        let path = self.layout.pinned_checkpoint(self.scope().org());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))?;
        lock.lock()?;
        let size = |note: &str| note.lines().nth(1).and_then(|line| line.parse::<u64>().ok()).unwrap_or(0);
        let pinned = std::fs::read_to_string(&path).map_or(0, |note| size(&note));
        if size(&newest.note) > pinned {
            write_whole(&path, newest.note.as_bytes())?;
        }
        Ok(())
    }
}

/// Writes a file so that a crash leaves the old or the new content.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let draft: PathBuf = path.with_extension(format!("draft-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}
