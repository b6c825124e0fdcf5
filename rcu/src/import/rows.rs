//! Pure. A list of accounts as people write it: `account[,key]`, one a line; every mistake in it.
//!
//! A first line that names the columns is passed over, and so are empty lines, quotes around a
//! column and the mark that some programs put before the first character.

use std::collections::HashMap;
use std::fmt::Write;

use common::ids::{AccountName, NameError};
use common::link::secret_from_hex;
use common::secret::DeviceKey;

/// An account that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) line: u32,
    pub(crate) account: AccountName,
    /// `None`: one is to be made.
    pub(crate) key: Option<DeviceKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: u32,
    pub(crate) what: String,
}

/// Names of the columns.
const HEADERS: [&str; 4] = ["account,key", "account", "name,key", "name"];

/// All rows and all mistakes, each in the order of the lines.
pub(crate) fn parse(text: &str) -> (Vec<Row>, Vec<Mistake>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut rows, mut mistakes) = (Vec::new(), Vec::new());
    let mut seen: HashMap<AccountName, u32> = HashMap::new();
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        let is_header = || HEADERS.contains(&unquoted(text).to_ascii_lowercase().as_str());
        if text.is_empty() || (line == 1 && is_header()) {
            continue;
        }
        let read = row(line, text).and_then(|row| match seen.get(&row.account) {
            Some(first) => Err(format!("{} stands in line {first} already", row.account)),
            None => Ok(row),
        });
        match read {
            Ok(row) => {
                seen.insert(row.account.clone(), line);
                rows.push(row);
            }
            Err(what) => mistakes.push(Mistake { line, what }),
        }
    }
    (rows, mistakes)
}

/// Never says what stands in a key's place: it may be one.
fn row(line: u32, text: &str) -> Result<Row, String> {
    let text = unquoted(text);
    let mut columns = text.split(',').map(str::trim);
    let account = columns.next().unwrap_or_default();
    let key = columns.next().filter(|key| !key.is_empty());
    if columns.next().is_some() {
        return Err("more than two columns: account,key".into());
    }
    let account = account
        .parse()
        .map_err(|error: NameError| error.to_string())?;
    let key = match key {
        Some(key) => Some(secret_from_hex(key).ok_or("a key is 64 hex digits")?),
        None => None,
    };
    Ok(Row { line, account, key })
}

/// No column holds a quote or a comma, so that quotes mean nothing.
fn unquoted(text: &str) -> String {
    text.replace('"', "")
}

/// Line numbers in order, neighbours together: `2-5, 9`.
pub(crate) fn ranges(lines: &[u32]) -> String {
    let mut text = String::new();
    for run in lines.chunk_by(|a, b| a + 1 == *b) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // Writing to a String cannot fail.
        let _ = match run {
            [first, .., last] => write!(text, "{first}-{last}"),
            [only] => write!(text, "{only}"),
            [] => Ok(()),
        };
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn read(text: &str) -> Vec<(u32, String, bool)> {
        let (rows, mistakes) = parse(text);
        assert_eq!(mistakes, [], "{text:?}");
        let rows = rows.into_iter();
        rows.map(|row| (row.line, row.account.to_string(), row.key.is_some()))
            .collect()
    }

    #[test]
    fn lists_are_read_as_spreadsheets_write_them() {
        let expected = [(2, "a".into(), true), (3, "b".into(), false)];
        for text in [
            format!("account,key\na,{KEY}\nb\n"),
            format!("Name,Key\r\na,{KEY}\r\nb,\r\n\r\n"),
            format!("\u{feff}\"account\",\"key\"\n\"a\",\"{KEY}\"\n\"b\",\"\""),
            format!("\n a , {KEY} \n b"),
        ] {
            assert_eq!(read(&text), expected, "{text:?}");
        }
        assert_eq!(
            read("a\nb"),
            [(1, "a".into(), false), (2, "b".into(), false)]
        );
        assert_eq!(read(""), []);
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_no_key_is_shown() {
        let text = format!(
            "account,key\na b,{KEY}\nb,{}\nc\nd,{KEY},x\nc,{KEY}\nname\n,\n",
            &KEY[1..]
        );
        let (rows, mistakes) = parse(&text);
        assert_eq!(rows.len(), 2, "c, and an account of the name `name`");
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [2, 3, 5, 6, 8]);
        let told: Vec<_> = mistakes.iter().map(|mistake| &*mistake.what).collect();
        assert!(told[0].starts_with("an account is 1 to 32"));
        assert_eq!(told[1], "a key is 64 hex digits");
        assert_eq!(told[2], "more than two columns: account,key");
        assert_eq!(told[3], "c stands in line 4 already");
        assert!(!told.concat().contains(&KEY[2..10]));
    }

    #[test]
    fn neighbouring_lines_are_told_together() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[7]), "7");
        assert_eq!(ranges(&[2, 3, 4, 9, 11, 12]), "2-4, 9, 11-12");
    }
}
