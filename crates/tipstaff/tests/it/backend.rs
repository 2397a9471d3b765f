//! A git server on loopback: git's own HTTP backend behind a little HTTP server that can also refuse, redirect, stall and
//! hang up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What the server does with a push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Pushes {
    /// Takes it from anybody.
    #[default]
    Open,
    /// Takes it from whoever has this user name and token.
    Needs(String, String),
    /// Answers this status, with this line in the head.
    Answers(&'static str, String),
    /// Says when it has read one, and goes on when told.
    Gated,
}

/// The server.
pub(crate) struct Backend {
    pub(crate) url: String,
    pushes: Arc<Mutex<Pushes>>,
    /// The heads of all requests.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    /// A push was read.
    pub(crate) arrived: Receiver<()>,
    /// What becomes of it: true to carry it out, false to hang up.
    pub(crate) go_on: Sender<bool>,
    /// It was carried out, or not.
    pub(crate) answered: Receiver<()>,
}

struct Shared {
    root: PathBuf,
    pushes: Arc<Mutex<Pushes>>,
    seen: Arc<Mutex<Vec<String>>>,
    arrived: Sender<()>,
    go_on: Mutex<Receiver<bool>>,
    answered: Sender<()>,
}

impl Backend {
    pub(crate) fn serve(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (pushes, seen) = (Arc::new(Mutex::new(Pushes::Open)), Arc::new(Mutex::new(Vec::new())));
        let (arrived, on_arrival) = channel();
        let (go_on, told) = channel();
        let (answered, on_answer) = channel();
        let shared = Arc::new(Shared {
            root,
            pushes: Arc::clone(&pushes),
            seen: Arc::clone(&seen),
            arrived,
            go_on: Mutex::new(told),
            answered,
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { url, pushes, seen, arrived: on_arrival, go_on, answered: on_answer }
    }

    /// What it does with pushes from now on.
    pub(crate) fn pushes(&self, pushes: Pushes) {
        *self.pushes.lock().unwrap() = pushes;
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    shared.seen.lock().unwrap().push(head.join("\n"));
    let header = |name: &str| {
        head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut words = head.first()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let length: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if target.contains("git-receive-pack") || path.ends_with("/info/refs") && query.contains("receive-pack") {
        let refused = match shared.pushes.lock().unwrap().clone() {
            Pushes::Open => None,
            Pushes::Needs(user, token) => {
                let wanted = format!("Basic {}", base64(format!("{user}:{token}").as_bytes()));
                let fits = header("authorization") == Some(wanted);
                (!fits).then(|| ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"forge\"".to_owned()))
            }
            Pushes::Answers(status, line) => Some((status, line)),
            Pushes::Gated => {
                if method == "POST" {
                    shared.arrived.send(()).ok()?;
                    if !shared.go_on.lock().unwrap().recv().ok()? {
                        shared.answered.send(()).ok()?;
                        return None;
                    }
                }
                None
            }
        };
        if let Some((status, line)) = refused {
            write!(stream, "HTTP/1.1 {status}\r\n{line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .ok()?;
            return Some(());
        }
    }
    let output = backend(&shared.root, &method, path, query, &header, body)?;
    let split = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let headers = String::from_utf8_lossy(&output[..split]).into_owned();
    let status =
        headers.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let rest = &output[split + 4..];
    if method == "POST" && target.contains("git-receive-pack") {
        let _nobody_waits = shared.answered.send(());
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        headers,
        rest.len()
    )
    .ok()?;
    stream.write_all(rest).ok()
}

fn backend(
    root: &Path,
    method: &str,
    path: &str,
    query: &str,
    header: &dyn Fn(&str) -> Option<String>,
    body: Vec<u8>,
) -> Option<Vec<u8>> {
    let mut child = Command::new("git")
        .args(["http-backend"])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "http.receivepack")
        .env("GIT_CONFIG_VALUE_1", "true")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("HTTP_AUTHORIZATION", header("authorization").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    std::thread::spawn(move || input.write_all(&body));
    let mut output = Vec::new();
    child.stdout.take()?.read_to_end(&mut output).ok()?;
    child.wait().ok()?;
    Some(output)
}

/// Base64 as HTTP's basic authentication has it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, at| word << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = usize::try_from(word >> (18 - 6 * at) & 63).unwrap();
            out.push(if at <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    out
}
