//! The scripted model server for a person: point a real agent at it and put a script into the prompt.
//!
//! `cargo run -p tipstaff-testkit --example model_server -- --port 8099 --key K [--dump FOLDER]`. docs/testing.md has the
//! command lines of the agents.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person's terminal")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tipstaff_testkit::{ModelServer, ModelServerConfig, RecordedRequest};

const USAGE: &str = "usage: model_server [--port N] [--key K] [--dump FOLDER]
  --port N       listen on 127.0.0.1:N (8099)
  --key K        refuse requests without this key
  --dump FOLDER  write every request there, one JSON file each";

struct Options {
    config: ModelServerConfig,
    dump: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { config: ModelServerConfig { port: 8099, ..Default::default() }, dump: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--port" => options.config.port = value.parse().map_err(|_| format!("{value} is no port"))?,
            "--key" => options.config.key = Some(value),
            "--dump" => options.dump = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

fn line(number: usize, request: &RecordedRequest) -> String {
    let mut line = format!("{number:>4} {} {} -> {}", request.method, request.path, request.status);
    let _ = write!(line, " {:?}, {} bytes", request.kind, request.body_length);
    if let Some(model) = &request.model {
        let _ = write!(line, ", {model}");
    }
    line
}

fn dump(folder: &Path, number: usize, request: &RecordedRequest) -> std::io::Result<()> {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let value = serde_json::json!({"method": request.method, "path": request.path, "headers": headers,
        "kind": format!("{:?}", request.kind), "body": request.body});
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(format!("{number:04}.json")), format!("{value:#}\n"))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let server = match ModelServer::start(options.config) {
        Ok(server) => server,
        Err(problem) => {
            eprintln!("cannot start: {problem}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on {}; end it with Ctrl-C", server.url());
    let mut shown = 0;
    loop {
        // A request is shown when the server knows what it is.
        let ready = |request: &RecordedRequest| request.status != 0;
        if !server.wait_for(Duration::from_secs(3600), |all| all.get(shown).is_some_and(ready)) {
            continue;
        }
        for request in server.requests().iter().skip(shown).take_while(|request| ready(request)) {
            println!("{}", line(shown, request));
            for place in server.key_elsewhere() {
                println!("     the key is where it doesn't belong: {place}");
            }
            if let Some(folder) = &options.dump
                && let Err(problem) = dump(folder, shown, request)
            {
                eprintln!("cannot write to {}: {problem}", folder.display());
            }
            shown += 1;
        }
    }
}
