//! The encryption key that wraps the data keys of every ring, and the places it may come from.
//!
//! Promises: the key file is never readable by others, never half written, and made only once even when several
//! processes start at the same moment; a file that others could read is refused with the command that fixes it.

use crate::error::SealError;
use crate::secret::Secret;
use crate::text::{hex, unhex};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tipstaff_model::Entropy;
use zeroize::{Zeroize as _, Zeroizing};

/// The 256-bit encryption key. It wraps data keys and encrypts nothing else.
#[derive(Clone)]
pub struct RingKey(Secret<[u8; 32]>);

impl RingKey {
    /// A new random key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0_u8; 32];
        entropy.fill(&mut bytes);
        let key = Self(Secret::new(bytes));
        bytes.zeroize();
        key
    }

    /// Reads 64 hexadecimal digits; white space around them is ignored.
    ///
    /// # Errors
    /// `key-format` for anything else, `key-weak` when all bytes are equal.
    pub fn from_hex(text: &Secret<String>) -> Result<Self, SealError> {
        Self::parse(text.expose())
    }

    fn parse(text: &str) -> Result<Self, SealError> {
        let mut bytes = unhex::<32>(text.trim()).ok_or(SealError::KeyFormat)?;
        let weak = bytes.iter().all(|byte| Some(byte) == bytes.first());
        let key = Self(Secret::new(bytes));
        bytes.zeroize();
        if weak { Err(SealError::KeyWeak) } else { Ok(key) }
    }

    /// The key as 64 hexadecimal digits, for a key file or a backup that a person asked for.
    #[must_use]
    pub fn to_hex(&self) -> Secret<String> {
        Secret::new(hex(self.0.expose()))
    }

    /// The key's public name: 16 hexadecimal digits of a hash of it.
    #[must_use]
    pub fn id(&self) -> String {
        let digest =
            Sha256::new().chain_update(b"tipstaff/ring-key-id/v1\0").chain_update(self.0.expose()).finalize();
        hex(digest.get(..8).unwrap_or_default())
    }

    pub(crate) const fn secret(&self) -> &Secret<[u8; 32]> {
        &self.0
    }
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingKey({})", self.id())
    }
}

/// Where the encryption key comes from.
#[derive(Debug, Clone)]
pub enum KekSource {
    /// The value of `TIPSTAFF_ENCRYPTION_KEY`: 64 hexadecimal digits.
    Hex(Secret<String>),
    /// A file of mode 0600 with 64 hexadecimal digits; made when it isn't there.
    File(PathBuf),
    /// An entry of the operating system's keychain; made when it isn't there.
    Keychain {
        /// The service's name, for example `tipstaff`.
        service: String,
        /// The account's name, for example the path of the state folder.
        account: String,
        /// A file that is locked while a new key is made, so that two processes can't make one each.
        lock: PathBuf,
    },
}

impl KekSource {
    /// What the source is, for people: no secret in it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Hex(_) => "TIPSTAFF_ENCRYPTION_KEY".to_owned(),
            Self::File(path) => format!("key file {}", path.display()),
            Self::Keychain { service, account, .. } => format!("keychain entry {service}/{account}"),
        }
    }

    /// Loads the key, making it first where the source can hold a new one.
    ///
    /// # Errors
    /// `key-format`, `key-weak`; `key-file-unsafe`, `key-file-content`, `key-file-io`; `keychain`, `keychain-absent`.
    pub fn load(&self, entropy: &dyn Entropy) -> Result<RingKey, SealError> {
        match self {
            Self::Hex(text) => RingKey::from_hex(text),
            Self::File(path) => load_or_make(path, entropy),
            Self::Keychain { service, account, lock } => {
                crate::keychain::load(service, account, lock, entropy)
            }
        }
    }
}

fn load_or_make(path: &Path, entropy: &dyn Entropy) -> Result<RingKey, SealError> {
    if let Some(key) = read_file(path)? {
        return Ok(key);
    }
    make_file(path, entropy)?;
    // Whoever linked first has won; everybody reads what is there now.
    read_file(path)?.ok_or_else(|| SealError::KeyFileIo {
        path: path.to_owned(),
        doing: "read",
        source: io::Error::from(io::ErrorKind::NotFound),
    })
}

fn read_file(path: &Path) -> Result<Option<RingKey>, SealError> {
    let unreadable = |source| SealError::KeyFileIo { path: path.to_owned(), doing: "read", source };
    // Looked at before it is opened, since opening a pipe would wait; and again by handle, since it may be swapped.
    match fs::metadata(path) {
        Ok(metadata) => check_file(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    check_file(path, &file.metadata().map_err(unreadable)?)?;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    match file.take(4096).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(SealError::KeyFileContent { path: path.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    }
    match RingKey::parse(&text) {
        Err(SealError::KeyFormat) => Err(SealError::KeyFileContent { path: path.to_owned() }),
        other => other.map(Some),
    }
}

fn check_file(path: &Path, metadata: &fs::Metadata) -> Result<(), SealError> {
    let refuse =
        |reason: String, fix: String| Err(SealError::KeyFileUnsafe { path: path.to_owned(), reason, fix });
    if !metadata.is_file() {
        return refuse("is not a regular file".to_owned(), "name a file, or remove what is there".to_owned());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return refuse(
            format!("has mode {mode:04o}, so others than its owner can reach it"),
            format!("run `chmod 600 '{}'`, and rotate the key if others may have read it", path.display()),
        );
    }
    // The owner of /proc/self is this process's effective user; where there is no /proc the check is left out.
    if let Ok(own) = fs::metadata("/proc/self")
        && metadata.uid() != own.uid()
        && metadata.uid() != 0
    {
        return refuse(
            format!("belongs to user {} and not to user {} or root", metadata.uid(), own.uid()),
            format!("run `chown {} '{}'` as root", own.uid(), path.display()),
        );
    }
    Ok(())
}

fn make_file(path: &Path, entropy: &dyn Entropy) -> Result<(), SealError> {
    let unmade = |source| SealError::KeyFileIo { path: path.to_owned(), doing: "made", source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| unmade(io::Error::from(io::ErrorKind::InvalidInput)))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unmade)?;

    let mut random = [0_u8; 8];
    entropy.fill(&mut random);
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(format!(".{}.new", hex(&random)));
    let draft = folder.join(draft_name);
    let result = write_draft(&draft, entropy).and_then(|()| match fs::hard_link(&draft, path) {
        // A link never replaces a file: with several processes at the door exactly one key gets the name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&draft);
    result.and(removed).and_then(|()| File::open(folder)?.sync_all()).map_err(unmade)
}

fn write_draft(draft: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let key = RingKey::generate(entropy);
    let text = Zeroizing::new(format!("{}\n", key.to_hex().expose()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
