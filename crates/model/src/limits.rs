//! The bounds of one run. Every one of them may be lowered by narrowing, none raised.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// What one run may use up. All are upper bounds; none may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time of the run, in milliseconds.
    pub wall_ms: u64,
    /// Processes and threads alive at once.
    pub processes: u64,
    /// Resident memory of the whole process tree, in bytes.
    pub memory_bytes: u64,
    /// CPU in percent of one core; 200 is two cores.
    pub cpu_percent: u64,
    /// Bytes that the run may add to its workspace.
    pub disk_bytes: u64,
    /// Size of a single file, in bytes.
    pub file_bytes: u64,
    /// Open descriptors of one process.
    pub open_files: u64,
    /// Size of `/tmp`, in bytes.
    pub tmp_bytes: u64,
    /// Standard output and standard error together, in bytes; the rest is dropped and counted.
    pub output_bytes: u64,
    /// Bytes of one pushed pack.
    pub push_bytes: u64,
    /// Objects in one pushed pack.
    pub push_objects: u64,
    /// Files that may differ between the base and the pushed tip.
    pub push_files: u64,
    /// Bytes that the run may send to hosts.
    #[serde(default = "sent_bytes", skip_serializing_if = "is_sent_bytes")]
    pub egress_sent_bytes: u64,
    /// Bytes that the run may be sent by hosts.
    #[serde(default = "received_bytes", skip_serializing_if = "is_received_bytes")]
    pub egress_received_bytes: u64,
    /// Tunnels and requests to hosts.
    #[serde(default = "requests", skip_serializing_if = "is_requests")]
    pub egress_requests: u64,
}

// What a warrant means that does not write these bounds. They are part of its form and may not change.
const fn sent_bytes() -> u64 {
    256 * MIB
}
const fn received_bytes() -> u64 {
    10 * 1024 * MIB
}
const fn requests() -> u64 {
    50_000
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_sent_bytes(value: &u64) -> bool {
    *value == sent_bytes()
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_received_bytes(value: &u64) -> bool {
    *value == received_bytes()
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_requests(value: &u64) -> bool {
    *value == requests()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 60 * 60 * 1000,
            processes: 512,
            memory_bytes: 4096 * MIB,
            cpu_percent: 400,
            disk_bytes: 10 * 1024 * MIB,
            file_bytes: 4096 * MIB,
            open_files: 4096,
            tmp_bytes: 256 * MIB,
            output_bytes: 16 * MIB,
            push_bytes: 256 * MIB,
            push_objects: 100_000,
            push_files: 5_000,
            egress_sent_bytes: sent_bytes(),
            egress_received_bytes: received_bytes(),
            egress_requests: requests(),
        }
    }
}

impl Limits {
    /// The names and values, in a fixed order.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 15] {
        [
            ("wall_ms", self.wall_ms),
            ("processes", self.processes),
            ("memory_bytes", self.memory_bytes),
            ("cpu_percent", self.cpu_percent),
            ("disk_bytes", self.disk_bytes),
            ("file_bytes", self.file_bytes),
            ("open_files", self.open_files),
            ("tmp_bytes", self.tmp_bytes),
            ("output_bytes", self.output_bytes),
            ("push_bytes", self.push_bytes),
            ("push_objects", self.push_objects),
            ("push_files", self.push_files),
            ("egress_sent_bytes", self.egress_sent_bytes),
            ("egress_received_bytes", self.egress_received_bytes),
            ("egress_requests", self.egress_requests),
        ]
    }

    /// The lower of the two, bound by bound.
    #[must_use]
    pub fn lowest(&self, other: &Self) -> Self {
        Self {
            wall_ms: self.wall_ms.min(other.wall_ms),
            processes: self.processes.min(other.processes),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            cpu_percent: self.cpu_percent.min(other.cpu_percent),
            disk_bytes: self.disk_bytes.min(other.disk_bytes),
            file_bytes: self.file_bytes.min(other.file_bytes),
            open_files: self.open_files.min(other.open_files),
            tmp_bytes: self.tmp_bytes.min(other.tmp_bytes),
            output_bytes: self.output_bytes.min(other.output_bytes),
            push_bytes: self.push_bytes.min(other.push_bytes),
            push_objects: self.push_objects.min(other.push_objects),
            push_files: self.push_files.min(other.push_files),
            egress_sent_bytes: self.egress_sent_bytes.min(other.egress_sent_bytes),
            egress_received_bytes: self.egress_received_bytes.min(other.egress_received_bytes),
            egress_requests: self.egress_requests.min(other.egress_requests),
        }
    }

    /// Whether no bound of `other` is above this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.rows().iter().zip(other.rows()).all(|((_, mine), (_, theirs))| theirs <= *mine)
    }
}
