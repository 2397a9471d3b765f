//! Repositories from a URL: git's own HTTP backend on loopback.

use crate::world::World;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A little HTTP server in front of `git http-backend`.
struct Backend {
    url: String,
}

impl Backend {
    fn serve(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let root = root.clone();
                std::thread::spawn(move || answer(stream, &root));
            }
        });
        Self { url }
    }
}

fn answer(mut stream: TcpStream, root: &Path) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
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
    let mut child = Command::new("git")
        .args(["http-backend"])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", &method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", length.to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    std::thread::spawn(move || input.write_all(&body));
    let mut output = Vec::new();
    child.stdout.take()?.read_to_end(&mut output).ok()?;
    child.wait().ok()?;
    let split = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let headers = String::from_utf8_lossy(&output[..split]).into_owned();
    let status =
        headers.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let rest = &output[split + 4..];
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        headers,
        rest.len()
    )
    .ok()?;
    stream.write_all(rest).ok()
}

#[test]
fn a_url_is_mirrored_once_and_then_fetched_incrementally() {
    let world = World::new();
    let repository = world.repository("demo");
    world.git(world.path(), &["clone", "-q", "--bare", "demo", "served/acme/site.git"]);
    let backend = Backend::serve(world.path().join("served"));
    let url = format!("{}/acme/site.git", backend.url);
    let run = |script: &str| {
        world.tipstaff(&["run", "--json", "--repo", &url, "--", "sh", "-c", script]).expect(0).json()
    };
    assert_eq!(
        run("git remote get-url origin | grep -q 127.0.0.1:8080/git/acme/site.git && echo x >> README.md")["files_changed"],
        1
    );
    // The next run sees what was pushed meanwhile.
    world.write(&repository.join("later.txt"), "later\n");
    world.commit(&repository, "later");
    world.git(
        &repository,
        &["push", "-q", &format!("{}/served/acme/site.git", world.path().display()), "HEAD:main"],
    );
    assert_eq!(run("test -f later.txt && echo y >> later.txt")["files_changed"], 1);
    // The change can go into any clone.
    world.tipstaff_in(&repository, &["runs", "apply", "--repo", repository.to_str().unwrap()]).expect(0);
    assert_eq!(std::fs::read_to_string(repository.join("later.txt")).unwrap(), "later\ny\n");
    // What is not there says so; credentials never go into a URL.
    let missing = format!("{}/acme/none.git", backend.url);
    let ended = world.tipstaff(&["run", "--repo", &missing, "--", "true"]);
    assert!(matches!(ended.code, Some(2 | 7)) && !ended.stderr.is_empty(), "{ended:#?}");
    let secret =
        world.tipstaff(&["run", "--repo", "https://me:hunter2@example.com/a/b", "--", "true"]).expect(2);
    assert!(!secret.stderr.contains("hunter2"), "{}", secret.stderr);
}

#[test]
fn a_clone_through_the_broker_sees_the_granted_repository_and_no_other() {
    let world = World::new();
    let repository = world.repository("demo");
    world.repository("other");
    world.run_script(&world.path().join("other"), "true").expect(0);
    let script = "git clone -q http://127.0.0.1:8080/git/local/demo.git /tmp/again && test -f /tmp/again/README.md \
                  && ! git clone -q http://127.0.0.1:8080/git/local/other.git /tmp/other";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!(summary["refusals"][0]["rule"], "repository-not-granted");
}

/// A history of `commits` commits over `files` files, written as git's import stream.
fn import_stream(commits: usize, files: usize) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in 0..commits {
        let mark = number + 1;
        writeln!(
            text,
            "commit refs/heads/main\nmark :{mark}\ncommitter A <a@b.c> {} +0000\ndata 1\nx",
            1_700_000_000 + number
        )
        .unwrap();
        if number > 0 {
            writeln!(text, "from :{number}").unwrap();
        }
        let touched: Vec<usize> = if number == 0 { (0..files).collect() } else { vec![number % files] };
        for file in touched {
            let content = format!("file {file} in commit {number}\n").repeat(20);
            writeln!(
                text,
                "M 100644 inline src/d{}/f{file}.txt\ndata {}\n{content}",
                file % 60,
                content.len()
            )
            .unwrap();
        }
    }
    text.into_bytes()
}

#[test]
fn a_large_repository_is_run_on_from_a_path_and_from_a_url() {
    let world = World::new();
    let repository = world.path().join("served/acme/large");
    world.folder(&repository);
    world.git(&repository, &["init", "-q"]);
    let mut import = world.command("git");
    import.current_dir(&repository).args(["fast-import", "--quiet"]).stdin(Stdio::piped());
    let mut import = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&import_stream(20_000, 3_000)).unwrap();
    crate::world::wait(import, std::time::Duration::from_secs(120)).expect(0);
    world.git(&repository, &["reset", "-q", "--hard", "main"]);
    let before = world.picture(&repository);
    let script = "echo hello >> src/d1/f1.txt && git log --oneline | wc -l && git status --short";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!((&summary["files_changed"], &summary["additions"]), (&1.into(), &1.into()));
    assert_eq!(world.picture(&repository), before);
    let backend = Backend::serve(world.path().join("served"));
    let url = format!("{}/acme/large/.git", backend.url);
    let again =
        world.tipstaff(&["run", "--json", "--repo", &url, "--", "sh", "-c", "rm -r src/d2"]).expect(0).json();
    assert_eq!(again["files_changed"], 50);
}
