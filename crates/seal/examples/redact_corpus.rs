//! Redacts every file of a folder and says how much time of the processor that took: `redact_corpus FOLDER [SPANS]`.
//! Reading the files isn't counted. Writes the findings, without the values, as JSON Lines to SPANS.

use std::io::Write as _;
use tipstaff_seal::Redactor;

/// Processor time of this process so far, in nanoseconds.
fn cpu_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: redact_corpus FOLDER [SPANS]")?;
    let mut spans = arguments.next().map(std::fs::File::create).transpose()?.map(std::io::BufWriter::new);
    let redactor = Redactor::new();
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    let (mut bytes, mut elapsed, mut findings) = (0, 0, 0);
    for file in files.iter().filter(|file| file.is_file()) {
        let input = std::fs::read(file)?;
        let mut out = Vec::with_capacity(1 << 20);
        let mut stream = redactor.stream();
        let started = cpu_ns();
        for chunk in input.chunks(64 * 1024) {
            out.clear();
            stream.push(chunk, &mut out);
        }
        stream.finish(&mut out);
        elapsed += cpu_ns() - started;
        bytes += input.len();
        findings += stream.findings().len();
        if let Some(spans) = &mut spans {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            for finding in stream.findings() {
                let line = serde_json::json!({
                    "file": name, "off": finding.offset, "len": finding.length, "rule": finding.rule,
                });
                writeln!(spans, "{line}")?;
            }
        }
    }
    let cpu_us = (elapsed / 1_000).max(1);
    let line = serde_json::json!({
        "bytes": bytes, "cpu_us": cpu_us, "mb_per_cpu_s": i64::try_from(bytes)? / cpu_us, "findings": findings,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
