//! `tipstaff redact`: takes secrets out of text on its way from standard input to standard output.

use crate::cli::RedactArgs;
use crate::exit::Problem;
use crate::output::Output;
use serde_json::json;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use tipstaff_seal::{RedactStream, Redactor};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Carries out `tipstaff redact`.
pub(crate) fn redact(arguments: &RedactArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let redactor = Redactor::new();
    let mut reporter = Reporter { output, enabled: arguments.report };
    if arguments.files.is_empty() {
        filter(&redactor, &mut io::stdin().lock(), None, &mut reporter)?;
    }
    for path in &arguments.files {
        let unreadable = |error: &io::Error| {
            Problem::failed("file-unreadable", format!("{} can't be read: {error}", path.display()))
        };
        let mut file = File::open(path).map_err(|error| unreadable(&error))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(unreadable(&ErrorKind::IsADirectory.into()));
        }
        filter(&redactor, &mut file, Some(path), &mut reporter)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(
    redactor: &Redactor,
    input: &mut dyn Read,
    path: Option<&Path>,
    reporter: &mut Reporter<'_>,
) -> anyhow::Result<()> {
    let mut stream = redactor.stream();
    let mut chunk = vec![0; CHUNK];
    let mut clean = Vec::with_capacity(CHUNK);
    let mut told = 0;
    loop {
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let what =
                    path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
                return Err(Problem::failed("file-unreadable", format!("{what} can't be read on: {error}")));
            }
        };
        clean.clear();
        match chunk.get(..length) {
            Some(bytes) if !bytes.is_empty() => stream.push(bytes, &mut clean),
            _ => stream.finish(&mut clean),
        }
        reporter.output.bytes(&clean);
        told = reporter.tell(&stream, told, path);
        if length == 0 {
            reporter.total(&stream, path);
            return Ok(());
        }
    }
}

struct Reporter<'a> {
    output: &'a Output,
    enabled: bool,
}

impl Reporter<'_> {
    /// Reports what was found since `told`; says how many were told by now.
    fn tell(&self, stream: &RedactStream, told: usize, path: Option<&Path>) -> usize {
        if self.enabled {
            for finding in stream.findings().iter().skip(told) {
                if self.output.json {
                    let mut object =
                        json!({"rule": finding.rule, "offset": finding.offset, "length": finding.length});
                    if let (Some(path), Some(fields)) = (path, object.as_object_mut()) {
                        fields.insert("file".to_owned(), path.to_string_lossy().into());
                    }
                    say(&object.to_string());
                } else {
                    let place = path.map_or_else(String::new, |path| format!("{}: ", path.display()));
                    say(&format!(
                        "{place}{} at byte {}, {} bytes",
                        finding.rule, finding.offset, finding.length
                    ));
                }
            }
        }
        stream.findings().len()
    }

    /// Says when there were more than a report lists.
    fn total(&self, stream: &RedactStream, path: Option<&Path>) {
        let total: u64 = stream.counts().values().sum();
        if self.enabled && total > stream.findings().len() as u64 {
            let listed = stream.findings().len();
            if self.output.json {
                say(&json!({"total": total, "listed": listed}).to_string());
            } else {
                let place = path.map_or_else(String::new, |path| format!("{}: ", path.display()));
                say(&format!("{place}{total} in all; the first {listed} are listed"));
            }
        }
    }
}

/// One line on standard error. Nobody may be reading it, which is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
