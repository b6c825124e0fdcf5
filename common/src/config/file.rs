//! Reads a configuration: a TOML file, overridden by the environment, told with all its mistakes at once.
//!
//! ```text
//! file ──▶ table ◀── RCU_BALANCER__LISTEN="0.0.0.0:10000"
//!            │
//!            ▼
//!        settings ── what does not fit is told, taken out, and the rest is read again
//!            │
//!            ▼
//!         checked ── values that are wrong together, or out of range
//! ```

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// What a variable begins with that overrides a key: `RCU_LOGIC_SERVER__WINDOW=16` for `window` in
/// `[logic_server]`.
pub const PREFIX: &str = "RCU_";

/// What stands in it between the levels of the key.
const BETWEEN_LEVELS: &str = "__";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}", told(.0))]
    Mistakes(Vec<Mistake>),
}

/// Something wrong in a configuration, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    /// What is wrong with which key.
    pub what: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(PathBuf, usize),
    /// The key does not stand in the file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// The key has its default, and there is no file.
    Nowhere,
}

impl Place {
    fn line(&self) -> usize {
        match self {
            Self::Line(_, line) => *line,
            Self::File(_) | Self::Variable(_) | Self::Nowhere => usize::MAX,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = &self.what;
        match &self.place {
            Place::Line(path, line) => write!(f, "{}:{line}: {what}", path.display()),
            Place::File(path) => write!(f, "{}: {what}", path.display()),
            Place::Variable(name) => write!(f, "{name}: {what}"),
            Place::Nowhere => f.write_str(what),
        }
    }
}

fn told(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [only] => format!("wrong configuration: {only}"),
        all => format!(
            "{} mistakes in the configuration:\n  {}",
            all.len(),
            all.join("\n  ")
        ),
    }
}

/// Reads `path` (`None`: every key has its default), overridden by those of `variables` that begin with
/// [`PREFIX`] and have a `__`. `check` tells what is wrong in settings that could be read, each
/// mistake beginning with its key and a colon; it may fill in what follows from the machine.
///
/// # Errors
/// The file cannot be read; or all mistakes that were found.
pub fn load<T: DeserializeOwned>(
    path: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    check: impl FnOnce(&mut T) -> Vec<String>,
) -> Result<T, ConfigError> {
    let text = match path {
        Some(path) => fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?,
        None => String::new(),
    };
    let overrides = Override::all(variables);
    let mut written = Written::new(path, &text, &overrides);
    if !written.mistakes.is_empty() {
        // What is no TOML was not understood: more mistakes would only be guessed.
        return Err(ConfigError::Mistakes(written.mistakes));
    }
    written.take_overrides();
    let mut settings = written.read();
    if let Some(settings) = &mut settings {
        written.check(check(settings));
    }
    match settings {
        Some(settings) if written.mistakes.is_empty() => Ok(settings),
        _ => {
            // As whoever mends them goes through the file; then what stands in no line.
            written.mistakes.sort_by_key(|mistake| mistake.place.line());
            Err(ConfigError::Mistakes(written.mistakes))
        }
    }
}

/// The variables of this process, for [`load`]; those that are no UTF-8 override nothing.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text)
}

/// A variable that overrides a key.
struct Override {
    variable: String,
    /// The levels of the key.
    key: Vec<String>,
    value: String,
}

impl Override {
    fn all(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Self> {
        let parsed = variables.into_iter().filter_map(|(variable, value)| {
            let key = variable.strip_prefix(PREFIX)?;
            let key: Vec<_> = key.split(BETWEEN_LEVELS).map(str::to_lowercase).collect();
            (key.len() > 1).then_some(Self {
                variable,
                key,
                value,
            })
        });
        let mut all: Vec<_> = parsed.collect();
        all.sort_by(|a, b| a.variable.cmp(&b.variable));
        all
    }
}

/// A configuration as it is written, and what was found wrong in it.
struct Written<'a> {
    path: Option<&'a Path>,
    text: &'a str,
    overrides: &'a [Override],
    /// The value of an override has the place behind the text that its number gives it.
    table: Spanned<DeTable<'a>>,
    /// Keys that did not fit. What is checked afterwards is their defaults, which nobody wrote.
    taken: Vec<String>,
    mistakes: Vec<Mistake>,
}

impl<'a> Written<'a> {
    fn new(path: Option<&'a Path>, text: &'a str, overrides: &'a [Override]) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut written = Self {
            path,
            text,
            overrides,
            table,
            taken: vec![],
            mistakes: vec![],
        };
        for error in errors {
            written.blame(error.span(), error.message().into());
        }
        written
    }

    fn take_overrides(&mut self) {
        for (index, it) in (1..).zip(self.overrides) {
            let at = self.text.len() + index;
            let span = at..at + 1;
            if put(self.table.get_mut(), &it.key, &it.value, span.clone()).is_err() {
                let key = it.key.join(".");
                self.blame(Some(span), format!("{key} is no table"));
            }
        }
    }

    /// The settings, without what does not fit.
    fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            let error = match T::deserialize(Deserializer::from(self.table.clone())) {
                Ok(settings) => return Some(settings),
                Err(error) => error,
            };
            let span = error.span();
            let table = self.table.get_mut();
            let removed = span.as_ref().and_then(|span| remove(table, span));
            let key = removed.map(|key| key.join("."));
            let what = match &key {
                Some(key) => format!("{key}: {}", error.message()),
                None => error.message().into(),
            };
            // A table that lacks what was taken out of it was told already.
            let lacks_taken = key.as_ref().is_some_and(|key| {
                let missing = |taken: &String| {
                    let name = taken.strip_prefix(key.as_str())?.strip_prefix('.')?;
                    Some(format!("missing field `{name}`"))
                };
                let mut missing = self.taken.iter().filter_map(missing);
                missing.any(|missing| missing == error.message())
            });
            if !lacks_taken {
                self.blame(span, what);
            }
            // Each round takes a key out; what cannot be taken out ends it.
            self.taken.push(key?);
        }
    }

    fn check(&mut self, mistakes: Vec<String>) {
        for what in mistakes {
            let key = what.split(':').next().unwrap_or_default();
            let is_below = |taken: &String| {
                let rest = key.strip_prefix(taken.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if self.taken.iter().any(is_below) {
                continue;
            }
            // Of a variable that overrides no key.
            if key.starts_with(PREFIX)
                && let Some((variable, what)) = what.split_once(": ")
            {
                let place = Place::Variable(variable.into());
                let what = what.into();
                self.mistakes.push(Mistake { place, what });
                continue;
            }
            let span = span_of(self.table.get_ref(), key.split('.'));
            self.blame(span, what);
        }
    }

    /// No span: the key is not written anywhere.
    fn blame(&mut self, span: Option<Range<usize>>, what: String) {
        let place = self.place(span);
        self.mistakes.push(Mistake { place, what });
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let number = |span: &Range<usize>| span.start.checked_sub(self.text.len() + 1);
        let variable = span
            .as_ref()
            .and_then(number)
            .and_then(|number| self.overrides.get(number));
        match (self.path, span, variable) {
            (_, _, Some(it)) => Place::Variable(it.variable.clone()),
            (None, _, None) => Place::Nowhere,
            (Some(path), None, None) => Place::File(path.into()),
            (Some(path), Some(span), None) => {
                let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                Place::Line(path.into(), line)
            }
        }
    }
}

/// What a variable gives stands in the place of a table.
struct NoTable;

/// Puts a variable's value in, and the tables above it.
fn put<'a>(
    table: &mut DeTable<'a>,
    key: &'a [String],
    value: &'a str,
    span: Range<usize>,
) -> Result<(), NoTable> {
    let Some((first, rest)) = key.split_first() else {
        return Ok(());
    };
    let name = Spanned::new(span.clone(), first.as_str().into());
    if rest.is_empty() {
        // A text needs no quotes: what is no other value is one.
        let value = DeValue::parse(value)
            .map_or_else(|_| DeValue::String(value.into()), Spanned::into_inner);
        table.insert(name, Spanned::new(span, value));
        return Ok(());
    }
    let below = table
        .entry(name)
        .or_insert_with(|| Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    match below.get_mut() {
        DeValue::Table(below) => put(below, rest, value, span),
        _ => Err(NoTable),
    }
}

/// Takes out the innermost entry that holds the span; returns its key.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (name, value) in table.iter_mut() {
        if let DeValue::Table(below) = value.get_mut()
            && let Some(mut key) = remove(below, span)
        {
            key.insert(0, name.get_ref().to_string());
            return Some(key);
        }
    }
    let found = table
        .iter()
        .find(|(name, value)| holds(name.span()) || holds(value.span()))
        .map(|(name, _)| name.get_ref().to_string())?;
    table.remove(found.as_str());
    Some(vec![found])
}

/// Where a key is written.
fn span_of<'k>(
    table: &DeTable<'_>,
    mut key: impl Iterator<Item = &'k str>,
) -> Option<Range<usize>> {
    let mut value = table.get(key.next()?)?;
    for name in key {
        value = value.get_ref().as_table()?.get(name)?;
    }
    Some(value.span())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        balancer: Balancer,
        log: Log,
        database: Option<Database>,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Database {
        url: SocketAddr,
    }

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Balancer {
        #[serde(deserialize_with = "crate::config::one_or_many")]
        listen: Vec<SocketAddr>,
        burst: u32,
        rate: u32,
    }

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Log {
        format: String,
        days: Option<u8>,
    }

    fn check(settings: &mut Settings) -> Vec<String> {
        let is_wrong = settings.balancer.rate > 0 && settings.balancer.burst == 0;
        is_wrong
            .then(|| "balancer.burst: at least 1".to_owned())
            .into_iter()
            .collect()
    }

    /// Under the name `x.toml`.
    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        fs::write(&path, text).unwrap();
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&path), variables, check).map_err(|error| match error {
            ConfigError::Mistakes(mistakes) => {
                let directory = format!("{}/", directory.path().display());
                let told = mistakes
                    .iter()
                    .map(|it| it.to_string().replace(&directory, ""));
                told.collect()
            }
            ConfigError::Read { .. } => panic!("{error}"),
        })
    }

    #[test]
    fn a_file_is_read_and_overridden() {
        let text = "[balancer]\nlisten = \"127.0.0.1:1\"\nrate = 5\nburst = 6\n";
        let variables = [
            ("RCU_BALANCER__RATE", "7"),
            ("RCU_LOG__FORMAT", "json"),
            ("RCU_LOG", "debug"),
            ("PATH__X", "no prefix"),
        ];
        let settings = read(text, &variables).unwrap();
        assert_eq!((settings.balancer.rate, settings.balancer.burst), (7, 6));
        assert_eq!(settings.log.format, "json");
        assert_eq!(settings.balancer.listen.len(), 1);
        let none: Settings = load(None, [], check).unwrap();
        assert_eq!(none, Settings::default());
    }

    #[test]
    fn a_list_and_a_text_that_looks_like_a_number_can_be_given_by_a_variable() {
        let listen = r#"["127.0.0.1:1", "[::1]:2"]"#;
        let variables = [("RCU_BALANCER__LISTEN", listen), ("RCU_LOG__FORMAT", "'5'")];
        let settings = read("", &variables).unwrap();
        assert_eq!(settings.balancer.listen.len(), 2);
        assert_eq!(settings.log.format, "5");
    }

    #[test]
    fn all_mistakes_are_told_together_each_with_its_place() {
        let text = "[balancer]\nlisten = \"nowhere\"\nrate = -1\nburts = 3\n\n[log]\ndays = 999\n\
                    [locks]\nx = 1\n";
        let variables = [("RCU_BALANCER__BURST", "many"), ("RCU_LOG__FROMAT", "x")];
        let told = read(text, &variables).unwrap_err();
        let begins = [
            "x.toml:2: balancer.listen: \"nowhere\": invalid socket address",
            "x.toml:3: balancer.rate: invalid value",
            "x.toml:4: balancer.burts: unknown field `burts`",
            "x.toml:7: log.days: invalid value",
            "x.toml:8: locks: unknown field `locks`",
            "RCU_BALANCER__BURST: balancer.burst: invalid type: string \"many\"",
            "RCU_LOG__FROMAT: log.fromat: unknown field `fromat`",
        ];
        assert_eq!(told.len(), begins.len(), "{told:#?}");
        for (told, begin) in told.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told:?} is not {begin:?}");
        }
    }

    #[test]
    fn what_is_wrong_together_is_told_where_the_key_is_written() {
        let told = read("[balancer]\nrate = 1\nburst = 0\n", &[]).unwrap_err();
        assert_eq!(told, ["x.toml:3: balancer.burst: at least 1"]);
        let told = read("[balancer]\nrate = 1\n", &[]).unwrap_err();
        assert_eq!(told, ["x.toml: balancer.burst: at least 1"]);
        let told = read("[balancer]\nrate = 1\n", &[("RCU_BALANCER__BURST", "0")]).unwrap_err();
        assert_eq!(told, ["RCU_BALANCER__BURST: balancer.burst: at least 1"]);
    }

    #[test]
    fn the_default_of_a_key_that_was_not_understood_is_not_blamed() {
        let told = read("[balancer]\nrate = 1\nburst = \"many\"\n", &[]).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("x.toml:3: balancer.burst: invalid type"));
    }

    #[test]
    fn a_needed_key_that_is_wrong_is_not_missing_too() {
        let told = read("[database]\nurl = \"x\"\n", &[]).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("x.toml:2: database.url: "), "{told:?}");
        let told = read("[log]\ndays = 1\n[database]\n", &[]).unwrap_err();
        assert_eq!(told, ["x.toml:3: database: missing field `url`"]);
    }

    #[test]
    fn what_is_no_toml_is_told_with_every_line() {
        let told = read("[balancer\nrate = 1\n[log]\nformat = = 2\n", &[]).unwrap_err();
        let lines: Vec<_> = told.iter().map(|it| &it[..8]).collect();
        assert_eq!(lines, ["x.toml:1", "x.toml:4", "x.toml:4"], "{told:?}");
    }

    #[test]
    fn a_variable_below_a_value_is_told() {
        let told = read("[log]\nformat = \"x\"\n", &[("RCU_LOG__FORMAT__X", "1")]).unwrap_err();
        assert_eq!(told, ["RCU_LOG__FORMAT__X: log.format.x is no table"]);
    }
}
