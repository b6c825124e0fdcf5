//! Where a database is, as people write it. It may hold a password, and never shows it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;
use tracing::subscriber::{NoSubscriber, with_default};

const SQLITE: &str = "sqlite:";
const POSTGRES: [&str; 2] = ["postgres://", "postgresql://"];

/// What may stand behind the `?`: others would be passed over without a word.
const PARAMETERS: [&str; 10] = [
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
];

/// `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST:PORT/NAME`. With `?host=/DIRECTORY` instead of a
/// host the latter goes through the Unix socket in that directory. A password that is not in it comes
/// from PGPASSWORD or ~/.pgpass. `?sslmode=verify-full&sslrootcert=FILE` has the connection encrypted,
/// and the server's certificate checked against those in the file, or of this machine without one.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Sqlite(PathBuf),
    /// As it was written. It was read once, and so it can be read.
    Postgres(String),
}

/// None of them repeats what was written: it may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("a database is sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/NAME")]
    Scheme,
    #[error("after sqlite: stands the path of a file")]
    Path,
    #[error(
        "no postgres://USER:PASSWORD@HOST:PORT/NAME; a / : @ ? # or % in a password is written as % and two hex digits"
    )]
    Postgres,
    #[error(
        "behind the ? of a URL may stand host, port, dbname, user, password, sslmode, sslrootcert, sslcert, \
         sslkey and options"
    )]
    Parameter,
    #[error("the name of the database is missing: postgres://USER:PASSWORD@HOST:PORT/NAME")]
    Name,
}

impl DatabaseUrl {
    pub fn sqlite(path: &Path) -> Self {
        Self(Kind::Sqlite(path.into()))
    }

    /// `None` where it is PostgreSQL.
    pub fn sqlite_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Sqlite(path) => Some(path),
            Kind::Postgres(_) => None,
        }
    }

    /// For programs of PostgreSQL's own: the URL without its password, and that.
    pub(super) fn for_programs(&self) -> (String, Option<String>) {
        let Kind::Postgres(text) = &self.0 else {
            return (self.to_string(), None);
        };
        let (rest, query) = text.split_once('?').unwrap_or((text, ""));
        let (scheme, place) = rest.split_once("://").unwrap_or(("", rest));
        let (user, host) = match place.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, place),
        };
        let (user, of_user) = match user.and_then(|user| user.split_once(':')) {
            Some((user, password)) => (Some(user), Some(password)),
            None => (user, None),
        };
        let is_password = |pair: &&str| pair.starts_with("password=");
        let of_query = query.split('&').find(is_password);
        let of_query = of_query.and_then(|pair| pair.split_once('='));
        let password = of_query.map_or(of_user, |(_, password)| Some(password));
        let password = password.map(|it| percent_decode_str(it).decode_utf8_lossy().into_owned());
        let query: Vec<_> = query.split('&').filter(|it| !is_password(it)).collect();
        let user = user.map_or(String::new(), |user| format!("{user}@"));
        let query = match query[..] {
            [] | [""] => String::new(),
            _ => format!("?{}", query.join("&")),
        };
        (format!("{scheme}://{user}{host}{query}"), password)
    }

    /// How to connect; `None` for a file.
    pub(super) fn postgres(&self) -> Option<PgConnectOptions> {
        match &self.0 {
            Kind::Sqlite(_) => None,
            Kind::Postgres(text) => parse(text),
        }
    }

    /// Whether a password stands in it.
    fn has_password(&self) -> bool {
        let Kind::Postgres(text) = &self.0 else {
            return false;
        };
        let authority = text.split("://").nth(1).unwrap_or_default();
        let authority = authority.split(['/', '?']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        user.contains(':') || parameters(text).any(|name| name == "password")
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if let Some(path) = text.strip_prefix(SQLITE) {
            // sqlite:///absolute is how other programs write it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => Err(UrlError::Path),
                false => Ok(Self::sqlite(Path::new(path))),
            };
        }
        if !POSTGRES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(UrlError::Scheme);
        }
        let options = parse(text).ok_or(UrlError::Postgres)?;
        if parameters(text).any(|name| !PARAMETERS.contains(&name)) {
            return Err(UrlError::Parameter);
        }
        if options.get_database().is_none_or(str::is_empty) {
            return Err(UrlError::Name);
        }
        Ok(Self(Kind::Postgres(text.into())))
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

/// Without what the library would log of it, each time: parts of the URL, and lines of ~/.pgpass, with passwords.
fn parse(text: &str) -> Option<PgConnectOptions> {
    with_default(NoSubscriber::default(), || text.parse().ok())
}

/// The names of those behind the `?`.
fn parameters(text: &str) -> impl Iterator<Item = &str> {
    let all = text.split_once('?').map_or("", |(_, all)| all);
    let names = all
        .split('&')
        .map(|one| one.split('=').next().unwrap_or(one));
    names.filter(|name| !name.is_empty())
}

/// Without the password, and without whatever else stands behind the name.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(options) = self.postgres() else {
            let path = self.sqlite_path().unwrap_or(Path::new(""));
            return write!(f, "{SQLITE}{}", path.display());
        };
        let (user, name) = (options.get_username(), options.get_database());
        let name = name.unwrap_or_default();
        match (options.get_socket(), self.has_password()) {
            (Some(socket), has_password) => {
                let (socket, hidden) = (socket.display(), ["", "&password=***"]);
                let hidden = hidden[usize::from(has_password)];
                write!(f, "postgres:///{name}?host={socket}&user={user}{hidden}")
            }
            (None, has_password) => {
                let (host, port) = (options.get_host(), options.get_port());
                let hidden = ["", ":***"][usize::from(has_password)];
                write!(f, "postgres://{user}{hidden}@{host}:{port}/{name}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DatabaseUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn what_people_write_is_read() {
        for (text, path) in [
            ("sqlite:rcu-data/rcu.db", "rcu-data/rcu.db"),
            ("sqlite:///var/lib/rcu.db", "/var/lib/rcu.db"),
            ("sqlite:/var/lib/rcu.db", "/var/lib/rcu.db"),
        ] {
            assert_eq!(read(text).unwrap().sqlite_path(), Some(Path::new(path)));
        }
        for text in [
            "postgres://rcu@db.example.net/rcu",
            "postgresql://rcu:secret@[2001:db8::1]:5433/rcu",
            "postgres:///rcu?host=/run/postgresql&user=rcu",
            "postgres://%2Frun%2Fpostgresql/rcu",
            "postgres://rcu@db/rcu?sslmode=verify-full&sslrootcert=/etc/rcu/ca.pem",
        ] {
            assert_eq!(read(text).unwrap().sqlite_path(), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, why) in [
            ("", UrlError::Scheme),
            ("rcu.db", UrlError::Scheme),
            ("mysql://localhost/rcu", UrlError::Scheme),
            ("sqlite:", UrlError::Path),
            ("postgres://rcu:a/b@db/rcu", UrlError::Postgres),
            ("postgres://db:port/rcu", UrlError::Postgres),
            ("postgres://rcu@db", UrlError::Name),
            ("postgres://rcu@db/rcu?sslmode=always", UrlError::Postgres),
            (
                "postgres://rcu@db/rcu?connect_timeout=10",
                UrlError::Parameter,
            ),
            ("postgres://rcu@db/rcu?pasword=hidden", UrlError::Parameter),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn programs_get_the_password_apart() {
        for (text, url, password) in [
            ("postgres://db/rcu", "postgres://db/rcu", None),
            (
                "postgres://rcu@db/rcu?sslmode=require",
                "postgres://rcu@db/rcu?sslmode=require",
                None,
            ),
            (
                "postgres://rcu:a%2Fb@db:5433/rcu",
                "postgres://rcu@db:5433/rcu",
                Some("a/b"),
            ),
            (
                "postgresql:///rcu?host=/run/postgresql&user=rcu&password=x%20y",
                "postgresql:///rcu?host=/run/postgresql&user=rcu",
                Some("x y"),
            ),
            (
                "postgres://db/rcu?password=x",
                "postgres://db/rcu",
                Some("x"),
            ),
        ] {
            let expected = (url.to_owned(), password.map(str::to_owned));
            assert_eq!(read(text).unwrap().for_programs(), expected);
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for (text, shown) in [
            (
                "postgres://rcu:hidden@db:5433/rcu",
                "postgres://rcu:***@db:5433/rcu",
            ),
            (
                "postgres://db/rcu?user=rcu&password=hidden&options=-csearch_path%3Dhidden",
                "postgres://rcu:***@db:5432/rcu",
            ),
            (
                "postgres://rcu:hidden@%2Frun%2Fpostgresql/rcu",
                "postgres:///rcu?host=/run/postgresql&user=rcu&password=***",
            ),
            ("sqlite:rcu.db", "sqlite:rcu.db"),
            // Nor one where there is none.
            ("postgres://rcu@db/rcu", "postgres://rcu@db:5432/rcu"),
            (
                "postgres:///rcu?host=/run/postgresql&user=rcu",
                "postgres:///rcu?host=/run/postgresql&user=rcu",
            ),
        ] {
            let url = read(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }
}
