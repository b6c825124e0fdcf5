//! How settings are written in a configuration file, and how that is read ([`mod@file`]); what every
//! server's file has ([`mod@process`]); whether the machine can give what it asks for ([`ports`]).

pub mod file;
pub mod ports;
pub mod process;
pub mod purpose;

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Where a login, or a place, goes among the servers that have room: `policy = "least-loaded"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// To the one with the smallest share of its places in use; of equals to the first.
    #[default]
    LeastLoaded,
    /// To the first, in the order of the configuration, that is not full.
    Fill,
}

/// Whether a ticket admits only from the address that logged in: `source_check = "exact"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceCheck {
    /// The same IPv4 address; of an IPv6 one the same first 64 bits.
    #[default]
    Exact,
    /// From any: where carriers change addresses between two connections.
    Off,
}

/// A list of texts that can be parsed, or the only one of them alone:
/// `listen = "127.0.0.1:10000"`, `listen = ["192.0.2.1:10000", "[2001:db8::1]:10000"]`.
///
/// # Errors
/// Another type, or a text that cannot be parsed.
pub fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    deserializer.deserialize_any(OneOrMany(PhantomData))
}

/// An address to listen on or to be told, or none where the key may be absent: `listen = "127.0.0.1:10000"`.
///
/// # Errors
/// No text, or one that is no such address.
pub fn address<'de, D: Deserializer<'de>, T: From<SocketAddr>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(parse::<Address, _>(&text)?.0.into())
}

/// The same for a list of them, or the only one alone.
///
/// # Errors
/// As those of [`one_or_many`].
pub fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let all: Vec<Address> = one_or_many(deserializer)?;
    Ok(all.into_iter().map(|Address(address)| address).collect())
}

/// One that says what it is where a text is none.
struct Address(SocketAddr);

#[derive(Debug, thiserror::Error)]
#[error(
    "an IP address and a port, as in 127.0.0.1:10000, 0.0.0.0:10000 or [::]:10000; names are not looked up"
)]
struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        text.parse().map(Self).map_err(|_| NoAddress)
    }
}

/// Whether a text is host:port and can be dialled, as far as it can be told without asking.
pub fn is_target(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

struct OneOrMany<T>(PhantomData<T>);

impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for OneOrMany<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        Ok(vec![parse(text)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            values.push(parse(&text)?);
        }
        Ok(values)
    }
}

fn parse<T: FromStr<Err: fmt::Display>, E: Error>(text: &str) -> Result<T, E> {
    text.parse()
        .map_err(|error| E::custom(format_args!("{text:?}: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Settings {
        #[serde(deserialize_with = "one_or_many")]
        listen: Vec<SocketAddr>,
    }

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Choices {
        policy: Policy,
        source_check: SourceCheck,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Places {
        #[serde(deserialize_with = "address")]
        link: Option<SocketAddr>,
        #[serde(deserialize_with = "addresses")]
        listen: Vec<SocketAddr>,
    }

    #[test]
    fn a_name_is_no_address_and_what_is_one_is_told() {
        let right = "link = \"[::]:1\"\nlisten = [\"127.0.0.1:1\"]";
        let places: Places = toml::from_str(right).unwrap();
        assert_eq!((places.link.unwrap().port(), places.listen.len()), (1, 1));
        assert_eq!(toml::from_str::<Places>("").unwrap().link, None);
        for wrong in ["localhost:10000", ":10000", "10000", "127.0.0.1", "::1:1"] {
            for key in ["link", "listen"] {
                let error = toml::from_str::<Places>(&format!("{key} = \"{wrong}\""));
                let told = error.unwrap_err().to_string();
                assert!(told.contains("names are not looked up"), "{told}");
            }
        }
    }

    #[test]
    fn choices_are_written_by_their_names() {
        for (text, policy, source_check) in [
            ("", Policy::LeastLoaded, SourceCheck::Exact),
            (
                "policy = \"least-loaded\"\nsource_check = \"exact\"",
                Policy::LeastLoaded,
                SourceCheck::Exact,
            ),
            (
                "policy = \"fill\"\nsource_check = \"off\"",
                Policy::Fill,
                SourceCheck::Off,
            ),
        ] {
            let expected = Choices {
                policy,
                source_check,
            };
            assert_eq!(toml::from_str::<Choices>(text).unwrap(), expected);
        }
        assert!(toml::from_str::<Choices>("policy = \"Fill\"").is_err());
    }

    #[test]
    fn a_target_has_a_host_and_a_port() {
        for text in ["conn-1:10100", "127.0.0.1:1", "[::1]:65535"] {
            assert!(is_target(text), "{text}");
        }
        for text in ["", "conn-1", ":1", "conn-1:", "conn-1:0", "conn-1:65536"] {
            assert!(!is_target(text), "{text}");
        }
    }

    #[test]
    fn one_address_may_stand_alone() {
        for (text, count) in [
            (r#"listen = "127.0.0.1:1""#, 1),
            (r#"listen = ["127.0.0.1:1", "[::1]:2"]"#, 2),
            ("listen = []", 0),
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            assert_eq!(settings.listen.len(), count);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for text in [
            r#"listen = "nowhere""#,
            r#"listen = ["127.0.0.1"]"#,
            "listen = 3",
        ] {
            let error = toml::from_str::<Settings>(text).err().unwrap().to_string();
            assert!(error.contains("line 1"), "{error}");
        }
    }
}
