//! The encryption key and the places it comes from.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Barrier;
use tipstaff_model::FixedEntropy;
use tipstaff_seal::{KekSource, RingKey, SealError, Secret, SystemEntropy};

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn from_hex(text: &str) -> Result<RingKey, SealError> {
    KekSource::Hex(Secret::new(text.to_owned())).load(&SystemEntropy)
}

fn from_file(path: &Path) -> Result<RingKey, SealError> {
    KekSource::File(path.to_owned()).load(&SystemEntropy)
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn hexadecimal_is_read_strictly() {
    let key = from_hex(HEX).unwrap();
    assert_eq!(from_hex(&format!("  {}\n", HEX.to_uppercase())).unwrap().id(), key.id());
    assert_eq!(key.to_hex().expose(), HEX);
    for bad in
        ["", "00", &HEX[1..], &format!("{HEX}0"), &HEX.replace("0a", "0g"), &format!("0x{}", &HEX[2..])]
    {
        assert_eq!(from_hex(bad).unwrap_err().code(), "key-format", "{bad}");
    }
    for placeholder in ["0".repeat(64), "f".repeat(64), "ab".repeat(32)] {
        assert_eq!(from_hex(&placeholder).unwrap_err().code(), "key-weak");
    }
}

#[test]
fn the_file_is_made_on_first_use_for_its_owner_only_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/keys/ring.key");
    let first = from_file(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(metadata.len(), 65);
    let before = fs::read(&path).unwrap();
    assert_eq!(from_file(&path).unwrap().id(), first.id());
    assert_eq!(fs::read(&path).unwrap(), before);
    let left: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["ring.key"], "no draft is left behind");
    assert_ne!(from_file(&folder.path().join("other.key")).unwrap().id(), first.id());
}

#[test]
fn whoever_starts_at_the_same_moment_gets_the_same_key() {
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.key");
        let barrier = Barrier::new(16);
        let ids: Vec<String> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..16_u64)
                .map(|n| {
                    let (path, barrier) = (&path, &barrier);
                    scope.spawn(move || {
                        let entropy = FixedEntropy::seeded(round * 100 + n);
                        barrier.wait();
                        KekSource::File(path.clone()).load(&entropy).unwrap().id()
                    })
                })
                .collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "round {round}: {ids:?}");
        assert_eq!(from_file(&path).unwrap().id(), ids[0]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_draft_of_a_killed_process_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(".ring.key.0011223344556677.new"), "00010203", 0o600);
    let path = folder.path().join("ring.key");
    let id = from_file(&path).unwrap().id();
    assert_eq!(from_file(&path).unwrap().id(), id);
}

#[test]
fn a_file_that_others_can_reach_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.key");
    write(&path, HEX, 0o600);
    let id = from_file(&path).unwrap().id();
    for mode in [0o640, 0o660, 0o604, 0o644, 0o666, 0o620, 0o602, 0o610, 0o777] {
        write(&path, HEX, mode);
        let error = from_file(&path).unwrap_err();
        assert_eq!(error.code(), "key-file-unsafe", "{mode:o}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(from_file(&path).unwrap().id(), id);
    }
    // Behind a link, as secrets are mounted into containers: the file itself is what counts.
    let link = folder.path().join("link.key");
    symlink(&path, &link).unwrap();
    assert_eq!(from_file(&link).unwrap().id(), id);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(from_file(&link).unwrap_err().code(), "key-file-unsafe");
}

#[test]
fn another_users_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.key");
    write(&path, HEX, 0o600);
    let is_root = fs::metadata(&path).unwrap().uid() == 0;
    if is_root {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let error = from_file(&path).unwrap_err();
        assert_eq!(error.code(), "key-file-unsafe");
        assert!(error.to_string().contains("chown 0"), "{error}");
    } else {
        // An ordinary user can't give files away; what belongs to root and is private to root can't be read at all.
        assert!(from_file(Path::new("/etc/shadow")).is_err());
    }
}

#[test]
fn what_is_no_key_file_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.key");
    for content in ["", "\n", &HEX[..40], "not a key", &HEX.repeat(100)] {
        write(&path, content, 0o600);
        assert_eq!(from_file(&path).unwrap_err().code(), "key-file-content", "{content}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::write(&path, [0xff; 64]).unwrap();
    assert_eq!(from_file(&path).unwrap_err().code(), "key-file-content");
    assert_eq!(from_file(folder.path()).unwrap_err().code(), "key-file-unsafe");
    assert_eq!(from_file(Path::new("/dev/null")).unwrap_err().code(), "key-file-unsafe");
    // A folder can't be made where a file stands.
    assert_eq!(from_file(&path.join("below/ring.key")).unwrap_err().code(), "key-file-io");
    // A dangling link doesn't get a key written through it.
    let dangling = folder.path().join("dangling.key");
    symlink(folder.path().join("nowhere"), &dangling).unwrap();
    assert_eq!(from_file(&dangling).unwrap_err().code(), "key-file-io");
    assert!(!folder.path().join("nowhere").exists());
}

#[test]
fn the_keychain_answers_or_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let source = KekSource::Keychain {
        service: "tipstaff-test".to_owned(),
        account: folder.path().display().to_string(),
        lock: folder.path().join("keychain.lock"),
    };
    assert!(source.describe().starts_with("keychain entry tipstaff-test/"));
    match source.load(&SystemEntropy) {
        // With a keychain in reach: the second load finds what the first one made.
        Ok(key) => assert_eq!(source.load(&SystemEntropy).unwrap().id(), key.id()),
        Err(error) => {
            assert!(["keychain", "keychain-absent"].contains(&error.code()), "{error}");
            assert!(error.to_string().contains("key file"), "{error}");
        }
    }
}
