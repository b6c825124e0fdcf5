//! The queries of docs/schema.md run, as an analyst may run them, and say what they promise.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use common::database::{Database, Postgres};
use servers::{PostgresServer, Role};

const NAME: &str = "rcu";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Each query of the page, behind the paragraph that says what it tells.
fn queries() -> Vec<(String, String)> {
    let page = fs::read_to_string(root().join("docs/schema.md")).unwrap();
    let mut before = String::new();
    let mut queries = vec![];
    for (number, part) in page.split("```").enumerate() {
        match part.strip_prefix("sql\n") {
            Some(query) if number % 2 == 1 => {
                let paragraph = before.trim().rsplit("\n\n").next().unwrap();
                queries.push((paragraph.to_owned(), query.to_owned()));
            }
            _ => before = part.to_owned(),
        }
    }
    queries
}

/// What an analyst meets: `truck-1` lost numbers 4 and 5 of its boot 1, had its clock a year ahead once, got a new
/// counter of fuel, and its node crashed while it was online. `truck-2` was silent for ten hours. `truck-3` was
/// last seen ten days ago, on a node that has not come back, and had its clock ahead once before. `truck-4` was on
/// a node that crashed. `idle` sent one record and never a position. Returns when this hour began.
const ROWS: &str = "
INSERT INTO accounts (id, name, sealed_key, created_at)
    SELECT id, name, '', now() FROM unnest(ARRAY['truck-1', 'truck-2', 'truck-3', 'truck-4', 'idle'])
    WITH ORDINALITY AS it (name, id);
INSERT INTO sessions VALUES
    (1, 1, 'logic-1', '192.0.2.1', now() - interval '3 hours', now() - interval '10 minutes', 'crash'),
    (1, 2, 'logic-2', '192.0.2.1', now() - interval '90 minutes', NULL, NULL),
    (2, 3, 'logic-1', '192.0.2.2', now() - interval '10 minutes', NULL, NULL),
    (3, 4, 'logic-3', '192.0.2.3', now() - interval '4 hours', NULL, NULL),
    (3, 5, 'logic-2', '192.0.2.3', now() - interval '3 hours', now() - interval '2 hours', 'idle'),
    (4, 6, 'logic-1', '192.0.2.4', now() - interval '2 hours', now() - interval '10 minutes', 'crash');
INSERT INTO telemetry_gps (account_id, seq, recorded_at, received_at, latitude, longitude)
    SELECT account_id, (boot << 32) + nth, now() - made, now() - came, latitude, longitude FROM (VALUES
        (1, 1::bigint, 1, interval '20 minutes', interval '20 minutes', 10, 20),
        (1, 1, 3, '10 minutes', '0', 11, 21),
        (1, 1, 6, '5 minutes', '0', NULL, NULL),
        (1, 1, 9, '-1 year', '0', 80, 80),
        (2, 2, 0, '0', '0', 12, 22),
        (2, 2, 4, '5 minutes', '295 seconds', 12, 22),
        (2, 2, 5, '4 minutes', '210 seconds', 12, 22),
        (2, 2, 6, '3 hours', '1 hour', 12, 22),
        (3, 1, 0, '10 days', '10 days', 13, 23),
        (3, 1, 1, '2 days', '40 days', 80, 80),
        (4, 1, 4, '1 hour', '2 hours', 80, 80)
    ) AS it (account_id, boot, nth, made, came, latitude, longitude);
INSERT INTO telemetry_fuel (account_id, seq, recorded_at, received_at, used_ml)
    SELECT account_id, (boot << 32) + nth, date_trunc('hour', now()) - made, now() - came, used_ml FROM (VALUES
        (1, 1::bigint, 0, interval '150 minutes', interval '0', 10000),
        (1, 1, 2, '90 minutes', '0', 12500),
        (1, 1, 7, '80 minutes', '0', 300),
        (1, 1, 8, '70 minutes', '0', 800),
        (2, 2, 2, '11 hours', '0', 0),
        (2, 2, 3, '1 hour', '0', 20000),
        (3, 1, 2, '50 minutes', '0', 1000),
        (3, 1, 3, '40 minutes', '0', 1600),
        (4, 1, 0, '45 minutes', '0', 100),
        (4, 1, 1, '30 minutes', '2 days', 999999),
        (4, 1, 2, '-1 year', '0', 999999),
        (4, 1, 3, '20 minutes', '0', 200),
        (5, 1, 0, '20 minutes', '0', 5)
    ) AS it (account_id, boot, nth, made, came, used_ml);
INSERT INTO dead_letter VALUES (2, now(), (2::bigint << 32) + 1, now(), 1, '\\x00', 'length');
SELECT date_trunc('hour', now());
";

/// A database with its days, and nothing in it.
fn site() -> PostgresServer {
    let server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let days = "SELECT rcu_ensure_partition(current_date + day) FROM generate_series(-3, 3) AS day";
    server.sql(NAME, days).unwrap();
    server
}

/// What `rcu_read` is told, a row a line.
fn analyst(server: &PostgresServer, query: &str) -> Result<Vec<String>, String> {
    let as_analyst = format!("SET ROLE rcu_read; SET TimeZone = 'UTC'; {query}");
    let told = server.sql(NAME, &as_analyst);
    let told = told.map_err(|error| error.to_string())?;
    Ok(told.lines().map(str::to_owned).collect())
}

fn columns(row: &str) -> Vec<&str> {
    row.split('|').collect()
}

/// These columns of each row.
fn only(rows: &[String], wanted: &[usize]) -> Vec<String> {
    let pick = |row: &String| {
        let all = columns(row);
        let picked: Vec<_> = wanted.iter().map(|&column| all[column]).collect();
        picked.join(" ")
    };
    rows.iter().map(pick).collect()
}

#[test]
fn every_query_of_the_documentation_says_what_it_promises() {
    let server = site();
    let set_up = format!("SET TimeZone = 'UTC'; {ROWS}");
    let this_hour = server.sql(NAME, &set_up).unwrap();
    let mut asked = 0;
    let mut ask = |begins: &str| {
        asked += 1;
        let all = queries();
        let found = all
            .iter()
            .find(|(paragraph, query)| paragraph.starts_with(begins) || query.starts_with(begins));
        let (_, query) = found.unwrap_or_else(|| panic!("no query {begins:?}"));
        analyst(&server, query).unwrap()
    };

    let online = only(&ask("SELECT name, node, since FROM devices"), &[0, 1]);
    assert_eq!(online, ["truck-1 logic-2", "truck-2 logic-1"]);
    let of_one = only(&ask("SELECT * FROM gps"), &[0, 5, 6]);
    assert_eq!(of_one, ["truck-1 10 20", "truck-1 11 21", "truck-1  "]);
    let positions = only(&ask("Latest position"), &[0, 2, 3]);
    assert_eq!(positions, ["truck-1 11 21", "truck-2 12 22"]);
    let first_missing = (1_u64 << 32) + 4;
    assert_eq!(ask("Gaps"), [format!("truck-1|1|{first_missing}|2")]);

    let fuel = ask("Fuel");
    let mut expected = vec!["truck-1 1.250", "truck-1 1.750"];
    expected.extend(["truck-2 2.000"; 10]);
    expected.extend(["truck-3 0.600", "truck-4 0.100"]);
    assert_eq!(only(&fuel, &[0, 2]), expected);
    let last = "SELECT (timestamptz 'THEN' - interval '1 hour')".replace("THEN", this_hour.trim());
    assert_eq!(only(&fuel[12..13], &[1]), analyst(&server, &last).unwrap());

    let online = only(&ask("Who was online"), &[0, 1, 2, 5]);
    let expected = [
        "truck-1 logic-2 192.0.2.1 ",
        "truck-4 logic-1 192.0.2.4 crash",
    ];
    assert_eq!(online, expected);
    let late = only(&ask("How late"), &[0, 1]);
    assert_eq!(late, ["0 1", "1 2", "2 1", "3 1", "4 2", "5 1"]);
    let aside = only(&ask("What was set aside"), &[0, 1, 2, 3]);
    assert_eq!(aside, ["length 1 1 1"]);
    assert_eq!(asked, queries().len(), "a query of the page is not tried");
}

#[test]
fn the_views_say_what_each_device_is_and_where_it_was_last() {
    let server = site();
    server.sql(NAME, ROWS).unwrap();
    let devices = analyst(&server, "SELECT * FROM devices ORDER BY name").unwrap();
    let expected = [
        "idle t f  ",
        "truck-1 t t logic-2 ",
        "truck-2 t t logic-1 ",
        "truck-3 t f logic-2 idle",
        "truck-4 t f logic-1 crash",
    ];
    assert_eq!(only(&devices, &[1, 2, 3, 4, 7]), expected);
    let positions = analyst(&server, "SELECT * FROM latest_position ORDER BY name").unwrap();
    let expected = ["truck-1 11 21", "truck-2 12 22", "truck-3 13 23"];
    assert_eq!(only(&positions, &[1, 4, 5]), expected);
    // What an account sent stays when it is removed, and so does the name that it had in the changes.
    server
        .sql(NAME, "DELETE FROM accounts WHERE id = 4")
        .unwrap();
    let orphans = analyst(
        &server,
        "SELECT used_ml FROM fuel WHERE name IS NULL ORDER BY seq",
    );
    assert_eq!(orphans.unwrap(), ["100", "999999", "999999", "200"]);

    let key = analyst(&server, "SELECT * FROM accounts").unwrap_err();
    assert!(key.contains("permission denied"), "{key}");
    let told = analyst(&server, "SELECT obj_description('accounts'::regclass)").unwrap();
    assert!(told[0].contains("the view devices"), "{told:?}");
}

/// Whichever schema that is: the partitions are made where the tables are, by a role that may make none.
#[tokio::test]
async fn a_schema_of_its_own_has_its_partitions_too() {
    let server = PostgresServer::start("").unwrap();
    server.make_empty_database(NAME).unwrap();
    let elsewhere =
        "CREATE SCHEMA fleet AUTHORIZATION rcu_owner; ALTER DATABASE rcu SET search_path = fleet";
    server.sql(NAME, elsewhere).unwrap();
    let owner = server.url(NAME, Role::Owner);
    Postgres::migrate(&owner.parse().unwrap()).await.unwrap();
    server.grant(NAME).unwrap();
    let write = "SET ROLE rcu_telemetry; SELECT rcu_ensure_partition(current_date); \
                 INSERT INTO telemetry_gps (account_id, recorded_at, seq, received_at) VALUES (1, now(), 1, now())";
    assert_eq!(server.sql(NAME, write).unwrap(), "5\n");
    let read = analyst(&server, "SELECT tableoid::regclass FROM telemetry_gps").unwrap();
    assert!(read[0].starts_with("telemetry_gps_2"), "{read:?}");
    let public = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(server.sql(NAME, public).unwrap(), "0\n");
}

/// Of a fleet a latest position is one look at the key for each device: no day that has rows to speak of is
/// read whole. Which day has them depends on the hour.
#[test]
fn the_latest_position_is_looked_up_by_the_key() {
    let server = site();
    let fleet = "INSERT INTO accounts (id, name, sealed_key, created_at) \
                 SELECT n, 'van-' || n, '', now() FROM generate_series(1, 200) AS n; \
                 INSERT INTO telemetry_gps (account_id, recorded_at, seq, received_at, latitude, longitude) \
                 SELECT id, now() - n * interval '1 minute', n, now(), 1, 2 \
                 FROM accounts, generate_series(1, 500) AS n; \
                 ANALYZE";
    server.sql(NAME, fleet).unwrap();
    let plan = analyst(&server, "EXPLAIN SELECT * FROM latest_position").unwrap();
    let large = "SELECT relname FROM pg_class WHERE relname LIKE 'telemetry_gps_%' \
                 AND relkind = 'r' AND reltuples > 10000";
    let large = server.sql(NAME, large).unwrap();
    assert!(!large.is_empty());
    for table in large.lines() {
        let mut scans = plan.iter().filter(|line| line.contains("Seq Scan on"));
        assert!(!scans.any(|line| line.contains(table)), "{plan:#?}");
    }
}

#[test]
fn every_table_view_and_column_says_what_it_is() {
    let server = site();
    let silent = "SELECT relname || '.' || coalesce(attname, '') FROM pg_class \
                  LEFT JOIN pg_attribute ON attrelid = oid AND attnum > 0 \
                  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition \
                  AND (obj_description(oid, 'pg_class') IS NULL OR col_description(oid, attnum) IS NULL)";
    assert_eq!(server.sql(NAME, silent).unwrap(), "");
    let all = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace \
               AND relkind IN ('r', 'p', 'v') AND NOT relispartition";
    let all: u32 = server.sql(NAME, all).unwrap().trim().parse().unwrap();
    assert!(all >= 18, "only {all} tables and views were found");
}

/// The same views, with times that people can read.
#[tokio::test]
async fn the_views_of_sqlite_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&directory.path().join("rcu.db")).await;
    let database = database.unwrap();
    let rows = "
        INSERT INTO accounts (id, name, sealed_key, created_at) VALUES
            (1, 'truck-1', x'', 0), (2, 'truck-2', x'', 0), (3, 'idle', x'', 0);
        INSERT INTO sessions VALUES
            (1, 1, 'logic-1', '192.0.2.1', 1700000000000, NULL, NULL),
            (1, 2, 'logic-2', '192.0.2.1', 1700000001500, 1700000002000, 'idle'),
            (2, 3, 'logic-1', '192.0.2.2', 1700000001500, NULL, NULL);
        INSERT INTO telemetry_gps (account_id, seq, recorded_at, received_at, latitude, longitude) VALUES
            (1, 1, 1700000000000, 1700000000000, 10, 20),
            (1, 2, 1700000001500, 1700000001600, 11, 21),
            (1, 3, 1700000001600, 1700000001600, NULL, NULL),
            (1, 4, 1700900000000, 1700000001600, 80, 80),
            (1, 5, 9700000000000, 1700000001600, 80, 80),
            (2, 1, 9700000000000, 1700000001600, 80, 80);
    ";
    let writer = database.sqlite().unwrap().writer();
    sqlx::raw_sql(rows).execute(writer).await.unwrap();
    let reader = database.sqlite().unwrap().reader();
    let ask = async |query: &'static str| {
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(reader).await.unwrap();
        rows
    };
    let devices = "SELECT name || ' ' || online || ' ' || coalesce(node || ' ' || since, '-') FROM devices ORDER BY name";
    let expected = [
        "idle 0 -",
        "truck-1 0 logic-2 2023-11-14 22:13:22.000",
        "truck-2 1 logic-1 2023-11-14 22:13:21.500",
    ];
    assert_eq!(ask(devices).await, expected);
    let positions = "SELECT name || ' ' || recorded_at || ' ' || latitude FROM latest_position";
    assert_eq!(
        ask(positions).await,
        ["truck-1 2023-11-14 22:13:21.500 11.0"]
    );
    for view in ["gps", "fuel", "gyroscope", "diagnosis", "custom"] {
        let all = format!("SELECT count(*) || '' FROM {view} WHERE name LIKE 'truck-%'");
        let all: String = sqlx::query_scalar(&all).fetch_one(reader).await.unwrap();
        assert_eq!(all, if view == "gps" { "6" } else { "0" });
    }
}
