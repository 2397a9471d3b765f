//! What the server tells the init stage, on a descriptor: never in arguments or variables.
//!
//! A flat list of length-prefixed fields. The init stage trusts it (it comes from the server, in a sealed file),
//! and still refuses anything malformed.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use crate::landlock::LandlockRule;

/// The descriptor numbers that the init stage finds open.
pub(crate) mod descriptor {
    use std::os::fd::RawFd;

    /// bubblewrap's arguments.
    pub(crate) const ARGUMENTS: RawFd = 3;
    /// bubblewrap reports the pid of the namespace's first process here.
    pub(crate) const INFO: RawFd = 4;
    /// Both stages report here; the listener leaves through it.
    pub(crate) const STATUS: RawFd = 5;
    /// The init stage's orders.
    pub(crate) const ORDERS: RawFd = 6;
    /// The command's standard streams: this one and the next two.
    pub(crate) const STDIO: RawFd = 7;
    /// The program of the init stage.
    pub(crate) const INIT_PROGRAM: RawFd = 10;
    /// The first of the synthetic files.
    pub(crate) const FILES: RawFd = 11;
}

/// The first argument by which a program knows that it is the init stage.
pub(crate) const INIT_ARGUMENT: &str = "--sandbox-init-stage";

/// One resource limit of the command: the kernel's number of it, and the value.
pub(crate) type ResourceLimit = (u32, u64);

/// Everything the init stage has to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Orders {
    pub(crate) listen_port: Option<u16>,
    pub(crate) resource_limits: Vec<ResourceLimit>,
    pub(crate) landlock: Vec<LandlockRule>,
    pub(crate) seccomp: Vec<u8>,
    pub(crate) cwd: CString,
    pub(crate) path: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
}

impl Orders {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8192);
        put_number(&mut out, self.listen_port.map_or(0, u64::from));
        put_number(&mut out, self.resource_limits.len() as u64);
        for (resource, value) in &self.resource_limits {
            put_number(&mut out, u64::from(*resource));
            put_number(&mut out, *value);
        }
        put_number(&mut out, self.landlock.len() as u64);
        for rule in &self.landlock {
            put_bytes(&mut out, rule.path.to_bytes());
            put_number(&mut out, rule.access);
        }
        put_bytes(&mut out, &self.seccomp);
        put_bytes(&mut out, self.cwd.to_bytes());
        for list in [&self.path, &self.argv, &self.env] {
            put_number(&mut out, list.len() as u64);
            for text in list {
                put_bytes(&mut out, text.to_bytes());
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let listen_port = match u16::try_from(reader.number()?).ok()? {
            0 => None,
            port => Some(port),
        };
        let resource_limits =
            reader.list(|reader| Some((u32::try_from(reader.number()?).ok()?, reader.number()?)))?;
        let landlock =
            reader.list(|reader| Some(LandlockRule { path: reader.text()?, access: reader.number()? }))?;
        let seccomp = reader.bytes()?.to_vec();
        let cwd = reader.text()?;
        let path = reader.list(Reader::text)?;
        let argv = reader.list(Reader::text)?;
        let env = reader.list(Reader::text)?;
        if !reader.rest.is_empty() {
            return None;
        }
        Some(Self { listen_port, resource_limits, landlock, seccomp, cwd, path, argv, env })
    }
}

fn put_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.number()?).ok()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<CString> {
        CString::new(self.bytes()?).ok()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(read(self)?);
        }
        Some(out)
    }
}

/// A report of one of the stages, on the status socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The outer stage failed at its step of that index.
    OuterFailed { step: u32, errno: i32 },
    /// The init stage failed.
    InitFailed { step: InitStep, errno: i32 },
    /// The listener comes with this message.
    Listener,
    /// The next thing is the command's execve.
    Ready,
}

/// The steps of the init stage, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum InitStep {
    Orders,
    Streams,
    Listener,
    Capabilities,
    NoNewPrivileges,
    NestedNamespaces,
    Landlock,
    Limits,
    WorkingDirectory,
    Descriptors,
    Seccomp,
    Execute,
}

impl InitStep {
    const ALL: [Self; 12] = [
        Self::Orders,
        Self::Streams,
        Self::Listener,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::NestedNamespaces,
        Self::Landlock,
        Self::Limits,
        Self::WorkingDirectory,
        Self::Descriptors,
        Self::Seccomp,
        Self::Execute,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Streams => "streams",
            Self::Listener => "listener",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::NestedNamespaces => "nested-namespaces",
            Self::Landlock => "landlock",
            Self::Limits => "limits",
            Self::WorkingDirectory => "working-directory",
            Self::Descriptors => "descriptors",
            Self::Seccomp => "seccomp",
            Self::Execute => "execute",
        }
    }
}

impl Report {
    /// The wire form: kind, detail, errno.
    pub(crate) fn encode(self) -> [u8; 9] {
        let (kind, detail, errno) = match self {
            Self::OuterFailed { step, errno } => (b'S', step, errno),
            Self::InitFailed { step, errno } => (b'F', u32::from(step as u8), errno),
            Self::Listener => (b'L', 0, 0),
            Self::Ready => (b'R', 0, 0),
        };
        let mut out = [kind; 9];
        for (slot, byte) in
            out.iter_mut().skip(1).zip(detail.to_le_bytes().into_iter().chain(errno.to_le_bytes()))
        {
            *slot = byte;
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 9] = bytes.try_into().ok()?;
        let [kind, a, b, c, d, e, f, g, h] = *bytes;
        let detail = u32::from_le_bytes([a, b, c, d]);
        let errno = i32::from_le_bytes([e, f, g, h]);
        match kind {
            b'S' => Some(Self::OuterFailed { step: detail, errno }),
            b'F' => {
                Some(Self::InitFailed { step: *InitStep::ALL.get(usize::try_from(detail).ok()?)?, errno })
            }
            b'L' => Some(Self::Listener),
            b'R' => Some(Self::Ready),
            _ => None,
        }
    }
}

/// A string for the kernel; `None` when it has a zero byte.
pub(crate) fn c_string(text: impl AsRef<OsStr>) -> Option<CString> {
    CString::new(text.as_ref().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = CString> {
        proptest::collection::vec(1_u8.., 0..40).prop_map(|bytes| CString::new(bytes).unwrap())
    }

    fn any_orders() -> impl Strategy<Value = Orders> {
        let rule = (text(), any::<u64>()).prop_map(|(path, access)| LandlockRule { path, access });
        let lists = proptest::collection::vec(proptest::collection::vec(text(), 0..5), 3);
        (
            proptest::option::of(1_u16..),
            proptest::collection::vec(any::<(u32, u64)>(), 0..9),
            proptest::collection::vec(rule, 0..9),
            proptest::collection::vec(any::<u8>(), 0..99),
            text(),
            lists,
        )
            .prop_map(|(listen_port, resource_limits, landlock, seccomp, cwd, mut lists)| Orders {
                listen_port,
                resource_limits,
                landlock,
                seccomp,
                cwd,
                path: lists.remove(0),
                argv: lists.remove(0),
                env: lists.remove(0),
            })
    }

    proptest! {
        #[test]
        fn orders_arrive_as_they_were_sent(orders in any_orders()) {
            prop_assert_eq!(Orders::decode(&orders.encode()), Some(orders));
        }

        #[test]
        fn orders_that_were_cut_or_lengthened_are_refused(orders in any_orders(), cut in any::<prop::sample::Index>()) {
            let mut bytes = orders.encode();
            prop_assert_eq!(Orders::decode(&bytes[..cut.index(bytes.len())]), None);
            bytes.push(0);
            prop_assert_eq!(Orders::decode(&bytes), None);
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Orders::decode(&bytes);
            let _ = Report::decode(&bytes);
        }

        #[test]
        fn reports_arrive_as_they_were_sent(step: u32, errno: i32) {
            for report in [Report::OuterFailed { step, errno }, Report::Listener, Report::Ready] {
                prop_assert_eq!(Report::decode(&report.encode()), Some(report));
            }
            for step in InitStep::ALL {
                let report = Report::InitFailed { step, errno };
                prop_assert_eq!(Report::decode(&report.encode()), Some(report));
            }
        }
    }
}
