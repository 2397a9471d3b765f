//! AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces; the only module that touches the cipher.
//!
//! Random nonces are safe for 2³² messages under one key; the key ring's keys seal rows, far fewer.

use crate::Secret;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use tipstaff_model::Entropy;
use zeroize::Zeroizing;

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 12;
/// Bytes of the authentication tag at the end of a ciphertext.
pub(crate) const TAG: usize = 16;

/// Encrypts `plaintext` under a fresh nonce. `None` only beyond the cipher's size limits.
pub(crate) fn encrypt(
    key: &Secret<[u8; 32]>,
    associated: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Option<([u8; NONCE], Vec<u8>)> {
    let mut nonce = [0_u8; NONCE];
    entropy.fill(&mut nonce);
    let cipher = Aes256Gcm::new(key.expose().into());
    let text = cipher.encrypt(&nonce.into(), Payload { msg: plaintext, aad: associated }).ok()?;
    Some((nonce, text))
}

/// Decrypts; `None` when anything at all differs from what was encrypted.
pub(crate) fn decrypt(
    key: &Secret<[u8; 32]>,
    associated: &[u8],
    nonce: [u8; NONCE],
    text: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = Aes256Gcm::new(key.expose().into());
    cipher.decrypt(&nonce.into(), Payload { msg: text, aad: associated }).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 16 of the GCM specification (McGrew, Viega).
    #[test]
    fn published_vector() {
        let key =
            crate::text::unhex::<32>("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce = crate::text::unhex::<12>("cafebabefacedbaddecaf888").unwrap();
        let associated = crate::text::unhex::<20>("feedfacedeadbeeffeedfacedeadbeefabaddad2").unwrap();
        let text = crate::text::unhex::<76>(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
             c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
        )
        .unwrap();
        let plain = decrypt(&Secret::new(key.unwrap()), &associated, nonce, &text).unwrap();
        assert_eq!(
            crate::text::hex(&plain),
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
             b16aedf5aa0de657ba637b39"
        );
    }
}
