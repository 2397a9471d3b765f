//! Things of the host that no attack may reach: they are really there, and anyone outside may have them.

use std::io::Write;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const MARK: &[u8] = b"CANARY-7f3a\n";

pub(super) struct Canary {
    pub(super) directory: PathBuf,
    pub(super) abstract_name: String,
    pub(super) shared_memory_key: u32,
    pub(super) shared_file: PathBuf,
    pub(super) port_v4: u16,
    pub(super) port_v6: Option<u16>,
    pub(super) process: u32,
}

/// The canaries of this process. They end with it: `at_exit` removes what the kernel would keep.
pub(super) fn canary() -> &'static Canary {
    static CANARY: OnceLock<Canary> = OnceLock::new();
    CANARY.get_or_init(Canary::new)
}

impl Canary {
    #[expect(clippy::zombie_processes, reason = "the process must outlive every test; `clean` ends it")]
    fn new() -> Self {
        let process_id = std::process::id();
        let directory = std::env::temp_dir().join(format!("canary-{process_id}"));
        std::fs::create_dir(&directory).unwrap();
        readable(&directory, 0o755);
        std::fs::write(directory.join("secret.txt"), MARK).unwrap();
        readable(&directory.join("secret.txt"), 0o644);
        let shared_file = PathBuf::from(format!("/dev/shm/canary-{process_id}"));
        std::fs::write(&shared_file, MARK).unwrap();
        readable(&shared_file, 0o644);
        let abstract_name = format!("canary-{process_id}");
        serve_unix(
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap(),
        );
        serve_unix(UnixListener::bind(directory.join("s.sock")).unwrap());
        readable(&directory.join("s.sock"), 0o777);
        let port_v4 = serve_tcp(TcpListener::bind("127.0.0.1:0").unwrap());
        let port_v6 = TcpListener::bind("[::1]:0").ok().map(serve_tcp);
        let shared_memory_key = 0x5752_0000 | (process_id & 0xffff);
        make_segment(shared_memory_key);
        let sleeper = Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn().unwrap();
        let process = sleeper.id();
        register(directory.clone(), shared_file.clone(), process, shared_memory_key);
        Self { directory, abstract_name, shared_memory_key, shared_file, port_v4, port_v6, process }
    }

    /// Nothing may have been left behind by an attack.
    pub(super) fn assert_unharmed(&self, case: &str) {
        assert_eq!(std::fs::read(self.directory.join("secret.txt")).unwrap(), MARK, "{case}");
        let pwned: Vec<_> = std::fs::read_dir(&self.directory)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("pwned"))
            .collect();
        assert!(pwned.is_empty(), "{case} left {pwned:?}");
        let state = std::fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        assert!(
            state.lines().any(|line| line.starts_with("State:\tS")),
            "{case} reached the host's process: {state}"
        );
    }
}

fn readable(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn serve_unix(listener: UnixListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(MARK));
        }
    });
}

fn serve_tcp(listener: TcpListener) -> u16 {
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nCANARY\n")
            });
        }
    });
    port
}

#[expect(unsafe_code, reason = "System V shared memory has no safe binding")]
fn make_segment(key: u32) {
    // SAFETY: makes a segment; no memory is touched.
    let id = unsafe { libc::shmget(key.cast_signed(), 4096, libc::IPC_CREAT | 0o666) };
    assert!(id >= 0, "{}", std::io::Error::last_os_error());
}

struct Leftovers {
    directory: PathBuf,
    shared_file: PathBuf,
    process: u32,
    key: u32,
}

static LEFTOVERS: OnceLock<Leftovers> = OnceLock::new();

#[expect(unsafe_code, reason = "a process-wide end needs the C library")]
fn register(directory: PathBuf, shared_file: PathBuf, process: u32, key: u32) {
    let _ = LEFTOVERS.set(Leftovers { directory, shared_file, process, key });
    // SAFETY: the function lives as long as the program.
    unsafe { libc::atexit(clean) };
}

#[expect(unsafe_code, reason = "System V shared memory and kill(2)")]
extern "C" fn clean() {
    let Some(left) = LEFTOVERS.get() else { return };
    let _ = std::fs::remove_dir_all(&left.directory);
    let _ = std::fs::remove_file(&left.shared_file);
    // SAFETY: removes the segment and ends the process that this process made.
    unsafe {
        let id = libc::shmget(left.key.cast_signed(), 0, 0);
        libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        libc::kill(left.process.cast_signed(), libc::SIGKILL);
    }
}
