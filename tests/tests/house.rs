//! The rules of ARCHITECTURE.md that a compiler does not know.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// What a file that calls itself pure must not name: sockets, clocks, threads, files, databases,
/// randomness that no seed governs, logging.
const SHELLS: &[&str] = &[
    "tokio",
    "mio",
    "sqlx",
    "snow",
    "moka",
    "socket2",
    "tracing",
    "reqwest",
    "std::fs",
    "std::io::",
    "std::thread",
    "std::process",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "TcpListener",
    "Instant",
    "SystemTime",
    "OsRng",
    "SysRng",
    "ThreadRng",
    "thread_rng",
    "rand::rng(",
    "rand::random",
];

/// Where every file must be pure: the decisions.
const CORES: &[&str] = &[
    "balancer/src/conns.rs",
    "balancer/src/intake.rs",
    "balancer/src/pending.rs",
    "balancer/src/route.rs",
    "balancer/src/visit.rs",
    "common/src/codes.rs",
    "common/src/counters.rs",
    "common/src/database/clocks.rs",
    "common/src/epoch.rs",
    "common/src/histogram.rs",
    "common/src/fleet.rs",
    "common/src/ids.rs",
    "common/src/link/dialler.rs",
    "common/src/link/message.rs",
    "common/src/link/stamp.rs",
    "common/src/logging/line.rs",
    "common/src/logging/outage.rs",
    "common/src/logging/repeats.rs",
    "common/src/logging/retention.rs",
    "common/src/pacing.rs",
    "common/src/secret.rs",
    "common/src/time.rs",
    "conn-server/src/account.rs",
    "conn-server/src/accounts/freshness.rs",
    "conn-server/src/accounts/inquiries.rs",
    "conn-server/src/audit.rs",
    "conn-server/src/core.rs",
    "conn-server/src/core",
    "conn-server/src/desk.rs",
    "conn-server/src/directory.rs",
    "conn-server/src/effect.rs",
    "conn-server/src/epochs.rs",
    "conn-server/src/load.rs",
    "conn-server/src/login.rs",
    "conn-server/src/nonces.rs",
    "conn-server/src/pool.rs",
    "conn-server/src/throttle.rs",
    "logic-server/src/ask.rs",
    "logic-server/src/batch.rs",
    "logic-server/src/gate",
    "logic-server/src/shard",
    "logic-server/src/store/copy.rs",
    "logic-server/src/store/refusal.rs",
    "logic-server/src/ids.rs",
    "logic-server/src/presence.rs",
    "logic-server/src/reading.rs",
    "logic-server/src/wheel.rs",
    "logic-server/src/wire",
    "logic-server/src/writer.rs",
    "protocols/src",
    "rcu/src/demo/picture.rs",
    "rcu/src/screen/frame.rs",
    "rcu/src/screen/parts.rs",
    "rcu/src/simulate/picture.rs",
    "rcu/src/table.rs",
    "rcu/src/top/picture.rs",
    "records/src",
    "simulator/src/device",
    "simulator/src/drive.rs",
];

/// Tiers never know each other.
const TIERS: &[&str] = &["balancer", "conn-server", "logic-server"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

fn rust_files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.into()];
    }
    let mut files: Vec<_> = fs::read_dir(place)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path)
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                vec![path]
            } else {
                vec![]
            }
        })
        .collect();
    files.sort();
    files
}

fn sources() -> Vec<PathBuf> {
    [
        "balancer",
        "common",
        "conn-server",
        "logic-server",
        "protocols",
        "rcu",
        "records",
        "simulator",
    ]
    .iter()
    .flat_map(|krate| rust_files(&root().join(krate).join("src")))
    .collect()
}

/// The code of a file, by line: without comments, and without what is compiled for tests alone.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut of_tests: Option<OfTests> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let code = line.split("//").next().unwrap();
        let depth = line.len() - line.trim_start().len();
        let is_whole = code.trim_end().ends_with([';', '}']);
        let is_of_tests = match of_tests {
            None => {
                let begins = code.trim() == "#[cfg(test)]";
                of_tests = begins.then_some(OfTests::Attributes);
                begins
            }
            Some(OfTests::Attributes) => {
                let item = code.trim();
                if !item.is_empty() && !item.starts_with("#[") {
                    of_tests = (!is_whole).then_some(OfTests::Item { depth });
                }
                true
            }
            Some(OfTests::Item { depth: begun }) => {
                if depth == begun && is_whole {
                    of_tests = None;
                }
                true
            }
        };
        (!is_of_tests).then_some((index + 1, code))
    })
}

/// Where in an item of the tests a line stands.
#[derive(Clone, Copy)]
enum OfTests {
    /// Before it.
    Attributes,
    /// It ends with a whole line as far from the margin as it began.
    Item { depth: usize },
}

#[test]
fn only_what_is_of_the_tests_is_left_out() {
    let text = "\
one;
#[cfg(test)]
mod tests;
two; // three
#[cfg(test)]
#[allow(dead_code)]
fn four(
    five: u8,
) {
    six;
}
impl Seven {
    #[cfg(test)]
    fn eight() {
        nine;
    }

    fn ten() {}
}
#[cfg(test)]
use eleven::{Twelve};
thirteen
";
    let left = code(text).map(|(_, code)| code.trim());
    let left: Vec<_> = left.filter(|code| !code.is_empty()).collect();
    let expected = [
        "one;",
        "two;",
        "impl Seven {",
        "fn ten() {}",
        "}",
        "thirteen",
    ];
    assert_eq!(left, expected);
}

#[test]
fn a_pure_file_names_no_shell() {
    let mut pure = 0;
    let mut faults = vec![];
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        if !text.starts_with("//! Pure.") {
            continue;
        }
        pure += 1;
        for (line, code) in code(&text) {
            for shell in SHELLS.iter().filter(|shell| names(code, shell)) {
                faults.push(format!("{}:{line}: {shell}", file.display()));
            }
        }
    }
    assert!(pure >= CORES.len(), "only {pure} pure files were found");
    assert!(
        faults.is_empty(),
        "shells in pure files:\n{}",
        faults.join("\n")
    );
}

/// Whether `code` names `shell` as a word, not as a part of a longer one.
fn names(code: &str, shell: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(shell).any(|(at, found)| {
        let is_part_before = code[..at].bytes().next_back().is_some_and(word);
        let ends_in_word = found.bytes().next_back().is_some_and(word);
        let is_part_after = code[at + found.len()..].bytes().next().is_some_and(word);
        !(is_part_before || (ends_in_word && is_part_after))
    })
}

#[test]
fn the_purity_check_can_fail() {
    assert!(names("use tokio::time;", "tokio"));
    assert!(names("let now = Instant::now();", "Instant"));
    assert!(!names("let instantly = 3;", "Instant"));
    assert!(!names("fn mio_less()", "mio"));
}

#[test]
fn every_decision_stands_in_a_pure_file() {
    for place in CORES {
        for file in rust_files(&root().join(place)) {
            if file.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("//! Pure."),
                "{} is a core and must begin with `//! Pure.`",
                file.display()
            );
        }
    }
}

#[test]
fn tiers_do_not_know_each_other_and_what_they_share_knows_none_of_them() {
    let shared = ["common", "protocols", "records", "simulator"];
    for krate in TIERS.iter().chain(&shared) {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        let above: &[&str] = match *krate {
            "common" => &["simulator", "rcu", "protocols", "records"],
            "records" => &["simulator", "rcu", "protocols", "common"],
            _ => &["simulator", "rcu"],
        };
        for other in TIERS.iter().chain(above) {
            assert!(
                !dependencies
                    .lines()
                    .any(|line| line.starts_with(&format!("{other} "))
                        || line.starts_with(&format!("{other}."))),
                "{krate} depends on {other}"
            );
        }
    }
}

#[test]
fn bincode_is_named_in_one_file() {
    let users: Vec<_> = sources()
        .into_iter()
        .filter(|file| {
            code(&fs::read_to_string(file).unwrap()).any(|(_, code)| code.contains("bincode"))
        })
        .collect();
    assert_eq!(users, [root().join("common/src/link/wire.rs")]);
}

#[test]
fn what_a_unit_names_as_its_document_is_installed() {
    let operate = fs::read_to_string(root().join("docs/operate.md")).unwrap();
    let installs = |directory: &str| {
        operate.lines().any(|line| {
            line.starts_with("install ") && line.contains(directory) && line.contains("docs/*.md")
        })
    };
    let units = fs::read_dir(root().join("config/systemd")).unwrap();
    let mut found = 0;
    for unit in units {
        let text = fs::read_to_string(unit.unwrap().path()).unwrap();
        let documents = text
            .lines()
            .filter_map(|line| line.strip_prefix("Documentation=file:"));
        for document in documents.map(Path::new) {
            found += 1;
            let directory = document.parent().unwrap().to_str().unwrap();
            assert!(
                installs(directory),
                "no step installs {}",
                document.display()
            );
            assert!(
                root()
                    .join("docs")
                    .join(document.file_name().unwrap())
                    .exists()
            );
        }
    }
    assert_eq!(found, 3);
}

/// The macros panic where nobody reads or the disk is full.
#[test]
fn programs_print_through_one_file() {
    let output = root().join("common/src/process/output.rs");
    let mut faults = vec![];
    for file in sources().into_iter().filter(|file| *file != output) {
        let text = fs::read_to_string(&file).unwrap();
        for (line, code) in code(&text) {
            let printed = ["println!", "eprintln!", "print!", "eprint!", "io::stdout()"];
            if let Some(how) = printed.iter().find(|how| names(code, how)) {
                faults.push(format!("{}:{line}: {how}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_crates_have_no_mutable_statics() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let mut is_allocator = false;
        for (line, code) in code(&text) {
            let code = code.trim_start();
            // A process has one allocator, whatever runs in it.
            if std::mem::replace(&mut is_allocator, code == "#[global_allocator]") {
                continue;
            }
            assert!(
                !code.starts_with("static ") && !code.starts_with("pub static "),
                "{}:{line}: a static; several nodes share a process",
                file.display()
            );
        }
    }
}
