//! `rcu db`: the schema of a PostgreSQL database, and what there is in it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use common::database::{Client, Database, DatabaseUrl, Migrated, Postgres};
use common::process::{EXIT_FAILED, output};
use sqlx::PgPool;

use crate::check::{Kind, kind};
use crate::database::{self, UrlArgument};

type Failure = Box<dyn std::error::Error>;

/// Who looks at a database waits so long for it.
const CONNECT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Makes the tables of a PostgreSQL database and brings them up to date, or shows what there is.
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
    /// Brings the schema up to date. Run it before a newer cluster, while the older one runs on.
    Migrate,
    Status(Status),
}

/// Shows the versions of the schema, the partitions, and the connections that a cluster uses.
#[derive(Args)]
struct Status {
    /// The configurations of the cluster's servers, one for each process: those are counted.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["conn_servers", "logic_servers"])]
    config: Vec<PathBuf>,
    /// Conn servers that the cluster is to have.
    #[arg(long, value_name = "N", default_value_t = 1)]
    conn_servers: u32,
    /// Logic servers that it is to have.
    #[arg(long, value_name = "N", default_value_t = 1)]
    logic_servers: u32,
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
                Action::Status(status) => status.run(&url).await,
            }
        })
    }
}

async fn migrate(url: &DatabaseUrl) -> Result<ExitCode, Failure> {
    let Migrated { from, to } = Postgres::migrate(url).await?;
    match from == to {
        true => output::tell(format_args!("{url} has schema {to} already")),
        false => output::tell(format_args!("{url} has schema {to} now; it had {from}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Connections that a cluster uses, and those that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connections {
    conn_servers: u32,
    logic_servers: u32,
    /// Of the server, without those for superusers.
    max: i64,
    /// Of anybody, now.
    open: i64,
}

impl Connections {
    fn used(&self) -> i64 {
        let of = |servers: u32, each: u32| i64::from(servers) * i64::from(each);
        of(self.conn_servers, conn_server::accounts::CONNECTIONS_MAX)
            + of(self.logic_servers, logic_server::store::CONNECTIONS_MAX)
    }

    fn fit(&self) -> bool {
        self.used() <= self.max
    }
}

/// Partitions of one table.
#[derive(Debug, sqlx::FromRow)]
struct Partitions {
    name: String,
    days: i64,
    first: Option<String>,
    last: Option<String>,
    /// Records of days without a partition, as of the last count of the database.
    elsewhere: i64,
    size: String,
}

impl Status {
    async fn run(&self, url: &DatabaseUrl) -> Result<ExitCode, Failure> {
        let (found, needed) = Postgres::versions(url).await?;
        let mut text = format!("{url}\nschema        {found}, this program needs {needed}\n");
        if found != needed {
            let what = match found < needed {
                true => "run `rcu db migrate`",
                false => "run a newer rcu",
            };
            let _ = writeln!(text, "              {what}");
            output::print(&text)?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        let client = Client {
            name: "db",
            connections_max: 1,
            connect_deadline: CONNECT_DEADLINE,
        };
        let database = Database::connect(url, client).await?;
        let Database::Postgres(postgres) = &database else {
            return Err("it is PostgreSQL".into());
        };
        let connections = self.connections(postgres.pool()).await?;
        let lacking = postgres.not_durable().await?;
        let partitions = partitions(postgres.pool()).await?;
        database.close().await;
        text += &table(&partitions);
        text += &page(&connections);
        text += &warning(&lacking);
        output::print(&text)?;
        Ok(match connections.fit() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(EXIT_FAILED),
        })
    }

    /// Conn servers and logic servers of the cluster.
    fn servers(&self) -> Result<(u32, u32), Failure> {
        if self.config.is_empty() {
            return Ok((self.conn_servers, self.logic_servers));
        }
        let (mut conn_servers, mut logic_servers) = (0, 0);
        for file in &self.config {
            match kind(file)? {
                Kind::ConnServer => conn_servers += 1,
                Kind::LogicServer => logic_servers += 1,
                // It uses no database.
                Kind::Balancer => {}
                Kind::Up => {
                    let file = file.display();
                    let told = format!("{file} is of `rcu up`, which has a file for its database");
                    return Err(told.into());
                }
            }
        }
        Ok((conn_servers, logic_servers))
    }

    async fn connections(&self, pool: &PgPool) -> Result<Connections, Failure> {
        let (max, open) = sqlx::query_as(
            "SELECT current_setting('max_connections')::bigint \
                    - current_setting('superuser_reserved_connections')::bigint, \
             (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')",
        )
        .fetch_one(pool)
        .await?;
        let (conn_servers, logic_servers) = self.servers()?;
        Ok(Connections {
            conn_servers,
            logic_servers,
            max,
            open,
        })
    }
}

async fn partitions(pool: &PgPool) -> Result<Vec<Partitions>, sqlx::Error> {
    sqlx::query_as(
        "SELECT parent.relname::text AS name, \
            count(*) FILTER (WHERE part.relname ~ '_[0-9]{8}$') AS days, \
            min(right(part.relname, 8)) FILTER (WHERE part.relname ~ '_[0-9]{8}$') AS first, \
            max(right(part.relname, 8)) FILTER (WHERE part.relname ~ '_[0-9]{8}$') AS last, \
            coalesce(sum(pg_stat_get_live_tuples(part.oid)) \
                FILTER (WHERE part.relname LIKE '%\\_default'), 0)::bigint AS elsewhere, \
            pg_size_pretty(sum(pg_total_relation_size(part.oid))) AS size \
         FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent \
            JOIN pg_class AS part ON part.oid = inhrelid \
         WHERE parent.relname LIKE 'telemetry\\_%' AND parent.relkind = 'p' AND part.relkind = 'r' \
         GROUP BY parent.relname ORDER BY parent.relname",
    )
    .fetch_all(pool)
    .await
}

fn table(partitions: &[Partitions]) -> String {
    let mut text = format!(
        "\n{:<22}{:>6}  {:<10}{:<10}{:>16}  {:>10}\n",
        "table", "days", "first", "last", "rows elsewhere", "size"
    );
    for it in partitions {
        let day = |day: &Option<String>| day.clone().unwrap_or("-".into());
        let _ = writeln!(
            text,
            "{:<22}{:>6}  {:<10}{:<10}{:>16}  {:>10}",
            it.name,
            it.days,
            day(&it.first),
            day(&it.last),
            it.elsewhere,
            it.size
        );
    }
    text
}

fn page(it: &Connections) -> String {
    let mut text = format!(
        "\nconnections   {} of {} are open\n              {} conn servers x {} + {} logic servers x {} = {}\n",
        it.open,
        it.max,
        it.conn_servers,
        conn_server::accounts::CONNECTIONS_MAX,
        it.logic_servers,
        logic_server::store::CONNECTIONS_MAX,
        it.used()
    );
    if !it.fit() {
        let _ = writeln!(
            text,
            "              too many: raise max_connections in postgresql.conf, or run fewer servers"
        );
    }
    text
}

/// Of what a session cannot set for itself; empty: all is well.
fn warning(lacking: &[String]) -> String {
    if lacking.is_empty() {
        return String::new();
    }
    format!(
        "\nwarning       {} off: what was acknowledged may be lost, or the database be damaged,\n              \
         when its machine goes down; switch it on in postgresql.conf\n",
        lacking.join(" and ")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;
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
    fn a_file_is_no_database_of_this_command() {
        let told = run(&["migrate", "--database", "sqlite:rcu.db"]).unwrap_err();
        assert!(told.to_string().contains("when it is opened"), "{told}");
    }

    #[test]
    fn the_servers_are_counted_by_their_configurations() {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            status: Status,
        }
        let file = |tier: &str| format!("{}/../config/{tier}.toml", env!("CARGO_MANIFEST_DIR"));
        let count = |tiers: &[&str]| {
            let files = tiers.iter().map(|tier| file(tier));
            let arguments = ["status".to_owned(), "--config".to_owned()];
            let parsed = Only::parse_from(arguments.into_iter().chain(files));
            parsed.status.servers().map_err(|error| error.to_string())
        };
        let cluster = ["balancer", "conn-server", "logic-server", "logic-server"];
        assert_eq!(count(&cluster), Ok((1, 2)));
        assert_eq!(count(&["balancer"]), Ok((0, 0)));
        assert!(count(&["up"]).unwrap_err().contains("rcu up"));
        assert!(count(&["nowhere"]).unwrap_err().contains("cannot read"));
        let both = ["status", "--config", "x", "--conn-servers", "2"];
        assert!(Only::try_parse_from(both).is_err());
        let by_hand = Only::parse_from(["status", "--logic-servers", "7"]);
        assert_eq!(by_hand.status.servers().unwrap(), (1, 7));
    }

    #[test]
    fn a_database_that_may_lose_what_it_took_is_warned_of() {
        assert_eq!(warning(&[]), "");
        let told = warning(&["fsync".into(), "full_page_writes".into()]);
        assert!(
            told.contains("warning       fsync and full_page_writes off"),
            "{told}"
        );
    }

    #[test]
    fn the_connections_of_a_cluster_are_counted() {
        let cluster = Connections {
            conn_servers: 2,
            logic_servers: 20,
            max: 97,
            open: 5,
        };
        assert_eq!(cluster.used(), 2 * 3 + 20 * 2);
        assert!(cluster.fit());
        let shown = page(&cluster);
        assert!(
            shown.contains("2 conn servers x 3 + 20 logic servers x 2 = 46"),
            "{shown}"
        );
        let larger = Connections { max: 45, ..cluster };
        assert!(!larger.fit() && page(&larger).contains("too many"));
    }
}
