//! From an executable to the directory that it was installed into.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// How many executables of one directory are followed.
const EXECUTABLES: usize = 512;

/// The executable files and links of a directory, in the order of their names.
pub(super) fn executables(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut out: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_executable(path)).collect();
    out.sort();
    out.truncate(EXECUTABLES);
    out
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

/// The absolute interpreter of a script, links followed by the caller.
pub(super) fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(script).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let path = PathBuf::from(line.split_whitespace().next()?);
    path.is_absolute().then_some(path)
}

/// The same with only the directory's links followed: a virtual environment is found by its own `python`, which is
/// a link to another place.
pub(super) fn interpreter_as_named(script: &Path) -> Option<PathBuf> {
    let named = interpreter(script)?;
    let directory = std::fs::canonicalize(named.parent()?).ok()?;
    Some(directory.join(named.file_name()?))
}

/// The smallest directory under the home that holds the whole of what `file` belongs to, as installers lay it out.
/// `None` when the place is not one that an installer makes.
pub(super) fn install_directory(home: &Path, file: &Path) -> Option<PathBuf> {
    // A global npm tree: packages lean on their neighbours.
    let modules =
        file.ancestors().filter(|path| path.file_name().is_some_and(|name| name == "node_modules")).last();
    if let Some(modules) = modules {
        return Some(modules.to_owned());
    }
    let relative = file.strip_prefix(home).ok()?;
    let parts: Vec<_> = relative
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    // Tools with one directory a tool, below a directory that also holds other things.
    let depth = match parts.as_slice() {
        [".local", "share", "uv" | "pipx", _, _, ..] => 5,
        [".local", "pipx", "venvs", _, ..] => 4,
        [".local", "share" | "lib" | "opt", _, _, ..] => 3,
        [".pyenv" | ".nvm", "versions", _, _, ..] => 3,
        [".deno" | ".bun" | ".volta" | ".opencode" | ".codex" | ".claude", "bin", _, ..] => 2,
        [".volta" | ".sdkman" | ".asdf", _, _, _, ..] => 3,
        _ => return None,
    };
    Some(parts.iter().take(depth).fold(home.to_owned(), |path, part| path.join(part)))
}
