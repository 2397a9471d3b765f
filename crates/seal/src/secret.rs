//! Values that must not be seen: wiped when dropped, never printed, never serialised.
//!
//! The only way to the value is [`Secret::expose`], a word that a reviewer can search for.

use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A value that prints as `Secret(…)` and is overwritten with zeros when dropped.
///
/// There is no `Display` and no `Serialize` on purpose:
///
/// ```compile_fail
/// let secret = tipstaff_seal::Secret::new(String::from("hunter2"));
/// println!("{secret}");
/// ```
///
/// ```compile_fail
/// let secret = tipstaff_seal::Secret::new(String::from("hunter2"));
/// let _ = serde_json::to_string(&secret);
/// ```
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` in. Copies that the caller made before stay where they are: take values in early.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. Keep the borrow short and pass it only to what needs it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.0.as_ref(), other.0.as_ref())
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

/// Compares two byte strings in a time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_value_also_inside_other_types() {
        let secret = Secret::new(String::from("hunter2"));
        assert_eq!(format!("{:?} {:#?}", secret, Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn comparison_sees_every_difference() {
        assert!(constant_time_eq(b"", b""));
        assert!(constant_time_eq(b"same", b"same"));
        for (left, right) in [("same", "samf"), ("same", "sam"), ("", "a")] {
            assert!(!constant_time_eq(left.as_bytes(), right.as_bytes()));
            assert_ne!(Secret::new(left.to_owned()), Secret::new(right.to_owned()));
        }
    }
}
