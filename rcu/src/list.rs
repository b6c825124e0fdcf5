//! Pure. A list of accounts as people write it: `account[,key]`, one a line; every mistake in it.
//!
//! A first line that names the columns is passed over, and so are empty lines, quotes around a
//! column and the mark that some programs put before the first character. Where a comma is the decimal
//! sign, programs put semicolons between columns, others tabs: no name and no key has one of the three.

use std::collections::HashMap;
use std::fmt::Write;

use common::ids::{AccountName, NameError};
use common::link::secret_from_hex;
use common::secret::DeviceKey;
use serde::Serialize;

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

/// All rows and all mistakes, each in the order of the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) rows: Vec<Row>,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) separator: Separator,
}

/// What stands between two columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Separator {
    Comma,
    Semicolon,
    Tab,
}

impl Separator {
    const ALL: [Self; 3] = [Self::Comma, Self::Semicolon, Self::Tab];

    fn char(self) -> char {
        match self {
            Self::Comma => ',',
            Self::Semicolon => ';',
            Self::Tab => '\t',
        }
    }

    /// The first in the list.
    fn of(text: &str) -> Self {
        let which = |char| Self::ALL.into_iter().find(|it| it.char() == char);
        text.chars().find_map(which).unwrap_or(Self::Comma)
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Comma => "a comma",
            Self::Semicolon => "a semicolon",
            Self::Tab => "a tab",
        }
    }
}

/// Names of the columns.
const HEADERS: [&[&str]; 4] = [
    &["account", "key"],
    &["account"],
    &["name", "key"],
    &["name"],
];

pub(crate) fn parse(text: &str) -> List {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let separator = Separator::of(text);
    let (mut rows, mut mistakes) = (Vec::new(), Vec::new());
    let mut seen: HashMap<AccountName, u32> = HashMap::new();
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        let text = unquoted(text);
        let columns: Vec<_> = text.split(separator.char()).map(str::trim).collect();
        if text.is_empty() || (line == 1 && is_header(&columns)) {
            continue;
        }
        let read = row(line, &columns).and_then(|row| match seen.get(&row.account) {
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
    List {
        rows,
        mistakes,
        separator,
    }
}

fn is_header(columns: &[&str]) -> bool {
    let is_one = |header: &&[&str]| {
        let mut both = header.iter().zip(columns);
        header.len() == columns.len()
            && both.all(|(name, column)| column.eq_ignore_ascii_case(name))
    };
    HEADERS.iter().any(is_one)
}

/// Never says what stands in a key's place: it may be one.
fn row(line: u32, columns: &[&str]) -> Result<Row, String> {
    let (account, key) = match *columns {
        [account] | [account, ""] => (account, None),
        [account, key] => (account, Some(key)),
        _ => return Err("more than two columns: account and key".into()),
    };
    let account = account
        .parse()
        .map_err(|error: NameError| error.to_string())?;
    let key = match key {
        Some(key) => Some(secret_from_hex(key).ok_or("a key is 64 hex digits")?),
        None => None,
    };
    Ok(Row { line, account, key })
}

/// No column holds a quote or a separator, so that quotes mean nothing.
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
        let List { rows, mistakes, .. } = parse(text);
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
            format!("account;key\r\na;{KEY}\r\nb;\r\n"),
            format!("\u{feff}\"Account\";\"Key\"\n\"a\";\"{KEY}\"\nb"),
            format!("name\tkey\na\t{KEY}\nb\t\n"),
            format!("account\na;{KEY}\nb\n"),
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
    fn a_list_has_one_separator() {
        for (text, separator) in [
            ("a\nb\n", Separator::Comma),
            ("account;key\n", Separator::Semicolon),
            ("a\nb\tc\n", Separator::Tab),
        ] {
            assert_eq!(parse(text).separator, separator, "{text:?}");
        }
        let mixed = parse("account;key\na,b\n");
        assert_eq!(mixed.mistakes.len(), 1, "{mixed:?}");
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_no_key_is_shown() {
        let text = format!(
            "account,key\na b,{KEY}\nb,{}\nc\nd,{KEY},x\nc,{KEY}\nname\n,\n",
            &KEY[1..]
        );
        let List { rows, mistakes, .. } = parse(&text);
        assert_eq!(rows.len(), 2, "c, and an account of the name `name`");
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [2, 3, 5, 6, 8]);
        let told: Vec<_> = mistakes.iter().map(|mistake| &*mistake.what).collect();
        assert!(told[0].starts_with("an account is 1 to 32"));
        assert_eq!(told[1], "a key is 64 hex digits");
        assert_eq!(told[2], "more than two columns: account and key");
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
