//! The settings that every git of ours runs with, wherever it runs.
//!
//! They travel twice. The environment (`GIT_CONFIG_COUNT`) outranks a repository's own configuration, but git drops
//! it for the `upload-pack` that a local fetch starts; the private global file survives there. Neither reads
//! anything of the person's or the machine's own configuration.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Settings that no repository may override, as `section.key`, value.
pub(super) const FORCED: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.askPass", "false"),
    ("core.sshCommand", "false"),
    ("core.pager", "cat"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.packedGitWindowSize", "32m"),
    ("core.packedGitLimit", "512m"),
    ("core.bigFileThreshold", "32m"),
    ("credential.helper", ""),
    ("fetch.fsckObjects", "true"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.unpackLimit", "1"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("gpg.program", "false"),
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    ("log.showSignature", "false"),
    ("maintenance.auto", "false"),
    ("pack.threads", "2"),
    ("pack.windowMemory", "256m"),
    ("protocol.allow", "never"),
    ("receive.fsckObjects", "true"),
    ("submodule.recurse", "false"),
    ("transfer.fsckObjects", "true"),
    ("transfer.bundleURI", "false"),
    ("user.useConfigOnly", "true"),
];

/// Old commits of real repositories carry faults that only matter in something new. A fetch tolerates these, a push
/// does not.
pub(super) const FETCH_TOLERATES: &[(&str, &str)] = &[
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.missingEmail", "ignore"),
    ("fetch.fsck.missingNameBeforeEmail", "ignore"),
    ("fetch.fsck.badDate", "ignore"),
    ("fetch.fsck.badDateOverflow", "ignore"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.badFilemode", "ignore"),
    ("fetch.fsck.nulInCommit", "ignore"),
    ("fetch.fsck.missingTaggerEntry", "ignore"),
    ("fetch.fsck.badTagName", "ignore"),
    ("fetch.fsck.gitmodulesParse", "ignore"),
    ("fetch.fsck.gitmodulesLarge", "ignore"),
];

/// Settings for the `upload-pack` that a local fetch starts in a source: it gives any commit that is asked for, since
/// the one who asks is the person at the terminal.
const SOURCE_ONLY: &[(&str, &str)] =
    &[("uploadpack.allowAnySHA1InWant", "true"), ("uploadpack.allowFilter", "true")];

/// The text of a private global configuration file. `safe` are the directories, possibly of other owners, that this
/// one command may read.
pub(super) fn global_file(safe: &[PathBuf]) -> Vec<u8> {
    let mut text = b"# Written by tipstaff; read by its own git and nothing else.\n".to_vec();
    for (key, value) in FORCED.iter().chain(FETCH_TOLERATES) {
        entry(&mut text, key, OsStr::new(value));
    }
    if !safe.is_empty() {
        for (key, value) in SOURCE_ONLY {
            entry(&mut text, key, OsStr::new(value));
        }
    }
    for directory in safe {
        entry(&mut text, "safe.directory", directory.as_os_str());
    }
    text
}

/// One setting as a section of its own: git reads `[a "b"]` and `[a]` by the same rules.
fn entry(text: &mut Vec<u8>, key: &str, value: &OsStr) {
    let (section, name) = key.rsplit_once('.').unwrap_or(("core", key));
    match section.split_once('.') {
        Some((section, sub)) => {
            text.extend_from_slice(format!("[{section} \"{sub}\"]\n\t{name} = ").as_bytes())
        }
        None => text.extend_from_slice(format!("[{section}]\n\t{name} = ").as_bytes()),
    }
    text.extend_from_slice(quoted(value).as_bytes());
    text.push(b'\n');
}

/// A value in the quoting of git's configuration files, whatever bytes it has.
pub(crate) fn quoted(value: &OsStr) -> OsString {
    let mut out = vec![b'"'];
    for byte in value.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            other => out.push(*other),
        }
    }
    out.push(b'"');
    OsString::from_vec(out)
}
