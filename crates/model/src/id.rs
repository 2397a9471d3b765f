//! Typed ids: UUID version 7 (RFC 9562 §5.7), written in the 36-character lower-case form.
//!
//! Version 7 sorts by creation time, which keeps indexes dense. The type says what the id is of, so an id of one
//! thing can't be passed for another.

use crate::door::{Clock, Entropy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An id could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct IdError {
    what: &'static str,
}

/// Makes the 16 bytes of a version-7 UUID.
#[must_use]
pub fn uuid_v7(clock: &dyn Clock, entropy: &dyn Entropy) -> [u8; 16] {
    let mut random = [0_u8; 10];
    entropy.fill(&mut random);
    let millis = u64::try_from(clock.wall_ms()).unwrap_or(0).to_be_bytes();
    let [_, _, m0, m1, m2, m3, m4, m5] = millis;
    let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = random;
    [m0, m1, m2, m3, m4, m5, 0x70 | (r0 & 0x0f), r1, 0x80 | (r2 & 0x3f), r3, r4, r5, r6, r7, r8, r9]
}

fn parse(text: &str) -> Option<[u8; 16]> {
    let raw = text.as_bytes();
    if raw.len() != 36 {
        return None;
    }
    let mut out = [0_u8; 16];
    let mut nibbles = 0_usize;
    for (position, byte) in raw.iter().enumerate() {
        if matches!(position, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let slot = out.get_mut(nibbles / 2)?;
        *slot = (*slot << 4) | value;
        nibbles += 1;
    }
    Some(out)
}

fn write(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new id: time-ordered, with 74 random bits.
            #[must_use]
            pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                Self(uuid_v7(clock, entropy))
            }

            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes, most significant first.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The last eight hexadecimal digits: what people see and type. Random, so unlike the first ones
            /// they differ between ids made in the same moment.
            #[must_use]
            pub fn short(&self) -> String {
                let text = self.to_string();
                text.get(28..).unwrap_or_default().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                write(&self.0, f)?;
                f.write_str(")")
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self).ok_or(IdError { what: $what })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// The tenant. Every row has its id first.
    OrgId, "org id"
);
id!(
    /// A person in an org.
    MemberId, "member id"
);
id!(
    /// A repository known to an org.
    RepositoryId, "repository id"
);
id!(
    /// A named profile: role, engine, model, instructions, policy.
    AgentId, "agent id"
);
id!(
    /// A durable unit of work.
    TaskId, "task id"
);
id!(
    /// One attempt at a task.
    RunId, "run id"
);
id!(
    /// A signed grant.
    WarrantId, "warrant id"
);
id!(
    /// Any other row: a secret, a refusal, a signing key.
    RowId, "row id"
);
id!(
    /// The id of a question to a person.
    ApprovalId,
    "an approval id"
);
id!(
    /// The id of a piece of steering.
    SteerId,
    "a steering id"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::{FixedClock, FixedEntropy};

    #[test]
    fn version_and_variant_are_set_and_text_round_trips() {
        let id = RunId::new(&FixedClock::at(1_700_000_000_000), &FixedEntropy::seeded(7));
        let text = id.to_string();
        assert_eq!(text.parse::<RunId>().unwrap(), id);
        assert_eq!(text.as_bytes()[14], b'7');
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert!("01890A5D-ac96-774b-bcce-b302099a8057".parse::<RunId>().is_err(), "one spelling only");
    }

    #[test]
    fn ids_sort_by_time() {
        let entropy = FixedEntropy::seeded(1);
        let early = RunId::new(&FixedClock::at(1_000), &entropy);
        let late = RunId::new(&FixedClock::at(2_000), &entropy);
        assert!(early < late && early.to_string() < late.to_string());
    }
}
