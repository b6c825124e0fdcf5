//! Every line of INFO and above that the product logs carries a code of the catalogue, at its level.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::codes::Code;
use common::logging::LogSettings;

/// The crates whose lines an operator reads, and the thousand that their codes begin with besides 1.
const SPEAKERS: &[(&str, u16)] = &[
    ("common", 1),
    ("balancer", 2),
    ("conn-server", 3),
    ("logic-server", 4),
    ("rcu", 5),
];

/// Macros that log at a level which has codes, by the level's name.
const LOUD: &[(&str, &str)] = &[("error", "ERROR"), ("warn", "WARN"), ("info", "INFO")];

/// Whether a line of code would get by these rules: a level that is no literal, or a macro under
/// another name.
fn is_forbidden(line: &str) -> bool {
    let line = line.trim_start();
    let imported = line.strip_prefix("use tracing::").unwrap_or_default();
    let mut words = imported.split(|letter: char| !letter.is_ascii_alphanumeric());
    line.contains("tracing::event!")
        || imported.contains('*')
        || words.any(|word| ["event", "info", "warn", "error"].contains(&word))
}

/// A call that logs, as it stands in a source.
struct Call {
    place: String,
    level: &'static str,
    arguments: String,
}

impl Call {
    /// The name of its code.
    fn code(&self) -> Option<&str> {
        let arguments = self.arguments.trim_start();
        // Of what operators do.
        let of_audit = arguments
            .strip_prefix("target: AUDIT,")
            .map(str::trim_start);
        let rest = of_audit
            .unwrap_or(arguments)
            .strip_prefix("code = Code::")?;
        let (name, rest) = rest.split_once('.')?;
        rest.starts_with("number()").then_some(name)
    }
}

fn rust_files(place: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn sources() -> impl Iterator<Item = (u16, PathBuf, String)> {
    SPEAKERS.iter().flat_map(|&(krate, thousand)| {
        rust_files(&root().join(krate).join("src"))
            .into_iter()
            .filter(|file| !file.ends_with("tests.rs"))
            .map(move |file| {
                let text = fs::read_to_string(&file).unwrap();
                (thousand, file, text)
            })
    })
}

/// The calls of a text; comments hold none.
fn calls(name: &str, text: &str) -> Vec<Call> {
    let without_comments: Vec<_> = text
        .lines()
        .map(|line| match line.trim_start().starts_with("//") {
            true => "",
            false => line,
        })
        .collect();
    let text = without_comments.join("\n");
    let mut calls = vec![];
    for &(level, shown) in LOUD {
        let call = format!("tracing::{level}!(");
        for (at, _) in text.match_indices(&call) {
            let arguments = &text[at + call.len()..];
            let line = 1 + text[..at].matches('\n').count();
            calls.push(Call {
                place: format!("{name}:{line}"),
                level: shown,
                arguments: arguments[..end_of(arguments)].to_owned(),
            });
        }
    }
    calls
}

/// Where the parenthesis closes that is open at the beginning.
fn end_of(text: &str) -> usize {
    let (mut depth, mut in_text, mut escaped) = (1, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a call without an end");
}

fn faults_of(thousand: u16, calls: &[Call]) -> Vec<String> {
    let mut faults = vec![];
    for call in calls {
        let place = &call.place;
        let named = call.code();
        let code = named.and_then(|name| Code::ALL.iter().find(|code| code.name() == name));
        match (named, code) {
            (None, _) => faults.push(format!("{place}: begins with no `code = Code::…number()`")),
            (Some(name), None) => faults.push(format!("{place}: {name} is no code")),
            (Some(name), Some(code)) => {
                if code.level().name() != call.level {
                    faults.push(format!("{place}: {name} is {}", code.level().name()));
                }
                if ![1, thousand].contains(&(code.number() / 1_000)) {
                    faults.push(format!("{place}: {name} is of the {}", code.speaker()));
                }
            }
        }
    }
    faults
}

#[test]
fn every_line_of_info_and_above_has_a_code_of_its_speaker_at_its_level() {
    let (mut found, mut faults) = (0, vec![]);
    for (thousand, file, text) in sources() {
        let name = file.display().to_string();
        let calls = calls(&name, &text);
        found += calls.len();
        faults.extend(faults_of(thousand, &calls));
        let forbidden = text.lines().filter(|line| is_forbidden(line));
        faults.extend(forbidden.map(|line| format!("{name}: {line}")));
    }
    assert!(found >= 20, "only {found} calls were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_code_stands_in_the_catalogue_in_vain() {
    let mut used: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let sources: Vec<_> = sources().collect();
    for code in Code::ALL {
        let word = format!("Code::{}.", code.name());
        let files = sources.iter().filter(|(_, file, text)| {
            !file.ends_with("common/src/codes.rs") && text.contains(&word)
        });
        let files = files.map(|(_, file, _)| file.display().to_string());
        used.insert(code.name(), files.collect());
    }
    let unused: Vec<_> = used.iter().filter(|(_, files)| files.is_empty()).collect();
    assert!(unused.is_empty(), "no line has these codes: {unused:?}");
}

#[test]
fn every_crate_that_logs_is_one_that_a_filter_may_name() {
    let manifests = fs::read_dir(root()).unwrap().filter_map(|entry| {
        let directory = entry.unwrap().path();
        directory.join("Cargo.toml").is_file().then_some(directory)
    });
    let logs = |krate: &Path| {
        let files = rust_files(&krate.join("src"));
        let mut texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
        texts.any(|text| text.contains("tracing::"))
    };
    let named = |krate: PathBuf| {
        let krate = krate.file_name().unwrap().to_string_lossy().into_owned();
        krate.replace('-', "_")
    };
    let crates = manifests.filter(|krate| krate.join("src").is_dir() && logs(krate));
    let crates: Vec<_> = crates.map(named).collect();
    assert!(crates.len() >= SPEAKERS.len(), "{crates:?}");
    for krate in crates {
        let mistakes = LogSettings::to_stderr(&krate).check();
        assert!(mistakes.is_empty(), "{mistakes:?}");
    }
}

#[test]
fn these_checks_can_fail() {
    let text = "
        tracing::info!(code = Code::LinkUp.number(), %link, \"link (up\");
        // tracing::info!(\"a comment\");
        tracing::warn!(code = Code::LinkUp.number(), why = f(\")\"), \"wrong level\");
        tracing::error!(%error, \"no code\");
        tracing::info!(code = Code::Nothing.number());
        tracing::info!(code = Code::BalancerRuns.number());
        tracing::debug!(\"needs none\");
    ";
    let faults = faults_of(3, &calls("x", text));
    let mut places: Vec<_> = faults.iter().map(|fault| &fault[..4]).collect();
    places.sort_unstable();
    assert_eq!(places, ["x:4:", "x:5:", "x:6:", "x:7:"], "{faults:?}");
    for (line, forbidden) in [
        ("use tracing::{Instrument, Span};", false),
        ("use tracing::{info, Span};", true),
        ("    use tracing::*;", true),
        ("tracing::event!(level, \"x\");", true),
    ] {
        assert_eq!(is_forbidden(line), forbidden, "{line}");
    }
}
