//! `rcu db`: the schema of a PostgreSQL database, what there is in it, what a restored one needs, and the end of
//! old days.

mod days;
mod status;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use common::database::{
    Client, Database, DatabaseError, DatabaseUrl, Migrated, Patience, Postgres, Waiting,
};
use common::process::output;

use crate::database::{self, UrlArgument};
use days::Days;
use status::Status;

type Failure = Box<dyn std::error::Error>;

/// Who looks at a database waits so long for it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Makes the tables of a PostgreSQL database and brings them up to date, also after a restore; shows what there is,
/// removes old days.
///
/// The SQLite file of `rcu up` needs neither: it is brought up to date when it is opened.
#[derive(Args)]
#[command(after_help = "\
Examples:
  createdb rcu
  rcu db migrate --database postgres://rcu@localhost/rcu
  psql -f config/schema/postgres/roles.sql postgres://rcu@localhost/rcu
  rcu db status --database 'postgres:///rcu?host=/run/postgresql' --conn-servers 2 --logic-servers 20
  rcu db status --database postgres://rcu@localhost/rcu --config /etc/rcu/*.toml
  rcu db drop --database postgres://rcu@localhost/rcu --before 2026-01-15 --dry-run
  rcu db restored --database postgres://rcu@localhost/rcu_restored

The password may stand in the URL, in PGPASSWORD, or in ~/.pgpass.
Exit codes: 0 done, 1 failed; of status also 1 where the schema is not the one that this program needs,
or the server does not take as many connections as the cluster uses.")]
pub(crate) struct Db {
    /// postgres://USER:PASSWORD@HOST:PORT/NAME, of the owner of its tables.
    #[arg(
        long,
        value_name = "URL",
        value_parser = database::read,
        env = "RCU_DATABASE_URL",
        hide_env_values = true,
        global = true
    )]
    database: Option<UrlArgument>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Brings the schema up to date. Run it before a newer cluster, while the older one runs on: for a table that
    /// is in use it waits half a second at most, and tries again.
    Migrate,
    /// Sees to it that a database that was restored from a backup gives no number again that was given
    /// since: what devices of accounts that are gone still send would be another account's. Run it before
    /// a cluster uses the database; docs/operate.md has the other steps.
    Restored,
    Status(Status),
    Drop(Days),
}

impl Db {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let url = self
            .database
            .ok_or("which database? --database URL, or RCU_DATABASE_URL")??;
        if url.sqlite_path().is_some() {
            return Err(
                "a SQLite file is brought up to date when it is opened: `rcu db` is for PostgreSQL"
                    .into(),
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self.action {
                Action::Migrate => migrate(&url).await,
                Action::Restored => restored(&url).await,
                Action::Status(status) => status.run(&url).await,
                Action::Drop(days) => days.drop(&url).await,
            }
        })
    }
}

async fn migrate(url: &DatabaseUrl) -> Result<ExitCode, Failure> {
    let told = |waiting: &Waiting| output::tell(waits(waiting));
    let migrated = Postgres::migrate_with(url, &Patience::default(), told).await;
    let Migrated { from, to } = migrated?;
    match from == to {
        true => output::tell(format_args!("{url} has schema {to} already")),
        false => output::tell(format_args!("{url} has schema {to} now; it had {from}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// The one connection of a command.
async fn connect(url: &DatabaseUrl) -> Result<Database, DatabaseError> {
    let client = Client {
        name: "db",
        connections_max: 1,
        connect_deadline: CONNECT_DEADLINE,
    };
    Database::connect(url, client).await
}

/// Numbers that are left out after a restore: nobody makes more accounts, or changes, between two backups.
const NUMBERS_SKIPPED: i64 = 1_000_000;

async fn restored(url: &DatabaseUrl) -> Result<ExitCode, Failure> {
    let database = connect(url).await?;
    let Database::Postgres(postgres) = &database else {
        return Err("it is PostgreSQL".into());
    };
    for table in ["accounts", "account_changes"] {
        let next: i64 = sqlx::query_scalar(
            "SELECT setval(sequence, nextval(sequence) + $2) FROM pg_get_serial_sequence($1, 'id') AS sequence",
        )
        .bind(table)
        .bind(NUMBERS_SKIPPED)
        .fetch_one(postgres.pool())
        .await?;
        output::tell(format_args!("{table}: the next number is {}", next + 1));
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// A line for whoever looks on.
fn waits(waiting: &Waiting) -> String {
    let Waiting {
        tries,
        tries_max,
        who,
    } = waiting;
    let by = match who.is_empty() {
        true => String::new(),
        false => format!(" by {}", who.join(", ")),
    };
    format!("a table is in use{by}: tried {tries} times of {tries_max}, and will again")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;
    use common::process::EXIT_FAILED;
    use servers::{Role, TestDatabase};

    use super::*;

    #[derive(Parser)]
    struct Rcu {
        #[command(flatten)]
        db: Db,
    }

    fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
        Rcu::parse_from(["db"].iter().chain(arguments)).db.run()
    }

    #[test]
    fn a_database_is_migrated_and_shown() {
        let test = TestDatabase::empty();
        let owner = test.url(Role::Owner);
        let database = ["--database", &owner];
        let status = [&["status"][..], &database].concat();
        assert_eq!(
            run(&status).unwrap(),
            ExitCode::from(EXIT_FAILED),
            "schema 0"
        );
        for _ in 0..2 {
            let migrated = run(&[&["migrate"][..], &database].concat());
            assert_eq!(migrated.unwrap(), ExitCode::SUCCESS);
        }
        assert_eq!(run(&status).unwrap(), ExitCode::SUCCESS);
        let crowd = [&status[..], &["--logic-servers", "1000"]].concat();
        assert_eq!(run(&crowd).unwrap(), ExitCode::from(EXIT_FAILED));
    }

    #[test]
    fn a_restored_database_gives_no_number_again() {
        let test = TestDatabase::new();
        let restored = ["restored", "--database", &test.url(Role::Owner)];
        assert_eq!(run(&restored).unwrap(), ExitCode::SUCCESS);
        let add = "WITH added AS (INSERT INTO accounts (name, sealed_key, created_at) \
                   VALUES ('a', '', now()) RETURNING id), \
                   told AS (INSERT INTO account_changes (account_id, name, change, version, changed_at) \
                   SELECT id, 'a', 'added', 1, now() FROM added RETURNING id) \
                   SELECT id FROM added UNION ALL SELECT id FROM told";
        let numbers = test.sql(add).unwrap();
        let numbers: Vec<i64> = numbers.lines().map(|id| id.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 2);
        assert!(numbers.iter().all(|&id| id > NUMBERS_SKIPPED));
    }

    #[test]
    fn a_file_is_no_database_of_this_command() {
        let told = run(&["migrate", "--database", "sqlite:rcu.db"]).unwrap_err();
        assert!(told.to_string().contains("when it is opened"), "{told}");
    }
}
