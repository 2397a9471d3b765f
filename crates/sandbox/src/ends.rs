//! The descriptors of a start: what the server keeps and what the child gets.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::arguments::Arguments;
use crate::protocol::{Orders, descriptor};
use crate::{SandboxError, SandboxSpec, Stdio};

/// All descriptors of a start.
pub(crate) struct Ends {
    pub(crate) near: NearEnds,
    pub(crate) far: FarEnds,
}

/// What the server keeps.
pub(crate) struct NearEnds {
    pub(crate) status: OwnedFd,
    pub(crate) info: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// What the child gets.
pub(crate) struct FarEnds {
    pub(crate) status: OwnedFd,
    pub(crate) info: OwnedFd,
    null: OwnedFd,
    pub(crate) diagnosis: File,
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
    pub(crate) fn open(
        spec: &SandboxSpec,
        bubblewrap: &Arguments,
        orders: &Orders,
    ) -> Result<Self, SandboxError> {
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

    pub(crate) fn descriptors(&self) -> Vec<(RawFd, RawFd)> {
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
