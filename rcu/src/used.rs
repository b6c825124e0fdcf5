//! The data directories that this user's clusters had before, remembered outside of them: where the mount of
//! one is missing there is an empty directory, and a new cluster in it would turn every device away.
//!
//! ```text
//! $XDG_STATE_HOME/rcu/data-directories       (~/.local/state/rcu/data-directories)
//!   /srv/rcu/data                            absolute paths, one a line, the latest last
//! ```
//!
//! Where that cannot be read or written, nothing is remembered, and everything else goes on.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{self, Path, PathBuf};

/// Directories that are remembered; beyond it the one that was used first is forgotten.
const DIRECTORIES_MAX: usize = 1_000;

/// What is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    /// `None`: nothing is.
    list: Option<PathBuf>,
}

impl Used {
    /// By this user; by nobody where there is no home.
    pub(crate) fn by_user() -> Self {
        let absolute = |name: &str| {
            let path = PathBuf::from(env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let of_home = || Some(absolute("HOME")?.join(".local/state"));
        let state = absolute("XDG_STATE_HOME").or_else(of_home);
        state.map_or(Self::by_nobody(), |state| Self::in_state(&state))
    }

    /// For a cluster that is not to be remembered, or that begins anew.
    pub(crate) fn by_nobody() -> Self {
        Self { list: None }
    }

    fn in_state(state: &Path) -> Self {
        let list = Some(state.join("rcu/data-directories"));
        Self { list }
    }

    pub(crate) fn knows(&self, data: &Path) -> bool {
        let list = self.list.as_ref().map(fs::read_to_string);
        match (list, line(data)) {
            (Some(Ok(list)), Some(line)) => list.lines().any(|known| known == line),
            _ => false,
        }
    }

    /// There is a cluster in it.
    pub(crate) fn remember(&self, data: &Path) {
        if let (Some(list), Some(line)) = (&self.list, line(data))
            && let Err(error) = add(list, &line)
        {
            tracing::debug!(list = %list.display(), %error, "a data directory cannot be remembered");
        }
    }
}

/// Under a lock: two clusters may start at a time.
fn add(list: &Path, line: &str) -> io::Result<()> {
    if let Some(directory) = list.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let mut options = File::options();
    let options = options.create(true).truncate(false).read(true).write(true);
    let mut file = options.open(list)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut lines: Vec<_> = text.lines().filter(|known| *known != line).collect();
    lines.push(line);
    let forgotten = lines.len().saturating_sub(DIRECTORIES_MAX);
    let text = lines[forgotten..].join("\n") + "\n";
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// `None`: a path that is no line of text.
fn line(data: &Path) -> Option<String> {
    let path = path::absolute(data).ok()?;
    let text = path.to_str()?.trim_end_matches('/');
    (!text.contains('\n')).then(|| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_known_however_it_is_written() {
        let state = tempfile::tempdir().unwrap();
        let used = Used::in_state(&state.path().join("not/there/yet"));
        assert!(!used.knows(Path::new("/srv/rcu")));
        used.remember(Path::new("/srv/rcu/"));
        used.remember(Path::new("rcu-data"));
        for known in ["/srv/rcu", "/srv//rcu/", "./rcu-data"] {
            assert!(used.knows(Path::new(known)), "{known}");
        }
        assert!(!used.knows(Path::new("/srv/rcu/data")));
        assert!(!Used::by_nobody().knows(Path::new("/srv/rcu")));
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let state = tempfile::tempdir().unwrap();
        let used = Used::in_state(state.path());
        let path = |n| PathBuf::from(format!("/data/{n}"));
        (0..=DIRECTORIES_MAX).for_each(|n| used.remember(&path(n)));
        assert!(!used.knows(&path(0)));
        used.remember(&path(1));
        used.remember(&path(DIRECTORIES_MAX + 1));
        assert!(used.knows(&path(1)), "it was used again");
        assert!(!used.knows(&path(2)));
    }
}
