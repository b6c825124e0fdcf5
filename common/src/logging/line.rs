//! Pure. One line of the log, as text and as JSON, and read back again.
//!
//! ```text
//! 2026-11-22T12:26:42.123Z WARN 4007 logic-1 the database does not take batches error="disk full"
//! ──────── time, UTC ───── level code node   message                           fields
//!
//! {"time":"2026-11-22T12:26:42.123Z","level":"WARN","code":4007,"event":"BatchesNotTaken",
//!  "node":"logic-1","target":"logic_server::store","message":"the database …","fields":{"error":"disk full"}}
//! ```
//!
//! A line is one line whatever its fields hold: control characters are escaped, as JSON does it. So
//! nobody who can put text into a field can forge a line.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codes::Code;

/// Text of fields beyond it is cut off, so that a line stays below [`BYTES_MAX`].
const FIELD_BYTES_MAX: usize = 1_024;

/// A longer line is cut: nobody reads it, and queues of lines stay bounded.
pub const BYTES_MAX: usize = 4_096;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Format {
    /// Of the files.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "log",
            Self::Json => "jsonl",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub unix_ms: u64,
    /// `ERROR` to `TRACE`.
    pub level: &'static str,
    /// Of INFO and above.
    pub code: Option<u16>,
    pub node: String,
    /// The module that speaks.
    pub target: String,
    pub message: String,
    pub fields: Map<String, Value>,
}

impl Line {
    /// With its line feed.
    pub fn write(&self, format: Format, coloured: bool) -> String {
        let mut line = match format {
            Format::Text => self.text(coloured),
            Format::Json => self.json(),
        };
        line.push('\n');
        line
    }

    fn text(&self, coloured: bool) -> String {
        let time = rfc3339(self.unix_ms);
        let (begin, end) = match (coloured, self.level) {
            (false, _) => ("", ""),
            (true, "ERROR") => ("\x1b[31m", "\x1b[0m"),
            (true, "WARN") => ("\x1b[33m", "\x1b[0m"),
            (true, "INFO") => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[0m"),
        };
        let mut line = format!("{time} {begin}{}{end} ", self.level);
        match self.code {
            Some(code) => _ = write!(line, "{code} "),
            None => line.push_str("- "),
        }
        _ = write!(line, "{} {}", word(&self.node), escaped(&self.message));
        for (name, value) in &self.fields {
            _ = match value {
                Value::String(text) => {
                    write!(line, " {name}={}", quoted(cut(text, FIELD_BYTES_MAX)))
                }
                value => write!(line, " {name}={value}"),
            };
        }
        line.truncate(cut(&line, BYTES_MAX - 1).len());
        line
    }

    fn json(&self) -> String {
        let whole = self.json_with(self.fields_within(FIELD_BYTES_MAX), false);
        match whole.len() < BYTES_MAX {
            true => whole,
            // JSON that is cut is none: then the fields go.
            false => self.json_with(Map::new(), true),
        }
    }

    fn json_with(&self, fields: Map<String, Value>, cut_short: bool) -> String {
        let json = Json {
            time: rfc3339(self.unix_ms),
            level: self.level,
            code: self.code,
            event: self.code.and_then(Code::of).map(Code::name),
            node: &self.node,
            target: &self.target,
            message: cut(&self.message, FIELD_BYTES_MAX),
            fields,
            cut: cut_short,
        };
        let json = serde_json::to_string(&json).unwrap_or_default();
        // serde_json leaves U+007F to U+009F as they are, some of which steer terminals. Outside of
        // texts none stands.
        without_controls(&json)
    }

    fn fields_within(&self, bytes_max: usize) -> Map<String, Value> {
        let cut = |(name, value): (&String, &Value)| {
            let value = match value {
                Value::String(text) => cut(text, bytes_max).into(),
                value => value.clone(),
            };
            (name.clone(), value)
        };
        self.fields.iter().map(cut).collect()
    }
}

/// The keys of a line, in their order.
#[derive(Serialize)]
struct Json<'l> {
    time: String,
    level: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    node: &'l str,
    target: &'l str,
    message: &'l str,
    fields: Map<String, Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// What a line that was written says of itself; of either format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    pub unix_ms: u64,
    pub level: String,
    pub code: Option<u16>,
    pub node: String,
}

impl Heading {
    /// `None`: this is no line of ours, or not a whole one.
    pub fn read(line: &str) -> Option<Self> {
        match line.starts_with('{') {
            true => Self::from_json(line),
            false => Self::from_text(line),
        }
    }

    fn from_text(line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let unix_ms = unix_ms(words.next()?)?;
        let level = words.next()?;
        let code = words.next()?;
        let code = match code {
            "-" => None,
            code => Some(code.parse().ok()?),
        };
        let is_level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level);
        is_level.then_some(())?;
        Some(Self {
            unix_ms,
            level: level.to_owned(),
            code,
            node: words.next()?.to_owned(),
        })
    }

    fn from_json(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Written {
            time: String,
            level: String,
            code: Option<u16>,
            node: String,
        }
        let written: Written = serde_json::from_str(line).ok()?;
        Some(Self {
            unix_ms: unix_ms(&written.time)?,
            level: written.level,
            code: written.code,
            node: written.node,
        })
    }

    /// The day in UTC, as the files are named.
    pub fn day(&self) -> String {
        day(self.unix_ms)
    }
}

/// 2026-11-22.
pub fn day(unix_ms: u64) -> String {
    let mut text = rfc3339(unix_ms);
    text.truncate("2026-11-22".len());
    text
}

/// Beyond the year 9999 there is no such format.
fn rfc3339(unix_ms: u64) -> String {
    const LAST_MS: u64 = 253_402_300_799_999;
    let since = Duration::from_millis(unix_ms.min(LAST_MS));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

fn unix_ms(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// No more than so many bytes, whole letters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A node's name is a word; whatever else stood there would shift the columns.
fn word(name: &str) -> String {
    let is_word = |letter: char| !letter.is_whitespace() && !letter.is_control();
    let word: String = name.chars().filter(|&letter| is_word(letter)).collect();
    match word.is_empty() {
        true => "-".into(),
        false => word,
    }
}

/// As JSON writes it, without the quotation marks.
fn escaped(text: &str) -> String {
    let short = text
        .replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\t', "\\t");
    without_controls(&short)
}

fn without_controls(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter.is_control() {
            true => _ = write!(plain, "\\u{:04x}", u32::from(letter)),
            false => plain.push(letter),
        }
    }
    plain
}

fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte);
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!(
            "\"{}\"",
            escaped(&text.replace('\\', "\\\\").replace('"', "\\\""))
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line() -> Line {
        Line {
            unix_ms: 1_795_350_402_123,
            level: "WARN",
            code: Some(4_007),
            node: "logic-1".into(),
            target: "logic_server::store".into(),
            message: "the database does not take batches".into(),
            fields: Map::from_iter([
                ("error".to_owned(), "disk full".into()),
                ("rows".to_owned(), 17.into()),
                ("link".to_owned(), "3".into()),
            ]),
        }
    }

    #[test]
    fn both_formats_look_as_documented() {
        let text = "2026-11-22T12:26:42.123Z WARN 4007 logic-1 the database does not take batches \
                    error=\"disk full\" link=3 rows=17\n";
        assert_eq!(line().write(Format::Text, false), text);
        let json = line().write(Format::Json, false);
        let json: Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-22T12:26:42.123Z", "level": "WARN", "code": 4007, "event": "BatchesNotTaken",
            "node": "logic-1", "target": "logic_server::store",
            "message": "the database does not take batches",
            "fields": {"error": "disk full", "rows": 17, "link": "3"},
        });
        assert_eq!(json, expected);
        let docs = include_str!("../../../docs/logs.md");
        assert!(
            docs.contains(text.trim_end()),
            "docs/logs.md shows another line"
        );
    }

    #[test]
    fn what_is_no_line_is_not_read_as_one() {
        for no_line in [
            "",
            "{}",
            "WARN",
            "2026-11-22T12:26:42.123Z LOUD 1 a b",
            "{\"time\":1}",
        ] {
            assert_eq!(Heading::read(no_line), None, "{no_line}");
        }
        let without_code = "2026-11-22T12:26:42.123Z DEBUG - logic-1 x";
        assert_eq!(Heading::read(without_code).unwrap().code, None);
    }

    proptest! {
        #[test]
        fn whatever_stands_in_it_a_line_is_one_and_says_who_spoke(
            message in ".*", field in "(?s).{0,3000}", node in "[a-z0-9-]{1,20}", code in proptest::option::of(any::<u16>())
        ) {
            let line = Line {
                message,
                node: node.clone(),
                code,
                fields: Map::from_iter([("a".to_owned(), field.clone().into()), ("b".to_owned(), field.into())]),
                ..line()
            };
            for format in [Format::Text, Format::Json] {
                let written = line.write(format, false);
                prop_assert!(written.ends_with('\n') && written.len() <= 2 * BYTES_MAX);
                let one = written.trim_end_matches('\n');
                prop_assert!(!one.chars().any(char::is_control), "{:?}", one);
                let heading = Heading::read(one).unwrap();
                prop_assert_eq!(heading.unix_ms, line.unix_ms);
                prop_assert_eq!(heading.code, code);
                prop_assert_eq!(&heading.node, &node);
                prop_assert_eq!(heading.day(), "2026-11-22");
            }
        }
    }
}
