//! `rcu db status`: versions, days and connections.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use common::database::{APPLICATION, Database, DatabaseUrl, Postgres};
use common::process::{EXIT_FAILED, output};
use sqlx::PgPool;

use super::{Failure, connect};
use crate::check::{Kind, kind};

/// Rows are counted one by one; where there are more, that is what is shown.
const COUNTED_MAX: i64 = 1_000_000;

/// Shows the versions of the schema, the partitions, and the connections that a cluster uses.
#[derive(Args)]
pub(super) struct Status {
    /// The configurations of the cluster's servers, one for each process: those are counted.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["conn_servers", "logic_servers"])]
    config: Vec<PathBuf>,
    /// Conn servers that the cluster is to have; without it as many as are connected now.
    #[arg(long, value_name = "N")]
    conn_servers: Option<u32>,
    /// Logic servers that it is to have; without it as many as are connected now.
    #[arg(long, value_name = "N")]
    logic_servers: Option<u32>,
}

/// Connections that a cluster uses, and those that there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Connections {
    conn_servers: u32,
    logic_servers: u32,
    /// Of the server, without those for superusers.
    max: i64,
    /// Of anybody, now.
    open: i64,
    /// Of them those of servers of this cluster, by tier and name.
    connected: Vec<(String, i64)>,
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
    size: String,
    /// As SQL names it.
    of_undated: Option<String>,
    of_default: Option<String>,
}

/// Records that are in no day; `None`: this user may not count them.
#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    undated: Option<i64>,
    no_day: Option<i64>,
}

impl Status {
    pub(super) async fn run(&self, url: &DatabaseUrl) -> Result<ExitCode, Failure> {
        let (text, is_well) = self.tell(url).await?;
        output::print(&text)?;
        Ok(match is_well {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(EXIT_FAILED),
        })
    }

    async fn tell(&self, url: &DatabaseUrl) -> Result<(String, bool), Failure> {
        let (found, needed) = Postgres::versions(url).await?;
        let mut text = format!("{url}\nschema        {found}, this program needs {needed}\n");
        if found != needed {
            let what = match found < needed {
                true => "run `rcu db migrate`",
                false => "run a newer rcu",
            };
            let _ = writeln!(text, "              {what}");
            return Ok((text, false));
        }
        let database = connect(url).await?;
        let Database::Postgres(postgres) = &database else {
            return Err("it is PostgreSQL".into());
        };
        let connections = self.connections(postgres.pool()).await?;
        let lacking = postgres.not_durable().await?;
        let mut tables = vec![];
        for it in partitions(postgres.pool()).await? {
            let elsewhere = Elsewhere {
                undated: count(postgres.pool(), it.of_undated.as_deref()).await?,
                no_day: count(postgres.pool(), it.of_default.as_deref()).await?,
            };
            tables.push((it, elsewhere));
        }
        database.close().await;
        text += &table(&tables);
        text += &page(&connections, !self.is_planned());
        text += &warning(&lacking);
        Ok((text, connections.fit()))
    }

    /// Whether it was said which servers there are to be.
    fn is_planned(&self) -> bool {
        !self.config.is_empty() || self.conn_servers.is_some() || self.logic_servers.is_some()
    }

    /// Conn servers and logic servers of the cluster; those that were not said are those that are connected.
    fn servers(&self, connected: &[(String, i64)]) -> Result<(u32, u32), Failure> {
        if self.config.is_empty() {
            let of = |tier: &str| {
                let names = connected.iter().filter(|(name, _)| name.starts_with(tier));
                u32::try_from(names.count()).unwrap_or(u32::MAX)
            };
            return Ok((
                self.conn_servers.unwrap_or_else(|| of("conn-server ")),
                self.logic_servers.unwrap_or_else(|| of("logic-server ")),
            ));
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
        let connected = sqlx::query_as(
            "SELECT substr(application_name, length($1) + 1), count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND starts_with(application_name, $1) \
               AND application_name ~ ' (conn|logic)-server ' \
             GROUP BY application_name ORDER BY application_name",
        )
        .bind(APPLICATION)
        .fetch_all(pool)
        .await?;
        let (conn_servers, logic_servers) = self.servers(&connected)?;
        Ok(Connections {
            conn_servers,
            logic_servers,
            max,
            open,
            connected,
        })
    }
}

async fn partitions(pool: &PgPool) -> Result<Vec<Partitions>, sqlx::Error> {
    sqlx::query_as(
        "WITH parts AS ( \
            SELECT parent.relname::text AS name, part.oid, part.relname AS part, \
                CASE WHEN part.relname ~ '_[0-9]{8}$' \
                    THEN to_char(to_date(right(part.relname, 8), 'YYYYMMDD'), 'YYYY-MM-DD') END AS day \
            FROM pg_inherits JOIN pg_class AS parent ON parent.oid = inhparent \
                JOIN pg_class AS part ON part.oid = inhrelid \
            WHERE parent.relname LIKE 'telemetry\\_%' AND parent.relkind = 'p' AND part.relkind = 'r' \
                AND pg_table_is_visible(parent.oid)) \
         SELECT name, count(day) AS days, min(day) AS first, max(day) AS last, \
            pg_size_pretty(sum(pg_total_relation_size(oid))) AS size, \
            min(oid::regclass::text) FILTER (WHERE part LIKE '%\\_undated') AS of_undated, \
            min(oid::regclass::text) FILTER (WHERE part LIKE '%\\_default') AS of_default \
         FROM parts GROUP BY name ORDER BY name",
    )
    .fetch_all(pool)
    .await
}

/// What is in this partition, up to one more than is counted. Of each one there is: what statistics say of a
/// partition with few rows is 0.
async fn count(pool: &PgPool, part: Option<&str>) -> Result<Option<i64>, sqlx::Error> {
    /// As the database says it: this user may not.
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    let Some(part) = part else {
        return Ok(Some(0));
    };
    let count = format!("SELECT count(*) FROM (SELECT FROM {part} LIMIT $1) AS counted");
    match sqlx::query_scalar(&count)
        .bind(COUNTED_MAX + 1)
        .fetch_one(pool)
        .await
    {
        Err(sqlx::Error::Database(error))
            if error.code() == Some(INSUFFICIENT_PRIVILEGE.into()) =>
        {
            Ok(None)
        }
        counted => counted.map(Some),
    }
}

fn table(tables: &[(Partitions, Elsewhere)]) -> String {
    let mut text = format!(
        "\n{:<20}{:>5}  {:<12}{:<12}{:>10}{:>10}{:>9}\n",
        "table", "days", "first", "last", "undated", "no day", "size"
    );
    for (it, elsewhere) in tables {
        let day = |day: &Option<String>| day.clone().unwrap_or("-".into());
        let _ = writeln!(
            text,
            "{:<20}{:>5}  {:<12}{:<12}{:>10}{:>10}{:>9}",
            it.name,
            it.days,
            day(&it.first),
            day(&it.last),
            rows(elsewhere.undated),
            rows(elsewhere.no_day),
            it.size
        );
    }
    text
}

fn rows(counted: Option<i64>) -> String {
    match counted {
        None => "-".into(),
        Some(rows) if rows > COUNTED_MAX => format!(">{COUNTED_MAX}"),
        Some(rows) => rows.to_string(),
    }
}

/// `as_connected`: as many servers are reckoned with as are connected.
fn page(it: &Connections, as_connected: bool) -> String {
    let mut text = format!("\nconnections   {} of {} are open\n", it.open, it.max);
    for (name, open) in &it.connected {
        let _ = writeln!(text, "              {open:>3}  {name}");
    }
    let others = it.open - it.connected.iter().map(|(_, open)| open).sum::<i64>();
    let _ = writeln!(text, "              {others:>3}  others");
    let _ = writeln!(
        text,
        "              {} conn servers x {} + {} logic servers x {} = {} at most",
        it.conn_servers,
        conn_server::accounts::CONNECTIONS_MAX,
        it.logic_servers,
        logic_server::store::CONNECTIONS_MAX,
        it.used()
    );
    if as_connected {
        text += "              for the servers that are connected now\n";
    }
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
    use common::database::Client;
    use servers::{PostgresServer, Role};

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        status: Status,
    }

    fn status(arguments: &[&str]) -> Status {
        Only::parse_from(["status"].iter().chain(arguments)).status
    }

    /// Of a database that was made just now, and that has no statistics yet; while three servers run.
    #[tokio::test]
    async fn what_is_shown_is_what_there_is() {
        let server = PostgresServer::start("").unwrap();
        server.make_database(NAME).unwrap();
        let url: DatabaseUrl = server.url(NAME, Role::Owner).parse().unwrap();
        let rows = "SELECT rcu_ensure_partition(DATE '2026-11-28' + (current_date - DATE '2026-11-28')); \
                    INSERT INTO telemetry_fuel (account_id, recorded_at, seq, received_at) VALUES \
                    (1, 'epoch', 1, now()), (1, 'epoch', 2, now()), (1, '2020-01-01', 3, now())";
        server.sql(NAME, rows).unwrap();
        let mut databases = vec![];
        for (name, role) in [
            ("conn-server conn-1", Role::Login),
            ("logic-server logic-1", Role::Telemetry),
            ("logic-server logic-2", Role::Telemetry),
        ] {
            let client = Client { name, ..CLIENT };
            let url = server.url(NAME, role).parse().unwrap();
            let database = Database::connect(&url, client).await.unwrap();
            let Database::Postgres(postgres) = &database else {
                panic!("it is PostgreSQL");
            };
            postgres.lease().await.unwrap().give_back();
            databases.push(database);
        }
        let (text, is_well) = status(&[]).tell(&url).await.unwrap();
        assert!(is_well);
        let today = server.sql(NAME, "SELECT current_date").unwrap();
        let day = today.trim();
        let fuel = text.lines().find(|line| line.starts_with("telemetry_fuel"));
        let fuel: Vec<_> = fuel.unwrap().split_whitespace().collect();
        assert_eq!(
            fuel[..6],
            ["telemetry_fuel", "1", day, day, "2", "1"],
            "{text}"
        );
        for line in [
            "  1  conn-server conn-1",
            "  1  logic-server logic-1",
            "  1  logic-server logic-2",
            "1 conn servers x 3 + 2 logic servers x 2 = 7 at most",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(
            text.lines()
                .all(|line| line.len() <= 80 || line.starts_with("postgres")),
            "{text}"
        );
        assert!(!text.contains("***"), "{text}");
    }

    const NAME: &str = "rcu";

    const CLIENT: Client<'_> = Client {
        name: "",
        connections_max: 1,
        connect_deadline: std::time::Duration::from_secs(10),
    };

    #[test]
    fn the_servers_are_counted_by_their_configurations() {
        let file = |tier: &str| format!("{}/../config/{tier}.toml", env!("CARGO_MANIFEST_DIR"));
        let count = |tiers: &[&str]| {
            let files = tiers.iter().map(|tier| file(tier));
            let arguments = ["status".to_owned(), "--config".to_owned()];
            let parsed = Only::parse_from(arguments.into_iter().chain(files));
            parsed
                .status
                .servers(&[])
                .map_err(|error| error.to_string())
        };
        let cluster = ["balancer", "conn-server", "logic-server", "logic-server"];
        assert_eq!(count(&cluster), Ok((1, 2)));
        assert_eq!(count(&["balancer"]), Ok((0, 0)));
        assert!(count(&["up"]).unwrap_err().contains("rcu up"));
        assert!(count(&["nowhere"]).unwrap_err().contains("cannot read"));
        let both = ["status", "--config", "x", "--conn-servers", "2"];
        assert!(Only::try_parse_from(both).is_err());
        let connected = [
            ("conn-server a", 3),
            ("logic-server a", 2),
            ("logic-server b", 1),
        ];
        let connected = connected.map(|(name, open)| (name.to_owned(), open));
        let by_hand = |arguments: &[&str]| status(arguments).servers(&connected).unwrap();
        assert_eq!(by_hand(&["--logic-servers", "7"]), (1, 7));
        assert_eq!(by_hand(&[]), (1, 2));
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
            connected: vec![("logic-server logic-1".to_owned(), 2)],
        };
        assert_eq!(cluster.used(), 2 * 3 + 20 * 2);
        assert!(cluster.fit());
        let shown = page(&cluster, false);
        assert!(
            shown.contains("2 conn servers x 3 + 20 logic servers x 2 = 46 at most"),
            "{shown}"
        );
        assert!(shown.contains("  3  others"), "{shown}");
        let larger = Connections { max: 45, ..cluster };
        assert!(!larger.fit() && page(&larger, false).contains("too many"));
    }
}
