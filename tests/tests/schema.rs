//! The queries of docs/schema.md run, as an analyst may run them, and say what they promise.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use servers::PostgresServer;

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

/// Two trucks: one that lost numbers 4 and 5 of its boot 1 and was online an hour ago; one of boot 2 that
/// came since then.
const ROWS: &str = "
INSERT INTO accounts (id, name, sealed_key, created_at) VALUES (1, 'truck-1', '', now()), (2, 'truck-2', '', now());
INSERT INTO sessions VALUES
    (1, 1, 'logic-1', '192.0.2.1', now() - interval '3 hours', now() - interval '2 hours', 'idle'),
    (1, 2, 'logic-2', '192.0.2.1', now() - interval '90 minutes', NULL, NULL),
    (2, 3, 'logic-1', '192.0.2.2', now() - interval '10 minutes', NULL, NULL);
INSERT INTO telemetry_gps (account_id, recorded_at, seq, received_at, latitude, longitude) VALUES
    (1, now() - interval '20 minutes', (1::bigint << 32) + 1, now() - interval '20 minutes', 10, 20),
    (1, now() - interval '10 minutes', (1::bigint << 32) + 3, now(), 11, 21),
    (1, now() - interval '5 minutes', (1::bigint << 32) + 6, now(), NULL, NULL),
    (2, now(), 2::bigint << 32, now(), 12, 22);
INSERT INTO telemetry_fuel (account_id, recorded_at, seq, received_at, used_ml) VALUES
    (1, date_trunc('hour', now()) - interval '150 minutes', (1::bigint << 32), now(), 10000),
    (1, date_trunc('hour', now()) - interval '90 minutes', (1::bigint << 32) + 2, now(), 12500);
INSERT INTO dead_letter VALUES (2, now(), (2::bigint << 32) + 1, now(), 1, '\\x00', 'length');
";

#[test]
fn every_query_of_the_documentation_says_what_it_promises() {
    let server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    server.sql(NAME, ROWS).unwrap();
    let analyst = |query: &str| {
        let as_analyst = format!("SET ROLE rcu_read; SET TimeZone = 'UTC'; {query}");
        let told = server.sql(NAME, &as_analyst).unwrap();
        told.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut asked = 0;
    let mut ask = |begins: &str| {
        asked += 1;
        let all = queries();
        let found = all
            .iter()
            .find(|(paragraph, _)| paragraph.starts_with(begins));
        let (_, query) = found.unwrap_or_else(|| panic!("no query {begins:?}"));
        analyst(query)
    };
    let columns = |row: &str| row.split('|').map(str::to_owned).collect::<Vec<_>>();

    let positions = ask("Latest position");
    assert_eq!(positions.len(), 2, "{positions:?}");
    assert!(positions[0].starts_with("truck-1|") && positions[0].ends_with("|11|21"));
    assert!(positions[1].starts_with("truck-2|") && positions[1].ends_with("|12|22"));
    let first_missing = (1_u64 << 32) + 4;
    assert_eq!(ask("Gaps"), [format!("truck-1|1|{first_missing}|2")]);
    let fuel = ask("Fuel");
    assert_eq!(fuel.len(), 1, "{fuel:?}");
    assert!(
        fuel[0].starts_with("truck-1|") && fuel[0].contains("|2.5"),
        "{fuel:?}"
    );
    let online = ask("Who was online");
    assert_eq!(online.len(), 1, "{online:?}");
    assert_eq!(
        columns(&online[0])[..3],
        ["truck-1", "logic-2", "192.0.2.1"]
    );
    let late = ask("How late");
    let buckets: Vec<_> = late.iter().map(|row| columns(row)[1].clone()).collect();
    assert_eq!(buckets, ["2", "2"], "{late:?}");
    let aside = ask("What was set aside");
    assert!(
        aside.len() == 1 && aside[0].starts_with("length|1|1|1|"),
        "{aside:?}"
    );
    assert_eq!(asked, queries().len(), "a query of the page is not tried");
}
