//! The files that an agent finds in its home folder.
//!
//! Inside, the home is an empty file system of the run's own; the files lie beside it, read-only, and a shell copies
//! them in before it becomes the agent.

use crate::RunnerError;
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use tipstaff_engine::{HomeFile, Invocation};
use tipstaff_sandbox::ReadOnlyMount;

/// Where a sandbox sees the files before they are copied.
const INSIDE: &str = "/tipstaff/home";
/// Copies them and becomes the agent.
const SCRIPT: &str = "cp -R /tipstaff/home/. \"$HOME\"/ && chmod -R u+rwX \"$HOME\" && exec \"$@\"";

/// Writes the files into `folder` and makes the command copy them; both are as they were when there are none.
///
/// # Errors
/// When a file's name leads out of the folder, or it can't be written.
pub(crate) fn furnish(
    invocation: &Invocation,
    folder: &Path,
) -> Result<(Vec<OsString>, Option<ReadOnlyMount>), RunnerError> {
    let argv = invocation.argv.iter().map(OsString::from);
    if invocation.home.is_empty() {
        return Ok((argv.collect(), None));
    }
    for file in &invocation.home {
        write(file, folder)?;
    }
    let shell = ["sh", "-c", SCRIPT, "tipstaff-agent"].map(OsString::from);
    let mount = ReadOnlyMount { host: folder.to_owned(), inside: PathBuf::from(INSIDE) };
    Ok((shell.into_iter().chain(argv).collect(), Some(mount)))
}

fn write(file: &HomeFile, folder: &Path) -> Result<(), RunnerError> {
    use std::io::Write;
    let wrong = RunnerError::io("writing the agent's configuration");
    let inside = Path::new(&file.path);
    if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong(std::io::Error::other("a name leads out of the home folder")));
    }
    let path = folder.join(inside);
    let write = || {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut draft =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path)?;
        draft.write_all(file.content.as_bytes())
    };
    write().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(path: &str) -> Invocation {
        let home = vec![HomeFile { path: path.to_owned(), content: "x".to_owned() }];
        Invocation { argv: vec!["agent".to_owned()], home, ..Invocation::default() }
    }

    #[test]
    fn files_are_written_and_the_command_is_wrapped() {
        let place = tempfile::tempdir().unwrap();
        let (argv, mount) = furnish(&invocation(".agent/config.toml"), place.path()).unwrap();
        assert_eq!(argv.first().unwrap(), "sh");
        assert_eq!(argv.last().unwrap(), "agent");
        assert_eq!(mount.unwrap().inside, Path::new(INSIDE));
        assert_eq!(std::fs::read_to_string(place.path().join(".agent/config.toml")).unwrap(), "x");
    }

    #[test]
    fn no_name_leads_out() {
        let place = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "./x/.."] {
            assert!(furnish(&invocation(path), place.path()).is_err(), "{path}");
        }
        assert!(!place.path().parent().unwrap().join("x").exists());
    }
}
