//! Where Debian and others keep the programs of PostgreSQL, and its pooler.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Debian keeps every version in a directory of its own, and none of them in PATH.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The directory with `initdb`, `postgres` and `psql` of the newest PostgreSQL there is.
pub(crate) fn postgres() -> Option<PathBuf> {
    let in_path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&in_path).collect::<Vec<_>>();
    newest_of_debian().into_iter().chain(in_path).find(|place| {
        ["initdb", "postgres", "psql"]
            .iter()
            .all(|program| place.join(program).is_file())
    })
}

/// A server's program, which not everybody has in PATH.
pub(crate) fn pgbouncer() -> Option<PathBuf> {
    let in_path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&in_path).collect::<Vec<_>>();
    let places = in_path.into_iter().chain(["/usr/sbin".into()]);
    let mut programs = places.map(|place: PathBuf| place.join("pgbouncer"));
    programs.find(|program| program.is_file())
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?;
    let number = |path: &Path| {
        path.file_name()
            .and_then(OsStr::to_str)?
            .parse::<u32>()
            .ok()
    };
    versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(|path| number(path))
        .map(|path| path.join("bin"))
}
