//! Limits of the whole process tree: cgroup v1 and v2, whatever of them this server may write.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::SandboxLimits;

/// The beginning of the names of our groups; then the server's pid and a counter.
const PREFIX: &str = "tipstaff-";
/// The scheduler's period, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// bubblewrap's monitor and the first process of the pid namespace, which the run's limit does not count.
const OWN_PROCESSES: u64 = 2;

/// The interface of one controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    One,
    Two,
}

/// What one cgroup controller limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// Where groups can be made.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    /// The parents of v1 groups, one a controller.
    version_one: Vec<(Controller, PathBuf)>,
    /// The parent of v2 groups, and which controllers work there.
    unified: Option<(PathBuf, Vec<Controller>)>,
}

impl Cgroups {
    /// Looks, tries each controller with a real group, and clears away what dead servers left.
    pub(crate) fn detect() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut out = Self::default();
        for controller in Controller::ALL {
            let found = version_one_directory(&membership, &mounts, controller.name());
            out.version_one
                .extend(found.filter(|parent| can_make(parent)).map(|parent| (controller, parent)));
        }
        let held: Vec<_> = out.version_one.iter().map(|(controller, _)| *controller).collect();
        if let Some(own) = unified_directory(&membership, &mounts) {
            out.unified = unified_parent(&own, &held);
        }
        for (_, parent) in &out.version_one {
            sweep(parent);
        }
        if let Some((parent, _)) = &out.unified {
            sweep(parent);
        }
        out.drop_unusable();
        out
    }

    /// Keeps only the controllers whose limit can really be written.
    fn drop_unusable(&mut self) {
        let probe = SandboxLimits::default();
        self.version_one.retain(|(controller, parent)| {
            let directory = fresh(parent);
            let works = fs::create_dir(&directory).is_ok()
                && limit_one(&directory, *controller, &probe).is_ok()
                && open_to_write(&directory.join("tasks")).is_ok();
            let _ = fs::remove_dir(&directory);
            works
        });
        if let Some((parent, controllers)) = &mut self.unified {
            let directory = fresh(parent);
            if fs::create_dir(&directory).is_err() {
                self.unified = None;
                return;
            }
            controllers.retain(|controller| limit_two(&directory, *controller, &probe).is_ok());
            let _ = fs::remove_dir(&directory);
        }
    }

    /// Which interface holds `controller`, if any does.
    pub(crate) fn holder(&self, controller: Controller) -> Option<Version> {
        if self.version_one.iter().any(|(held, _)| *held == controller) {
            return Some(Version::One);
        }
        let (_, controllers) = self.unified.as_ref()?;
        controllers.contains(&controller).then_some(Version::Two)
    }

    /// Whether a whole tree can be killed with one write.
    pub(crate) fn can_kill(&self) -> bool {
        self.unified.is_some()
    }

    /// Makes the groups of one run, with its limits.
    pub(crate) fn create(&self, limits: &SandboxLimits) -> std::io::Result<RunCgroup> {
        let mut run = RunCgroup::default();
        for (controller, parent) in &self.version_one {
            let directory = fresh(parent);
            fs::create_dir(&directory)?;
            run.version_one.push((*controller, directory.clone()));
            limit_one(&directory, *controller, limits)?;
            run.tasks.push(open_to_write(&directory.join("tasks"))?);
        }
        if let Some((parent, controllers)) = &self.unified {
            let directory = fresh(parent);
            fs::create_dir(&directory)?;
            run.unified = Some((directory.clone(), controllers.clone()));
            for controller in controllers {
                limit_two(&directory, *controller, limits)?;
            }
            run.unified_handle = Some(File::open(&directory)?.into());
        }
        Ok(run)
    }
}

/// The groups of one run. Dropping removes them; they must be empty by then.
#[derive(Debug, Default)]
pub(crate) struct RunCgroup {
    version_one: Vec<(Controller, PathBuf)>,
    unified: Option<(PathBuf, Vec<Controller>)>,
    tasks: Vec<File>,
    unified_handle: Option<OwnedFd>,
}

/// What the kernel counted for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) cpu_microseconds: Option<u64>,
    pub(crate) memory_peak_bytes: Option<u64>,
    pub(crate) out_of_memory_kills: u64,
    pub(crate) pids_refusals: u64,
}

impl RunCgroup {
    /// The v1 files into which a process writes `0` to join. (`tasks` moves one thread, which a fresh child is,
    /// without the kernel's global lock that `cgroup.procs` takes.)
    pub(crate) fn join_descriptors(&self) -> Vec<RawFd> {
        self.tasks.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// The v2 group to be born into.
    pub(crate) fn unified_descriptor(&self) -> Option<RawFd> {
        self.unified_handle.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Forgets the descriptors, which only a start needs.
    pub(crate) fn close_descriptors(&mut self) {
        self.tasks.clear();
        self.unified_handle = None;
    }

    /// Kills every process of the run, if the kernel can.
    pub(crate) fn kill(&self) -> bool {
        self.unified
            .as_ref()
            .is_some_and(|(directory, _)| fs::write(directory.join("cgroup.kill"), "1").is_ok())
    }

    /// Whether the kernel can make every process of the run stand still.
    pub(crate) fn can_freeze(&self) -> bool {
        self.unified.as_ref().is_some_and(|(directory, _)| directory.join("cgroup.freeze").exists())
    }

    /// Freezes the run's group, or thaws it. It takes a moment; see [`RunCgroup::is_frozen`].
    pub(crate) fn freeze(&self, frozen: bool) -> bool {
        let value = if frozen { "1" } else { "0" };
        self.unified
            .as_ref()
            .is_some_and(|(directory, _)| put(&directory.join("cgroup.freeze"), value).is_ok())
    }

    /// Whether every process of the run stands still.
    pub(crate) fn is_frozen(&self) -> bool {
        self.unified
            .as_ref()
            .is_some_and(|(directory, _)| keyed(&directory.join("cgroup.events"), "frozen") == Some(1))
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut out = Counters::default();
        for (controller, directory) in &self.version_one {
            match controller {
                Controller::Memory => {
                    out.memory_peak_bytes = number(&directory.join("memory.max_usage_in_bytes"));
                    out.out_of_memory_kills =
                        keyed(&directory.join("memory.oom_control"), "oom_kill").unwrap_or(0);
                }
                Controller::Pids => {
                    out.pids_refusals = keyed(&directory.join("pids.events"), "max").unwrap_or(0);
                }
                Controller::Cpu => {}
            }
        }
        if let Some((directory, controllers)) = &self.unified {
            out.cpu_microseconds = keyed(&directory.join("cpu.stat"), "usage_usec");
            if controllers.contains(&Controller::Memory) {
                out.memory_peak_bytes = number(&directory.join("memory.peak"));
                out.out_of_memory_kills = keyed(&directory.join("memory.events"), "oom_kill").unwrap_or(0);
            }
            if controllers.contains(&Controller::Pids) {
                out.pids_refusals = keyed(&directory.join("pids.events"), "max").unwrap_or(0);
            }
        }
        out
    }

    /// Removes the groups. The kernel lets go of a group's last process a moment after it has been waited for.
    pub(crate) fn remove(&mut self) {
        self.close_descriptors();
        let directories =
            self.version_one.drain(..).map(|(_, path)| path).chain(self.unified.take().map(|(path, _)| path));
        for directory in directories {
            for _ in 0..200 {
                match fs::remove_dir(&directory) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => pause(),
                    _ => break,
                }
            }
        }
    }
}

impl Drop for RunCgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

fn pause() {
    let millisecond = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let _ = rustix::event::poll(&mut [], Some(&millisecond));
}

/// A name that no living group has.
fn fresh(parent: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    parent.join(format!("{PREFIX}{}-{count}", std::process::id()))
}

fn can_make(parent: &Path) -> bool {
    let directory = fresh(parent);
    let made = fs::create_dir(&directory).is_ok();
    let _ = fs::remove_dir(&directory);
    made
}

/// Removes empty groups of servers that no longer exist.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        let Some(Ok(owner)) = owner.map(str::parse::<u32>) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn limit_one(directory: &Path, controller: Controller, limits: &SandboxLimits) -> std::io::Result<()> {
    match controller {
        Controller::Memory => {
            let value = limits.memory_bytes.to_string();
            put(&directory.join("memory.limit_in_bytes"), &value)?;
            // Only where the kernel accounts swap; the file is missing elsewhere.
            let swap = directory.join("memory.memsw.limit_in_bytes");
            if swap.exists() { put(&swap, &value) } else { Ok(()) }
        }
        Controller::Pids => put(&directory.join("pids.max"), &(limits.pids + OWN_PROCESSES).to_string()),
        Controller::Cpu => {
            put(&directory.join("cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
            put(&directory.join("cpu.cfs_quota_us"), &quota(limits).to_string())
        }
    }
}

fn limit_two(directory: &Path, controller: Controller, limits: &SandboxLimits) -> std::io::Result<()> {
    match controller {
        Controller::Memory => {
            put(&directory.join("memory.max"), &limits.memory_bytes.to_string())?;
            let swap = directory.join("memory.swap.max");
            if swap.exists() { put(&swap, "0") } else { Ok(()) }
        }
        Controller::Pids => put(&directory.join("pids.max"), &(limits.pids + OWN_PROCESSES).to_string()),
        Controller::Cpu => put(&directory.join("cpu.max"), &format!("{} {CPU_PERIOD}", quota(limits))),
    }
}

/// Microseconds a period; the kernel takes no less than a millisecond.
fn quota(limits: &SandboxLimits) -> u64 {
    (u64::from(limits.cpu_percent) * CPU_PERIOD / 100).max(1000)
}

fn put(path: &Path, value: &str) -> std::io::Result<()> {
    use std::io::Write;
    open_to_write(path)?.write_all(value.as_bytes())
}

fn open_to_write(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The server's own group of a v1 controller.
fn version_one_directory(membership: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let path = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })?;
    mount_of(mounts, "cgroup", |options| options.split(',').any(|option| option == controller))
        .and_then(|(root, point)| below(&root, &point, path))
}

/// The server's own v2 group.
fn unified_directory(membership: &str, mounts: &str) -> Option<PathBuf> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    mount_of(mounts, "cgroup2", |_| true).and_then(|(root, point)| below(&root, &point, path))
}

fn below(root: &str, point: &str, path: &str) -> Option<PathBuf> {
    let relative = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
    let directory = Path::new(point).join(relative);
    directory.is_dir().then_some(directory)
}

/// The root and the mount point of the first filesystem of that type whose own options fit.
fn mount_of(mounts: &str, kind: &str, fits: impl Fn(&str) -> bool) -> Option<(String, String)> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let (found, _, options) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
        (found == kind && fits(options)).then(|| (root.to_owned(), point.to_owned()))
    })
}

/// Where v2 groups of runs can be made. A group with processes of its own cannot give controllers to children,
/// so first the server's own group is asked, and then its parent, which on a delegated tree is ours too.
fn unified_parent(own: &Path, held: &[Controller]) -> Option<(PathBuf, Vec<Controller>)> {
    let wanted = |directory: &Path| {
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        Controller::ALL
            .into_iter()
            .filter(|controller| !held.contains(controller))
            .filter(|controller| available.split_whitespace().any(|name| name == controller.name()))
            .collect::<Vec<_>>()
    };
    let mut fallback = None;
    for directory in [Some(own), own.parent()].into_iter().flatten() {
        if !directory.join("cgroup.procs").exists() || !can_make(directory) {
            continue;
        }
        let mut enabled = Vec::new();
        for controller in wanted(directory) {
            let order = format!("+{}", controller.name());
            let subtree = directory.join("cgroup.subtree_control");
            let already = fs::read_to_string(&subtree)
                .is_ok_and(|text| text.split_whitespace().any(|name| name == controller.name()));
            if already || put(&subtree, &order).is_ok() {
                enabled.push(controller);
            }
        }
        if !enabled.is_empty() {
            return Some((directory.to_owned(), enabled));
        }
        fallback.get_or_insert_with(|| (directory.to_owned(), Vec::new()));
    }
    fallback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_by_field_not_by_position_from_the_end() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      31 23 0:27 /docker/x /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let pids = mount_of(mounts, "cgroup", |options| options.split(',').any(|option| option == "pids"));
        assert_eq!(pids, Some(("/docker/x".into(), "/sys/fs/cgroup/pids".into())));
        assert_eq!(mount_of(mounts, "cgroup2", |_| true).unwrap().1, "/sys/fs/cgroup/unified");
        assert_eq!(mount_of(mounts, "cgroup", |options| options.contains("cpuset")), None);
    }

    #[test]
    fn a_quota_is_never_below_what_the_kernel_takes() {
        let mut limits = SandboxLimits { cpu_percent: 0, ..SandboxLimits::default() };
        assert_eq!(quota(&limits), 1000);
        limits.cpu_percent = 150;
        assert_eq!(quota(&limits), 150_000);
    }

    #[test]
    fn a_run_gets_its_groups_and_they_go_with_it() {
        let cgroups = Cgroups::detect();
        let run = cgroups.create(&SandboxLimits::default()).unwrap();
        let directories: Vec<_> = run
            .version_one
            .iter()
            .map(|(_, path)| path.clone())
            .chain(run.unified.iter().map(|(path, _)| path.clone()))
            .collect();
        assert!(directories.iter().all(|path| path.is_dir()));
        drop(run);
        assert!(directories.iter().all(|path| !path.exists()));
    }
}
