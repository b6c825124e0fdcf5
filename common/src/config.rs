//! How settings are written in a configuration file.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserializer;
use serde::de::{Error, SeqAccess, Visitor};

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
