//! From a description to a running command.

use std::ffi::CString;
use std::io::{Read, Seek};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::arguments::{self, LayerNumbers, OwnerMaps, Sources};
use crate::cgroup::RunCgroup;
use crate::ends::Ends;
use crate::follow::{Outcome, explain_bubblewrap, explain_report, first_process, follow};
use crate::mounts::{Layer, MountTable, Owner, Source, Staged};
use crate::protocol::{Orders, c_string, descriptor};
use crate::running::Tree;
use crate::stage::{Launch, StageOperation};
use crate::sys::PointerList;
use crate::{
    BROKER_PORT, BrokerListener, RunIdentity, Running, Sandbox, SandboxError, SandboxSpec, environment,
    launcher, limits, seccomp,
};

impl Sandbox {
    /// Starts the command. Returns once it has been executed inside (or has failed to be).
    ///
    /// # Errors
    /// Every [`SandboxError`]; nothing is left running.
    pub fn start(&self, spec: &SandboxSpec) -> Result<Running, SandboxError> {
        let table = MountTable::compile(spec, &self.layout)?;
        let orders = orders(spec, &table)?;
        prepare_overlays(&table, spec)?;
        let (maps, held_maps) = self.owner_maps(&table, spec)?;
        let bubblewrap = arguments::bubblewrap(&table, &self.layout, Sources::Staged);
        let reserved = [reserve_number()?, reserve_number()?];
        let [upper, work] = reserved.each_ref().map(AsRawFd::as_raw_fd);
        let numbers = LayerNumbers { upper, work };
        let mut operations =
            arguments::stage_operations(&table, &self.layout, &spec.identity, &maps, numbers)?;
        let cgroup =
            self.cgroups.create(&spec.limits).map_err(SandboxError::io("making the run's cgroup"))?;
        frame_operations(&mut operations, spec, &cgroup)?;
        let ends = Ends::open(spec, &bubblewrap, &orders)?;
        let launch = Launch {
            operations,
            descriptors: self.descriptors(&ends),
            program: self.bwrap.clone(),
            argv: self.bwrap_arguments(),
            envp: PointerList::new(Vec::new()),
            clone_flags: clone_flags(spec),
            cgroup: cgroup.unified_descriptor(),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
        };
        let names: Vec<_> =
            launch.operations.iter().map(|operation| (operation.name(), operation.path().cloned())).collect();
        let child = launcher::fork(launch)?;
        drop((held_maps, reserved));
        self.accompany(spec, ends, &names, child, cgroup)
    }

    /// bubblewrap alone, with the same arguments and user, and no layer of ours: what a start is compared with.
    /// Runs `true`; the sources of staged mounts are stand-ins of the same kind.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn baseline(&self, spec: &SandboxSpec) -> Result<Baseline, SandboxError> {
        let table = MountTable::compile(spec, &self.layout)?;
        let bubblewrap = arguments::bubblewrap(&table, &self.layout, Sources::StandIns);
        let ends = Ends::open(spec, &bubblewrap, &Orders::default())?;
        let argv = [c"bwrap", c"--args", c"3", c"--", c"/usr/bin/true"].map(CString::from).to_vec();
        let mut operations = Vec::new();
        if spec.identity.is_dedicated() {
            operations.push(StageOperation::Become { uid: spec.identity.uid() });
        }
        let launch = Launch {
            operations,
            descriptors: self.descriptors(&ends),
            program: self.bwrap.clone(),
            argv: PointerList::new(argv),
            envp: PointerList::new(Vec::new()),
            clone_flags: 0,
            cgroup: None,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
        };
        Ok(Baseline { monitor: launcher::fork(launch)?.pidfd, _identity: spec.identity.clone() })
    }

    /// Follows the stages' reports until the command runs.
    fn accompany(
        &self,
        spec: &SandboxSpec,
        ends: Ends,
        names: &[(&'static str, Option<CString>)],
        child: launcher::Child,
        mut cgroup: RunCgroup,
    ) -> Result<Running, SandboxError> {
        cgroup.close_descriptors();
        let Ends { near, far } = ends;
        let mut diagnosis = far.diagnosis.try_clone().map_err(SandboxError::io("copying a descriptor"))?;
        drop(far);
        let mut tree = Tree {
            monitor: child.pidfd,
            first: None,
            cgroup,
            _identity: spec.identity.clone(),
            counters: None,
            killed: false,
            paused: None,
            exit: None,
        };
        let outcome = follow(near.status.as_fd());
        tree.first = first_process(&near.info);
        let listener = match outcome {
            Ok(Outcome::Running { listener }) => listener,
            Ok(Outcome::Failed(report)) => return Err(explain_report(report, spec, names, &self.bwrap)),
            Ok(Outcome::Silent) => {
                let _ = tree.kill();
                let mut said = String::new();
                let _ = diagnosis.rewind();
                let _ = diagnosis.read_to_string(&mut said);
                return Err(explain_bubblewrap(said.trim()));
            }
            Err(error) => return Err(error),
        };
        if (spec.broker == BrokerListener::HandedOut) != listener.is_some() {
            return Err(SandboxError::StartFailed {
                step: "listener",
                detail: "the listener was not handed out as asked".into(),
            });
        }
        Ok(Running {
            stdin: near.stdin,
            stdout: near.stdout,
            stderr: near.stderr,
            listener: listener.map(TcpListener::from),
            tree,
        })
    }

    fn descriptors(&self, ends: &Ends) -> Vec<(RawFd, RawFd)> {
        let mut out = ends.descriptors();
        out.push((self.layout.init_program.as_raw_fd(), descriptor::INIT_PROGRAM));
        out
    }

    fn bwrap_arguments(&self) -> PointerList {
        let mut argv = vec![c"bwrap".to_owned(), c"--args".to_owned()];
        argv.extend(c_string(descriptor::ARGUMENTS.to_string()));
        argv.push(c"--".to_owned());
        argv.extend(arguments::init_command().iter().filter_map(c_string));
        PointerList::new(argv)
    }

    fn owner_maps(
        &self,
        table: &MountTable,
        spec: &SandboxSpec,
    ) -> Result<(OwnerMaps, Vec<Arc<OwnedFd>>), SandboxError> {
        let mut maps = OwnerMaps::new();
        let mut held = Vec::new();
        for owner in table.entries.iter().flat_map(mapped_owners) {
            let map = self.owner_maps.get(owner, &spec.identity)?;
            maps.insert(owner, crate::idmap::raw(&map));
            held.push(map);
        }
        Ok((maps, held))
    }
}

/// bubblewrap alone; see [`Sandbox::baseline`].
#[derive(Debug)]
pub struct Baseline {
    monitor: OwnedFd,
    _identity: RunIdentity,
}

impl Baseline {
    /// Blocks until it has ended; gives its exit code.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses the wait.
    pub fn wait(self) -> Result<i32, SandboxError> {
        let status = waitid(WaitId::PidFd(self.monitor.as_fd()), WaitIdOptions::EXITED)
            .map_err(|error| SandboxError::io("waiting for bubblewrap")(error.into()))?;
        Ok(status.and_then(|status| status.exit_status()).unwrap_or(255))
    }
}

/// A descriptor that only takes up its number.
fn reserve_number() -> Result<OwnedFd, SandboxError> {
    rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| SandboxError::io("reserving a descriptor")(error.into()))
}

/// The owners whose files have to appear as the run's user's.
fn mapped_owners(entry: &crate::mounts::Entry) -> impl Iterator<Item = Owner> {
    let owners = match &entry.source {
        Source::Staged(Staged::Copy { idmap, .. }) => [*idmap, None],
        Source::Staged(Staged::Overlay { idmap, over, .. }) => {
            [*idmap, over.as_ref().and_then(|(_, owner)| *owner)]
        }
        _ => [None, None],
    };
    owners.into_iter().flatten()
}

/// What the init stage has to do for this description.
pub(crate) fn orders(spec: &SandboxSpec, table: &MountTable) -> Result<Orders, SandboxError> {
    let zero = |what: &str| SandboxError::spec(format!("{what} has a zero byte"));
    if spec.argv.is_empty() {
        return Err(SandboxError::spec("there is no command"));
    }
    if !spec.cwd.is_absolute() {
        return Err(SandboxError::spec(format!("the directory {} is not absolute", spec.cwd.display())));
    }
    let strings =
        |list: Vec<String>| list.into_iter().map(|text| c_string(text).ok_or_else(|| zero("a variable")));
    let variables = environment::compose(&spec.grants, &spec.env)?;
    Ok(Orders {
        listen_port: (spec.broker == BrokerListener::HandedOut).then_some(BROKER_PORT),
        resource_limits: limits::resource_limits(&spec.limits),
        landlock: table.landlock.clone(),
        seccomp: seccomp::filter(spec.exec).to_vec(),
        cwd: c_string(&spec.cwd).ok_or_else(|| zero("the directory"))?,
        path: strings(environment::path_directories(&spec.grants)).collect::<Result<_, _>>()?,
        argv: spec
            .argv
            .iter()
            .map(|word| c_string(word).ok_or_else(|| zero("an argument")))
            .collect::<Result<_, _>>()?,
        env: strings(variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
            .collect::<Result<_, _>>()?,
    })
}

/// Makes an overlay's own directories, owned by the run's user.
fn prepare_overlays(table: &MountTable, spec: &SandboxSpec) -> Result<(), SandboxError> {
    for entry in &table.entries {
        let Source::Staged(Staged::Overlay { layer: Some(layer), .. }) = &entry.source else { continue };
        let action = SandboxError::io("making the directories of a workspace's layer");
        prepare_layer(layer, spec).map_err(action)?;
    }
    Ok(())
}

fn prepare_layer(layer: &Layer, spec: &SandboxSpec) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(state) = layer.upper.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    }
    for (path, mode) in [(&layer.upper, 0o755), (&layer.work, 0o700)] {
        match std::fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => own(path, spec)?,
        }
    }
    Ok(())
}

fn own(path: &Path, spec: &SandboxSpec) -> std::io::Result<()> {
    if !spec.identity.is_dedicated() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(spec.identity.uid()), Some(spec.identity.gid()))
}

/// What comes before and after the mounts.
fn frame_operations(
    operations: &mut Vec<StageOperation>,
    spec: &SandboxSpec,
    cgroup: &RunCgroup,
) -> Result<(), SandboxError> {
    let mut first: Vec<_> =
        cgroup.join_descriptors().into_iter().map(|tasks| StageOperation::JoinCgroup { tasks }).collect();
    if spec.identity.is_dedicated() {
        operations.push(StageOperation::Become { uid: spec.identity.uid() });
    } else {
        let (uid, gid) = (spec.identity.uid(), spec.identity.gid());
        let maps = [
            (c"/proc/self/setgroups", "deny".to_owned()),
            (c"/proc/self/uid_map", format!("{uid} {uid} 1")),
            (c"/proc/self/gid_map", format!("{gid} {gid} 1")),
        ];
        first.extend(
            maps.into_iter().map(|(path, text)| StageOperation::Write {
                path: path.to_owned(),
                bytes: text.into_bytes(),
            }),
        );
    }
    operations.splice(0..0, first);
    Ok(())
}

/// Root makes a mount namespace; an ordinary user needs a user namespace round it.
fn clone_flags(spec: &SandboxSpec) -> u64 {
    let user = if spec.identity.is_dedicated() { 0 } else { libc::CLONE_NEWUSER };
    u64::from((libc::CLONE_NEWNS | user).cast_unsigned())
}
