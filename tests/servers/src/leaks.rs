//! Secrets in what was said, whatever form they took: hex, base64, a list of numbers, raw bytes.

use aho_corasick::{AhoCorasick, BuildError};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// Of secrets. Of each there is at least one in a test run, or the search has missed something.
pub const KINDS: [&str; 5] = ["cluster", "operator", "master", "device", "password"];

/// A shorter form might stand in any text.
const FORM_BYTES_MIN: usize = 16;

/// In hex.
const KEY_DIGITS: usize = 64;

/// Finds any of its secrets.
#[derive(Debug)]
pub struct Search {
    /// Of the secrets, the one of each form.
    forms: Vec<usize>,
    automaton: AhoCorasick,
}

impl Search {
    /// For keys in hex, and passwords as they are.
    ///
    /// # Errors
    /// There are too many of them.
    ///
    /// # Panics
    /// One is so short that it could stand anywhere.
    pub fn new(secrets: &[&str]) -> Result<Self, BuildError> {
        let forms = secrets.iter().enumerate();
        let forms =
            forms.flat_map(|(index, secret)| forms_of(secret).map(move |form| (index, form)));
        let (forms, patterns): (_, Vec<_>) = forms.unzip();
        let short = patterns.iter().any(|form| form.len() < FORM_BYTES_MIN);
        assert!(
            !short,
            "a secret that is too short to be told from other text"
        );
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(patterns)?;
        Ok(Self { forms, automaton })
    }

    /// Which secret the text holds, and where it begins.
    pub fn find(&self, text: &[u8]) -> Option<(usize, usize)> {
        let found = self.automaton.find(text)?;
        Some((self.forms[found.pattern().as_usize()], found.start()))
    }
}

/// All that it could look like.
pub fn forms_of(secret: &str) -> impl Iterator<Item = Vec<u8>> + use<> {
    let own = secret.as_bytes().to_vec();
    let of_key = key(secret).into_iter().flat_map(|key| {
        let list = key.iter().map(u8::to_string).collect::<Vec<_>>();
        let spaced = key.iter().map(|byte| format!("{byte:02x}"));
        let spaced = spaced.collect::<Vec<_>>().join(" ");
        let lists = [list.join(", "), list.join(","), spaced];
        let lists = lists.into_iter().map(String::into_bytes);
        let in_base64 = (0..3).flat_map(move |before| in_base64(&key, before));
        // A key of equal bytes, which tests like, is no sign by itself: 32 tabs, 32 letters.
        let is_plain = key.iter().all(|byte| *byte == key[0]);
        let raw = (!is_plain).then(|| key.to_vec());
        lists.chain(in_base64).chain(raw)
    });
    std::iter::once(own).chain(of_key)
}

fn key(secret: &str) -> Option<[u8; KEY_DIGITS / 2]> {
    if secret.len() != KEY_DIGITS || !secret.is_ascii() {
        return None;
    }
    let mut key = [0; KEY_DIGITS / 2];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&secret[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(key)
}

/// In both alphabets, behind so many other bytes; without the characters that these have a part in, and
/// those that whatever follows has.
fn in_base64(key: &[u8], before: usize) -> [Vec<u8>; 2] {
    let mut bytes = vec![0; before];
    bytes.extend(key);
    let first = (before * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD]
        .map(|alphabet| alphabet.encode(&bytes).as_bytes()[first..last].to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PASSWORD: &str = "known only to its owner";

    fn hex(key: [u8; 32]) -> String {
        key.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_place() {
        let key: [u8; 32] = std::array::from_fn(|index| (index * 37 + 11) as u8);
        let secrets = [hex([7; 32]), hex(key), PASSWORD.to_owned()];
        let search = Search::new(&secrets.each_ref().map(String::as_str)).unwrap();
        let with = |before: usize| {
            let text = [vec![b'x'; before], key.to_vec(), b"yz".to_vec()].concat();
            let encoded = BASE64_STANDARD_NO_PAD.encode(&text);
            [encoded, BASE64_URL_SAFE_NO_PAD.encode(&text)]
        };
        let mut said: Vec<Vec<u8>> = (0..5).flat_map(with).map(String::into_bytes).collect();
        said.extend([
            hex(key).into_bytes(),
            hex(key).to_uppercase().into_bytes(),
            format!("Key({key:?})").into_bytes(),
            format!("{key:02X?}").replace(", ", " ").into_bytes(),
            serde_like(&key),
            key.to_vec(),
        ]);
        for said in said {
            let text = [b"before ", &said[..], b" after"].concat();
            let found = search.find(&text).map(|(secret, _)| secret);
            assert_eq!(found, Some(1), "{}", String::from_utf8_lossy(&text));
        }
        let found = search.find(format!("url {PASSWORD}@host").as_bytes());
        assert_eq!(found, Some((2, 4)));
        assert_eq!(
            search.find(format!("{:?}", [7; 32]).as_bytes()),
            Some((0, 1))
        );
    }

    /// As JSON has an array.
    fn serde_like(key: &[u8]) -> Vec<u8> {
        let list: Vec<_> = key.iter().map(u8::to_string).collect();
        format!("[{}]", list.join(",")).into_bytes()
    }

    #[test]
    fn what_is_no_secret_is_not_found() {
        let search = Search::new(&[&hex([9; 32]), PASSWORD]).unwrap();
        let tabs = [b'\t'; 64];
        let shorter = hex([9; 32])[1..].to_owned();
        for text in [&tabs[..], shorter.as_bytes(), b"known only to its", b""] {
            assert_eq!(search.find(text), None);
        }
    }
}
