//! Pure. Names and numbers by which the processes speak of the same thing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// An account's row in the database: positive, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountId(#[serde(with = "digits")] pub i64);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A command, unique in the cluster; a device carries one out at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandId(#[serde(with = "digits")] pub u64);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How ids are written: on the link as the integers that they are, in text as their digits. For jq and
/// JavaScript keep no integer beyond 2^53, and do not say so: an id that was rounded is another id.
pub(crate) mod digits {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T, S>(integer: &T, to: S) -> Result<S::Ok, S::Error>
    where
        T: Display + Serialize,
        S: Serializer,
    {
        match to.is_human_readable() {
            true => to.collect_str(integer),
            false => integer.serialize(to),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display> + Deserialize<'de>,
        D: Deserializer<'de>,
    {
        match from.is_human_readable() {
            true => String::deserialize(from)?.parse().map_err(D::Error::custom),
            false => T::deserialize(from),
        }
    }
}

/// What a ticket admits: one account, once. Worth nothing without the session key,
/// yet not printed: whoever sees a log could burn an attempt with it.
pub type Ticket = Secret<16>;

/// New for every login; chosen by the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Declares a name: text of bounded length over a fixed alphabet, so that it can stand
/// in a log line, a file name or a metric label as it is.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $allowed:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            pub const BYTES_MAX: usize = $max;

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let allowed: fn(u8) -> bool = $allowed;
                if text.is_empty() || text.len() > $max || !text.bytes().all(allowed) {
                    return Err(NameError { what: $what });
                }
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// What a device logs in as: 1..=32 of `A-Z a-z 0-9 . _ : -`, case matters.
    AccountName, 32,
    |byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte),
    "an account is 1 to 32 of A-Z a-z 0-9 . _ : -"
}

name! {
    /// A process of the cluster, as operators know it: 1..=32 of `A-Z a-z 0-9 . _ -`, unique in the cluster.
    NodeName, 32,
    |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte),
    "a node name is 1 to 32 of A-Z a-z 0-9 . _ -"
}

/// Text that is no name: Display says what one looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NameError {
    what: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Epoch;

    #[test]
    fn an_account_name_is_what_the_contract_says() {
        for good in ["a", "rcu-000001", "A.b_c:d-9", &"x".repeat(32)] {
            assert_eq!(
                good.parse::<AccountName>().map(|name| name.to_string()),
                Ok(good.into())
            );
        }
        for bad in ["", "a b", "ü", "a/b", "a\n", &"x".repeat(33)] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_digits_in_json_for_others_would_be_rounded() {
        // Each is odd and beyond 2^53: as a number it came back from jq as another.
        let ids = (
            AccountId(i64::MAX),
            CommandId((1 << 53) + 1),
            Epoch::from_i64(i64::MAX - 2),
        );
        let json = serde_json::to_string(&ids).expect("plain values");
        let expected = r#"["9223372036854775807","9007199254740993","9223372036854775805"]"#;
        assert_eq!(json, expected);
        let read: (AccountId, CommandId, Option<Epoch>) =
            serde_json::from_str(&json).expect("what was written");
        assert_eq!(read, ids);
        for wrong in ["7", "\"-1\"", "\"x\"", "\"9223372036854775808\""] {
            assert!(serde_json::from_str::<Epoch>(wrong).is_err(), "{wrong}");
        }
    }
}
