//! What the programs of a test run say, kept for a search for secrets (P8), with the secrets.
//!
//! ```text
//! test ─┬─ keep ───▶ DIR/said/     ┐
//!       ╰─ secret ─▶ DIR/secrets/  ┴─▶ `leaks DIR`, at the end of scripts/test
//! ```
//!
//! `scripts/test` names the directory in `RCU_TEST_RUN`; where nobody does, nothing is kept.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

const RUN: &str = "RCU_TEST_RUN";

/// Keeps a file that a program wrote, as it is now.
///
/// # Panics
/// It cannot be kept: what is not searched must not pass for clean.
pub fn keep(written: &Path) {
    let Some(run) = run() else {
        return;
    };
    // Numbers of processes come again within a long run.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let at_ns = since.unwrap_or_default().as_nanos();
    let name = written.file_name().unwrap_or_default().to_string_lossy();
    let kept = run.join(format!("said/{at_ns}-{}-{name}", process::id()));
    fs::copy(written, kept).expect("what was said is kept");
}

/// Likewise every file of a directory, where there is one.
///
/// # Panics
/// One cannot be kept.
pub fn keep_all(place: &Path) {
    let files = fs::read_dir(place).into_iter().flatten();
    files.for_each(|file| keep(&file.expect("a file").path()));
}

/// The keys in a directory that `rcu` made.
///
/// # Panics
/// One is missing, or cannot be noted.
pub fn secrets_in(keys: &Path) {
    for name in ["cluster", "operator", "master"] {
        let key = fs::read_to_string(keys.join(name)).expect("a key");
        secret(name, key.trim());
    }
}

/// Nobody may say this: a key in hex, or a password. `kind`: one of [`crate::leaks::KINDS`].
///
/// # Panics
/// It cannot be noted.
pub fn secret(kind: &str, text: &str) {
    let Some(run) = run() else {
        return;
    };
    let path = run.join(format!("secrets/{}", process::id()));
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{kind} {text}\n").as_bytes()))
        .expect("a secret is noted");
}

fn run() -> Option<PathBuf> {
    env::var_os(RUN).map(PathBuf::from)
}
