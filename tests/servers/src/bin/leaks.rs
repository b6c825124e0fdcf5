//! P8 over a whole test run: `leaks DIR` searches all that was said in it (`DIR/said`) for the secrets that
//! its tests had (`DIR/secrets`). It ends with 1 where it finds one, and where there was nothing to search.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use servers::leaks::{KINDS, Search, forms_of};

/// Secrets that stand in the source of tests which do not note theirs: keys of equal bytes.
const PLAIN: [u8; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0x11, 0x77];

/// The key of tests that want one which is easily recognised.
const COUNTING: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Told of where a secret is found; never the secret.
const SHOWN_BYTES: usize = 60;

fn main() -> ExitCode {
    let Some(run) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("leaks DIR");
        return ExitCode::from(2);
    };
    match look(&run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("leaks: {why}");
            ExitCode::FAILURE
        }
    }
}

fn look(run: &Path) -> Result<(), String> {
    let mut noted = secrets(&run.join("secrets")).map_err(|error| format!("secrets: {error}"))?;
    for kind in KINDS {
        if !noted.iter().any(|(of, _)| of == kind) {
            return Err(format!("no test noted a secret of the kind {kind}"));
        }
    }
    noted.push(("device".to_owned(), COUNTING.to_owned()));
    for byte in PLAIN {
        noted.push(("plain".to_owned(), format!("{byte:02x}").repeat(32)));
    }
    noted.sort();
    noted.dedup();
    let texts: Vec<_> = noted.iter().map(|(_, text)| text.as_str()).collect();
    let search = Search::new(&texts).map_err(|error| error.to_string())?;
    check(&search, &texts)?;

    let files = files(&run.join("said")).map_err(|error| format!("said: {error}"))?;
    let (mut bytes, mut found) = (0, 0);
    for path in &files {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        bytes += text.len();
        if let Some((secret, at)) = search.find(&text) {
            found += 1;
            let before = &text[at.saturating_sub(SHOWN_BYTES)..at];
            let before = String::from_utf8_lossy(before).into_owned();
            let kind = &noted[secret].0;
            eprintln!(
                "leaks: {}: a secret ({kind}) behind {before:?}",
                path.display()
            );
        }
    }
    let (secrets, files) = (texts.len(), files.len());
    if bytes == 0 {
        return Err("nobody said anything".to_owned());
    }
    eprintln!("searched {files} files, {bytes} bytes, for {secrets} secrets");
    match found {
        0 => Ok(()),
        found => Err(format!("{found} files hold a secret")),
    }
}

/// The search finds each of them, in each form: it would pass by itself else.
fn check(search: &Search, secrets: &[&str]) -> Result<(), String> {
    for secret in secrets {
        for form in forms_of(secret) {
            let planted = [b"planted ", &form[..], b" here"].concat();
            if search.find(&planted).is_none() {
                return Err("a planted secret is not found".to_owned());
            }
        }
    }
    Ok(())
}

/// Kind and text of each.
fn secrets(place: &Path) -> io::Result<Vec<(String, String)>> {
    let mut secrets = vec![];
    for path in files(place)? {
        let text = fs::read_to_string(path)?;
        let noted = text.lines().filter_map(|line| line.split_once(' '));
        secrets.extend(noted.map(|(kind, secret)| (kind.to_owned(), secret.to_owned())));
    }
    Ok(secrets)
}

fn files(place: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = fs::read_dir(place)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    Ok(files)
}
