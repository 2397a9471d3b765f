//! Files with a credential: read only when nobody else could have.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// The text of a file that is this user's own and closed to all others.
///
/// # Errors
/// Why not, with what to do. `Ok(None)` when it is not there.
pub(crate) fn read_private(path: &Path, own_uid: u32) -> Result<Option<String>, String> {
    let unreadable = |error: std::io::Error| format!("{} can't be read: {error}", path.display());
    // Looked at before it is opened, since opening a pipe would wait; and again by handle, since it may be swapped.
    match std::fs::metadata(path) {
        Ok(metadata) => check(path, &metadata, own_uid)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let file = File::open(path).map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?, own_uid)?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Some(text))
}

fn check(path: &Path, metadata: &Metadata, own_uid: u32) -> Result<(), String> {
    let path = path.display();
    if !metadata.is_file() {
        return Err(format!("{path} is no file"));
    }
    if metadata.len() > LARGEST {
        return Err(format!("{path} is larger than {LARGEST} bytes: it holds more than a credential"));
    }
    if metadata.uid() != own_uid {
        return Err(format!("{path} belongs to another user: give it to the one who runs tipstaff"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("{path} can be read by others: chmod 600 {path}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_reach_is_refused_with_the_fix() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        let own = std::fs::metadata(place.path()).unwrap().uid();
        assert_eq!(read_private(&path, own), Ok(None));
        std::fs::write(&path, "sk-1234\n").unwrap();
        for mode in [0o644, 0o640, 0o604, 0o610] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let why = read_private(&path, own).unwrap_err();
            assert!(why.contains("chmod 600") && !why.contains("sk-1234"), "{mode:o}: {why}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read_private(&path, own), Ok(Some("sk-1234\n".to_owned())));
        assert!(read_private(&path, own + 1).unwrap_err().contains("another user"));
        assert!(read_private(place.path(), own).unwrap_err().contains("no file"));
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(read_private(&path, own).unwrap_err().contains("larger"));
    }
}
