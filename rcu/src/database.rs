//! `--database URL`, as several commands take it.

use std::convert::Infallible;

use common::database::{DatabaseUrl, UrlError};

/// What was given. A mistake in it is told when the command runs: clap would repeat what was written,
/// and a password with it.
pub(crate) type UrlArgument = Result<DatabaseUrl, UrlError>;

pub(crate) fn read(text: &str) -> Result<UrlArgument, Infallible> {
    Ok(text.parse())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Rcu {
        #[arg(long, value_parser = read)]
        database: Option<UrlArgument>,
    }

    #[test]
    fn a_wrong_url_is_told_without_its_password() {
        let rcu = Rcu::try_parse_from(["rcu", "--database", "postgres://rcu:hid/den@db/rcu"]);
        let mistake = rcu.unwrap().database.unwrap().unwrap_err();
        assert!(!mistake.to_string().contains("den"), "{mistake}");
    }
}
