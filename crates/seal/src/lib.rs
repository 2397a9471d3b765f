#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cipher;
mod digest;
mod error;
mod file;
pub mod handle;
pub mod kek;
mod keychain;
pub mod log;
pub mod redact;
pub mod ring;
pub mod scrub;
mod secret;
pub mod sign;
pub mod ssh;
pub mod system;
mod text;
pub mod token;
pub mod warrant;

pub use digest::StreamDigest;
pub use error::SealError;
pub use file::{FileKey, SEALED_FILE_LIMIT};
pub use handle::Handle;
pub use kek::{KekSource, RingKey};
pub use redact::{Finding, RedactStream, Redactor};
pub use ring::{DataKeyId, Ring, SealContext, SealedText, WrappedKey, key_id_of, rewrap};
pub use secret::{Secret, constant_time_eq};
pub use sign::{Domain, KeyId, Signature, SigningKey, VerifyingKey};
pub use ssh::SshSignature;
pub use system::{SystemClock, SystemEntropy};
pub use text::{base64url, unbase64url};
pub use warrant::{SignedWarrant, WarrantDigest};
