//! From a description to a running command.

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::arguments::{self, Arguments, OwnerMaps, Sources};
use crate::cgroup::RunCgroup;
use crate::mounts::{Layer, MountTable, Owner, Source, Staged};
use crate::protocol::{InitStep, Orders, Report, c_string, descriptor};
use crate::running::Tree;
use crate::stage::{self, Launch, StageOperation};
use crate::sys::PointerList;
use crate::{
    BROKER_PORT, BrokerListener, RunIdentity, Running, Sandbox, SandboxError, SandboxSpec, Stdio,
    environment, launcher, limits, seccomp,
};

/// How long a start may take before it is given up, in seconds.
const START_SECONDS: i64 = 20;

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
        let mut operations = arguments::stage_operations(&table, &self.layout, &spec.identity, &maps)?;
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
        drop(held_maps);
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
        for owner in table.entries.iter().filter_map(mapped_owner) {
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

fn mapped_owner(entry: &crate::mounts::Entry) -> Option<Owner> {
    match &entry.source {
        Source::Staged(Staged::Copy { idmap, .. } | Staged::Overlay { idmap, .. }) => *idmap,
        _ => None,
    }
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

/// All descriptors of a start.
struct Ends {
    near: NearEnds,
    far: FarEnds,
}

/// What the server keeps.
struct NearEnds {
    status: OwnedFd,
    info: OwnedFd,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// What the child gets.
struct FarEnds {
    status: OwnedFd,
    info: OwnedFd,
    null: OwnedFd,
    diagnosis: File,
    arguments: OwnedFd,
    orders: OwnedFd,
    streams: [Stream; 3],
    files: Vec<OwnedFd>,
}

enum Stream {
    Own(OwnedFd),
    Inherited(RawFd),
}

impl Stream {
    fn raw(&self) -> RawFd {
        match self {
            Self::Own(fd) => fd.as_raw_fd(),
            Self::Inherited(fd) => *fd,
        }
    }
}

impl Ends {
    fn open(spec: &SandboxSpec, bubblewrap: &Arguments, orders: &Orders) -> Result<Self, SandboxError> {
        Self::open_all(spec, bubblewrap, orders)
            .map_err(SandboxError::io("opening the descriptors of a sandbox"))
    }

    fn open_all(spec: &SandboxSpec, bubblewrap: &Arguments, orders: &Orders) -> std::io::Result<Self> {
        let (status, far_status) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (info, far_info) = pipe_with(PipeFlags::CLOEXEC)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let (stdin, far_stdin) = stream(spec.stdio.stdin, 0, &null)?;
        let (stdout, far_stdout) = stream(spec.stdio.stdout, 1, &null)?;
        let (stderr, far_stderr) = stream(spec.stdio.stderr, 2, &null)?;
        let files = bubblewrap
            .files
            .iter()
            .map(|text| memory_file(text.as_bytes()))
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            near: NearEnds { status, info, stdin, stdout, stderr },
            far: FarEnds {
                status: far_status,
                info: far_info,
                null,
                diagnosis: rustix::fs::memfd_create("diagnosis", MemfdFlags::CLOEXEC)?.into(),
                arguments: memory_file(&bubblewrap.bytes())?,
                orders: memory_file(&orders.encode())?,
                streams: [far_stdin, far_stdout, far_stderr],
                files,
            },
        })
    }

    fn descriptors(&self) -> Vec<(RawFd, RawFd)> {
        let far = &self.far;
        let mut out = vec![
            (far.null.as_raw_fd(), 0),
            (far.null.as_raw_fd(), 1),
            (far.diagnosis.as_raw_fd(), 2),
            (far.arguments.as_raw_fd(), descriptor::ARGUMENTS),
            (far.info.as_raw_fd(), descriptor::INFO),
            (far.status.as_raw_fd(), descriptor::STATUS),
            (far.orders.as_raw_fd(), descriptor::ORDERS),
        ];
        out.extend(far.streams.iter().map(Stream::raw).zip(descriptor::STDIO..));
        out.extend(far.files.iter().map(AsRawFd::as_raw_fd).zip(descriptor::FILES..));
        out
    }
}

/// The near and the far end of one standard stream.
fn stream(how: Stdio, number: RawFd, null: &OwnedFd) -> std::io::Result<(Option<OwnedFd>, Stream)> {
    match how {
        Stdio::Null => Ok((None, Stream::Own(null.try_clone()?))),
        Stdio::Inherit => Ok((None, Stream::Inherited(number))),
        Stdio::Pipe => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            let (near, far) = if number == 0 { (write, read) } else { (read, write) };
            Ok((Some(near), Stream::Own(far)))
        }
    }
}

/// A file in memory, read from its beginning.
fn memory_file(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("orders", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

enum Outcome {
    Running {
        listener: Option<OwnedFd>,
    },
    Failed(Report),
    /// Nobody reported: bubblewrap failed.
    Silent,
}

/// Reads reports until the socket closes, which the command's execve does.
fn follow(status: BorrowedFd<'_>) -> Result<Outcome, SandboxError> {
    let mut listener = None;
    let mut ready = false;
    loop {
        let mut bytes = [0_u8; 9];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        await_report(status)?;
        let received = rustix::net::recvmsg(
            status,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let count = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(SandboxError::io("hearing from a starting sandbox")(error.into())),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                listener = descriptors.next().or(listener);
            }
        }
        match Report::decode(bytes.get(..count).unwrap_or_default()) {
            Some(Report::Listener) => {}
            Some(Report::Ready) => ready = true,
            Some(failure) => return Ok(Outcome::Failed(failure)),
            None if ready => return Ok(Outcome::Running { listener }),
            None => return Ok(Outcome::Silent),
        }
    }
}

fn await_report(status: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let patience = Timespec { tv_sec: START_SECONDS, tv_nsec: 0 };
    let mut watched = [PollFd::from_borrowed_fd(status, PollFlags::IN)];
    loop {
        match poll(&mut watched, Some(&patience)) {
            Ok(0) => {
                let detail = format!("nothing was heard for {START_SECONDS} seconds");
                return Err(SandboxError::StartFailed { step: "start", detail });
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SandboxError::io("hearing from a starting sandbox")(error.into())),
        }
    }
}

/// bubblewrap tells the pid of the namespace's first process as JSON, before it lets it go on.
fn first_process(info: &OwnedFd) -> Option<OwnedFd> {
    let mut bytes = [0_u8; 512];
    let flags = rustix::fs::fcntl_getfl(info).ok()?;
    rustix::fs::fcntl_setfl(info, flags | OFlags::NONBLOCK).ok()?;
    let count = rustix::io::read(info, &mut bytes).ok()?;
    let text = std::str::from_utf8(bytes.get(..count)?).ok()?;
    let (_, rest) = text.split_once("\"child-pid\":")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    pidfd_open(Pid::from_raw(digits.parse().ok()?)?, PidfdFlags::empty()).ok()
}

fn explain_report(
    report: Report,
    spec: &SandboxSpec,
    names: &[(&'static str, Option<CString>)],
    bwrap: &CString,
) -> SandboxError {
    let path_of = |path: &Option<CString>| {
        path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    match report {
        Report::OuterFailed { step, errno } => {
            let source = std::io::Error::from_raw_os_error(errno);
            match names.get(step as usize) {
                Some(("idmapped-mount", path)) => {
                    SandboxError::IdMapUnsupported { path: path_of(path).into(), source }
                }
                Some(("overlay", path)) => {
                    let lower = match &spec.workspace {
                        crate::Workspace::Overlay { lower, .. } => lower.clone(),
                        _ => path_of(path).into(),
                    };
                    SandboxError::OverlayUnsupported { path: lower, source }
                }
                Some(("user-map", _)) => crate::sandbox::namespaces_refused(&source),
                Some((name, path)) => {
                    SandboxError::StartFailed { step: name, detail: format!("{}: {source}", path_of(path)) }
                }
                None if step == u32::MAX => {
                    SandboxError::BubblewrapMissing { path: bwrap.to_string_lossy().into_owned().into() }
                }
                None => {
                    SandboxError::StartFailed { step: stage::step_name(step), detail: source.to_string() }
                }
            }
        }
        Report::InitFailed { step: InitStep::Execute, errno } => SandboxError::CommandUnusable {
            program: spec.argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default(),
            reason: match errno {
                libc::ENOENT => "it is not there, or its interpreter is not".into(),
                libc::EACCES => "it is not executable, or may not be executed under this policy".into(),
                other => std::io::Error::from_raw_os_error(other).to_string(),
            },
        },
        Report::InitFailed { step: InitStep::WorkingDirectory, errno } => SandboxError::spec(format!(
            "the directory {} cannot be entered: {}",
            spec.cwd.display(),
            std::io::Error::from_raw_os_error(errno)
        )),
        Report::InitFailed { step, errno } => SandboxError::StartFailed {
            step: step.name(),
            detail: std::io::Error::from_raw_os_error(errno).to_string(),
        },
        Report::Listener | Report::Ready => {
            SandboxError::StartFailed { step: "start", detail: "a report came out of order".into() }
        }
    }
}

fn explain_bubblewrap(said: &str) -> SandboxError {
    let namespace_words =
        ["new namespace", "uid map", "unprivileged user", "user namespaces", "CLONE_NEWUSER"];
    if namespace_words.iter().any(|words| said.contains(words)) {
        return crate::sandbox::namespaces_refused(&std::io::Error::other(said.to_owned()));
    }
    let detail = if said.is_empty() { "bubblewrap ended without a word".into() } else { said.to_owned() };
    SandboxError::StartFailed { step: "bubblewrap", detail }
}
