//! User namespaces that carry nothing but a map of one owner to a run's user, for idmapped mounts.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::mounts::Owner;
use crate::sys;
use crate::{RunIdentity, SandboxError};

/// The maps made so far. One is a descriptor; at most one an owner and run uid.
#[derive(Debug, Default)]
pub(crate) struct OwnerMapCache {
    maps: Mutex<HashMap<(Owner, u32), Arc<OwnedFd>>>,
}

impl OwnerMapCache {
    /// The map by which what `owner` owns on disk appears as `identity`'s.
    pub(crate) fn get(&self, owner: Owner, identity: &RunIdentity) -> Result<Arc<OwnedFd>, SandboxError> {
        let key = (owner, identity.uid());
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = maps.get(&key) {
            return Ok(Arc::clone(map));
        }
        let map = Arc::new(
            make(owner, identity).map_err(SandboxError::io("making the map of a workspace's owner"))?,
        );
        maps.insert(key, Arc::clone(&map));
        Ok(map)
    }
}

/// A namespace lives in a process or a descriptor: a child is born into it, and ends once we hold the descriptor.
fn make(owner: Owner, identity: &RunIdentity) -> std::io::Result<OwnedFd> {
    let (pid, pidfd) = clone_waiting_child().map_err(std::io::Error::from_raw_os_error)?;
    let result = (|| {
        std::fs::write(format!("/proc/{pid}/uid_map"), format!("{} {} 1", owner.uid, identity.uid()))?;
        std::fs::write(format!("/proc/{pid}/gid_map"), format!("{} {} 1", owner.gid, identity.gid()))?;
        Ok(OwnedFd::from(File::open(format!("/proc/{pid}/ns/user"))?))
    })();
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED);
    result
}

#[expect(unsafe_code, reason = "a child in a new user namespace is clone(2) only")]
fn clone_waiting_child() -> Result<(usize, OwnedFd), sys::Errno> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD;
    let place = (&raw mut pidfd) as usize;
    // SAFETY: without CLONE_VM this is fork(2); the child only waits to be killed. The place for the pidfd is live.
    let pid = unsafe { sys::call(libc::SYS_clone, [flags as usize, 0, place, 0, 0, 0]) }?;
    if pid == 0 {
        let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0);
        loop {
            // SAFETY: takes no argument.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: the kernel has just put a fresh descriptor there.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The numbers of the descriptors, for the outer stage.
pub(crate) fn raw(map: &OwnedFd) -> RawFd {
    map.as_raw_fd()
}
