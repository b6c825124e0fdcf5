//! What only PostgreSQL can do, and what can happen to it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use records::Table;

use super::*;

/// A record of this time, with this number.
fn put_at(batch: &mut Batch, seq: i64, recorded_at_ms: i64) {
    put_record(batch, 1, seq, custom(1));
    let row = batch.rows.last_mut().unwrap();
    row.recorded_at_ms = recorded_at_ms;
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

const DAY_MS: i64 = 86_400_000;

/// Which partition each record is in: number and place.
async fn places(bench: &Bench) -> Vec<String> {
    let places = "SELECT seq || ' ' || replace(tableoid::regclass::text, 'telemetry_custom', '') \
                  FROM telemetry_custom ORDER BY seq";
    bench.rows(places).await
}

#[tokio::test]
async fn a_day_gets_its_partition_before_it_comes_and_whoever_was_there_first_is_moved() {
    let bench = Bench::postgres().await;
    let partitions = Partitions::of(&bench.database).unwrap();
    let now_ms = now_ms();
    let today_ms = now_ms as i64 - now_ms as i64 % DAY_MS;
    let in_days = |days| today_ms + days * DAY_MS;
    let mut batch = empty();
    for (seq, at_ms) in [
        (1, 0),
        (2, in_days(-300)),
        (3, in_days(0)),
        (4, in_days(1) - 1),
        (5, in_days(1)),
        (6, in_days(5)),
    ] {
        put_at(&mut batch, seq, at_ms);
    }
    assert_eq!(bench.write(batch).await, COMMITTED);
    let early = [
        "1 _undated",
        "2 _default",
        "3 _default",
        "4 _default",
        "5 _default",
        "6 _default",
    ];
    assert_eq!(places(&bench).await, early);

    // Of five tables, for three days before today, today, and three after it.
    assert_eq!(partitions.ensure(now_ms).await.unwrap(), 35);
    assert_eq!(partitions.ensure(now_ms).await.unwrap(), 0);
    let name = |days: i64| {
        let at_s = in_days(days) / 1_000;
        format!("to_char(to_timestamp({at_s}) AT TIME ZONE 'UTC', '_YYYYMMDD')")
    };
    let names = bench
        .rows(&format!("SELECT unnest(ARRAY[{}, {}])", name(0), name(1)))
        .await;
    let moved = [
        "1 _undated".to_owned(),
        "2 _default".to_owned(),
        format!("3 {}", names[0]),
        format!("4 {}", names[0]),
        format!("5 {}", names[1]),
        "6 _default".to_owned(),
    ];
    assert_eq!(places(&bench).await, moved);

    // Sent again, they are the same records.
    let mut again = empty();
    put_at(&mut again, 3, in_days(0));
    put_at(&mut again, 6, in_days(5));
    assert_eq!(bench.write(again).await, repeated(0, 2, 0));
    assert_eq!(places(&bench).await, moved);
    let later = now_ms + 3 * DAY_MS.cast_unsigned();
    assert_eq!(partitions.ensure(later).await.unwrap(), 15);
    assert!(!places(&bench).await.contains(&"6 _default".to_owned()));
}

#[tokio::test]
async fn days_far_from_today_get_no_partition() {
    let bench = Bench::postgres().await;
    let partitions = Partitions::of(&bench.database).unwrap();
    let error = partitions
        .ensure(now_ms() + 100 * 86_400_000)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("too far from today"), "{error}");
}

/// Two nodes that start at the same time, while a third writes.
#[tokio::test]
async fn partitions_are_made_once_while_others_write() {
    let bench = Bench::postgres().await;
    let partitions = Partitions::of(&bench.database).unwrap();
    let other = bench.again().await;
    let others = Partitions::of(&other.database).unwrap();
    let now_ms = now_ms();
    let writes = async {
        for seq in 0..40 {
            let mut batch = empty();
            put_at(&mut batch, seq, now_ms.cast_signed() + (seq % 5) * DAY_MS);
            put(&mut batch, 1, 1_000 + seq, Fuel::KIND, &[0; 14]);
            // A deadlock would be one, and would be written again.
            assert_eq!(other.write(batch).await, COMMITTED);
        }
    };
    let (one, two, ()) = tokio::join!(partitions.ensure(now_ms), others.ensure(now_ms), writes);
    assert_eq!(one.unwrap() + two.unwrap(), 35);
    assert_eq!(bench.count("telemetry_custom").await, 40);
}

/// Behind an analyst's SELECT a day is waited for briefly, and made when he is gone. Batches go on all the while.
#[tokio::test]
async fn behind_a_long_select_batches_go_on_and_the_day_is_made_later() {
    let bench = Bench::postgres().await;
    let partitions = Partitions::of(&bench.database).unwrap();
    let now_ms = now_ms();
    partitions.ensure(now_ms).await.unwrap();
    let Database::Postgres(reader) = &bench.owner else {
        panic!("a bench of PostgreSQL");
    };
    let mut reading = reader.pool().begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM telemetry_custom")
        .execute(&mut *reading)
        .await
        .unwrap();
    let later = now_ms + DAY_MS.cast_unsigned();
    let writes = async {
        let mut longest = Duration::ZERO;
        for seq in 0..100 {
            let mut batch = empty();
            put_at(&mut batch, seq, now_ms.cast_signed());
            let begun = Instant::now();
            assert_eq!(bench.write(batch).await, COMMITTED);
            longest = longest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(reading);
        longest
    };
    let (made, longest) = tokio::join!(partitions.ensure(later), writes);
    assert_eq!(made.unwrap(), 5);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert_eq!(bench.count("telemetry_custom").await, 100);
}

/// A second node on the database of a bench.
/// A row that no partition takes is the operator's mistake, not the record's: it must not be set
/// aside for it.
#[tokio::test]
async fn a_partition_that_is_missing_is_no_fault_of_the_record() {
    let bench = Bench::postgres().await;
    bench
        .run("ALTER TABLE telemetry_custom DETACH PARTITION telemetry_custom_default")
        .await;
    let works = [work as fn(Batch) -> Work, careful].map(|work| {
        let mut batch = empty();
        put_at(&mut batch, 1, 1_700_000_000_000);
        work(batch)
    });
    for work in &works {
        assert_eq!(bench.store.write(work).await, WriteResult::Failed);
    }
    assert_eq!(bench.count("dead_letter").await, 0);
    bench
        .run("ALTER TABLE telemetry_custom ATTACH PARTITION telemetry_custom_default DEFAULT")
        .await;
    for work in &works {
        assert!(is_committed(&bench.store.write(work).await));
    }
}

/// On its way into the staging table already, which is made like the table.
#[tokio::test]
async fn of_a_careful_work_what_copy_refuses_is_set_aside() {
    let bench = Bench::postgres().await;
    bench
        .run("ALTER TABLE telemetry_custom ALTER COLUMN channel SET NOT NULL")
        .await;
    let mut batch = empty();
    for seq in 0..40 {
        match seq % 9 {
            3 => put(&mut batch, 1, seq, 200, &[1]),
            _ => put_record(&mut batch, 1, seq, custom(1)),
        }
    }
    let written = bench.store.write(&careful(batch)).await;
    assert_eq!(written, WriteResult::Committed(Written::refusing(5)));
    assert_eq!(bench.count("telemetry_custom").await, 35);
    let set_aside = "SELECT seq || '' FROM dead_letter ORDER BY seq";
    let set_aside = bench.rows(set_aside).await;
    assert_eq!(set_aside, ["3", "12", "21", "30", "39"]);
}

/// Which may read none of them, nor make another table's likeness.
#[tokio::test]
async fn under_the_role_of_the_logic_servers_records_come_again_and_are_refused() {
    let bench = Bench::postgres().await;
    bench.refuse_13().await;
    let batch = || {
        let mut batch = empty();
        put_record(&mut batch, 1, 1, custom(1));
        put(&mut batch, 1, 2, Gps::KIND, &[0; 18]);
        put(&mut batch, 1, 3, Fuel::KIND, &[0; 14]);
        put(&mut batch, 1, 4, Gyroscope::KIND, &[0; 12]);
        put(
            &mut batch,
            1,
            5,
            Diagnosis::KIND,
            &[&[0; 11][..], &[0]].concat(),
        );
        put(&mut batch, 1, 6, Gps::KIND, &[1, 2]);
        batch
    };
    for alike in [0, 6] {
        assert_eq!(bench.write(batch()).await, repeated(0, alike, 0));
    }
    let mut with_refused = batch();
    put_record(&mut with_refused, 1, 7, custom(13));
    put_record(&mut with_refused, 1, 8, custom(14));
    let written = bench.store.write(&careful(with_refused)).await;
    assert_eq!(written, repeated(1, 6, 0));
    for table in Table::ALL {
        let stored = if table == Table::Custom { 2 } else { 1 };
        assert_eq!(bench.count(table.name()).await, stored, "{table:?}");
    }
    assert_eq!(bench.count("dead_letter").await, 2);
}

/// Its operator would take them for faults. Three lines for each: ERROR, DETAIL, CONTEXT.
#[tokio::test]
async fn what_is_known_to_be_a_repetition_leaves_no_line_in_the_log_of_the_database() {
    let server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let bench = Bench::of_server(&server).await;
    let batch = |may_be_there| {
        let mut batch = empty();
        (1..=3).for_each(|seq| put_record(&mut batch, 1, seq, custom(1)));
        batch.rows[0].may_be_there = may_be_there;
        batch.rows[2].may_be_there = may_be_there;
        batch
    };
    let mut first = batch(false);
    first.rows.remove(1);
    assert_eq!(bench.write(first).await, COMMITTED);
    let before = server.log();
    // One of them is new, and goes straight into its table.
    assert_eq!(bench.write(batch(true)).await, repeated(0, 2, 0));
    assert_eq!(bench.count("telemetry_custom").await, 3);
    assert_eq!(server.log(), before);
    // Where it is not known it is stored once all the same.
    assert_eq!(bench.write(batch(false)).await, repeated(0, 3, 0));
    assert_eq!(bench.count("telemetry_custom").await, 3);
    let told = server.log();
    assert!(told.contains("duplicate key value"), "{told}");
}

/// No repetition helps, so somebody has to be told what does.
#[tokio::test]
async fn a_right_that_is_missing_and_a_table_that_is_another_are_told_from_what_passes() {
    let bench = Bench::postgres().await;
    let work = || {
        let mut batch = empty();
        put_record(&mut batch, 1, 1, custom(1));
        work(batch)
    };
    assert_eq!(bench.store.trouble(), None);
    for (spoil, mend, trouble) in [
        (
            "REVOKE INSERT ON telemetry_custom FROM rcu_telemetry",
            "GRANT INSERT ON telemetry_custom TO rcu_telemetry",
            Trouble::Rights,
        ),
        (
            "ALTER TABLE telemetry_custom RENAME payload TO content",
            "ALTER TABLE telemetry_custom RENAME content TO payload",
            Trouble::Tables,
        ),
        (
            "DROP VIEW custom; ALTER TABLE telemetry_custom ALTER channel TYPE smallint",
            "ALTER TABLE telemetry_custom ALTER channel TYPE integer",
            Trouble::Tables,
        ),
    ] {
        bench.run(spoil).await;
        assert_eq!(bench.store.write(&work()).await, WriteResult::Failed);
        assert_eq!(bench.store.trouble(), Some(trouble), "{spoil}");
        bench.run(mend).await;
        assert_eq!(bench.store.write(&work()).await, COMMITTED, "{mend}");
        assert_eq!(bench.store.trouble(), None);
        bench.run("DELETE FROM telemetry_custom").await;
    }
}

/// To count repetitions must not cost an acknowledgement: before roles.sql ran for a new schema, or where a
/// table has a column more than this program knows.
#[tokio::test]
async fn what_comes_again_is_stored_also_where_it_cannot_be_compared() {
    let bench = Bench::postgres().await;
    let batch = |channel| {
        let mut batch = empty();
        put_record(&mut batch, 1, 1, custom(channel));
        put(&mut batch, 1, 2, Gps::KIND, &[1]);
        batch
    };
    assert_eq!(bench.write(batch(1)).await, COMMITTED);
    for table in ["telemetry_custom", "dead_letter"] {
        bench
            .run(&format!(
                "ALTER TABLE {table} ADD COLUMN note text DEFAULT 'more'"
            ))
            .await;
    }
    assert_eq!(bench.write(batch(1)).await, repeated(0, 2, 0));
    assert_eq!(bench.write(batch(2)).await, repeated(0, 1, 1));
    bench
        .run("REVOKE EXECUTE ON FUNCTION rcu_contradicting(anyarray, text[]) FROM rcu_telemetry")
        .await;
    for work in [work(batch(2)), careful(batch(2))] {
        let WriteResult::Committed(written) = bench.store.write(&work).await else {
            panic!("it is not stored");
        };
        assert_eq!((written.alike, written.contradicting.len()), (2, 0));
        let told = written.uncompared.unwrap();
        assert!(told.contains("permission denied"), "{told}");
    }
}

/// All that a logic server does with its database, from the first connection on; `turn`: records that were
/// not there before.
async fn do_everything(test: &TestDatabase, turn: i64) -> Result<(), String> {
    let client = client();
    let url = test.url(Role::Telemetry).parse().unwrap();
    let database = Database::connect(&url, client).await;
    let database = database.map_err(|error| error.to_string())?;
    let store = Store::new(&database, &"logic-1".parse().unwrap(), PATIENCE);
    let done = async {
        store
            .repair(1)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let partitions = Partitions::of(&database).unwrap();
        let made = partitions.ensure(now_ms()).await;
        made.map_err(|error| error.to_string())?;
        let mut again = of_every_kind(turn);
        again
            .rows
            .iter_mut()
            .for_each(|row| row.may_be_there = true);
        for work in [
            work(of_every_kind(turn)),
            work(again),
            careful(of_every_kind(turn)),
            work_of(vec![session(turn, true)]),
            work_of(vec![session(turn, false)]),
        ] {
            let written = store.write(&work).await;
            let is_done = matches!(&written, WriteResult::Committed(it) if it.uncompared.is_none());
            if !is_done {
                return Err(format!("{written:?}: {:?}", store.trouble()));
            }
        }
        Ok(())
    };
    let done = done.await;
    database.close().await;
    done
}

fn of_every_kind(turn: i64) -> Batch {
    let mut batch = empty();
    for (kind, payload) in [
        (Gps::KIND, &[0; 18][..]),
        (Fuel::KIND, &[0; 14]),
        (Gyroscope::KIND, &[0; 12]),
        (Diagnosis::KIND, &[0; 12]),
        (200, &[1]),
        (Gps::KIND, &[1]),
    ] {
        put(&mut batch, 1, turn, kind, payload);
    }
    batch
}

/// The beginning of a session, or its end.
fn session(turn: i64, begins: bool) -> Presence {
    let (account_id, epoch) = (AccountId(1), Epoch::at_ms(turn.unsigned_abs()));
    match begins {
        true => Presence::Attached {
            account_id,
            epoch,
            source: "192.0.2.7".parse().unwrap(),
            at_ms: 100,
        },
        false => Presence::Ended {
            account_id,
            epoch,
            at_ms: 600,
            reason: EndReason::Disconnected,
        },
    }
}

#[tokio::test]
async fn a_logic_server_may_what_it_does_and_nothing_else() {
    let test = TestDatabase::new();
    do_everything(&test, 1).await.unwrap();
    let rights = test.rights(Role::Telemetry).unwrap();
    assert!(rights.len() > 50, "{rights:?}");
    let mut useless = vec![];
    for (right, turn) in rights.iter().zip(2..) {
        test.take(right).unwrap();
        if do_everything(&test, turn).await.is_ok() {
            useless.push(&right.name);
        }
        test.give(right).unwrap();
    }
    assert!(useless.is_empty(), "nothing fails without {useless:?}");
    do_everything(&test, -1).await.unwrap();
}

#[tokio::test]
async fn a_time_that_is_none_is_refused() {
    let bench = Bench::postgres().await;
    let mut batch = empty();
    put_at(&mut batch, 1, 1 << 60);
    let refused = bench.write(batch).await;
    assert!(
        matches!(refused, WriteResult::Refused { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn every_column_is_of_the_type_that_its_kind_declares() {
    let bench = Bench::postgres().await;
    for table in Table::ALL {
        for column in table.columns() {
            let types = bench
                .rows(&format!(
                    "SELECT data_type::text FROM information_schema.columns \
                     WHERE table_name = '{}' AND column_name = '{}'",
                    table.name(),
                    column.name
                ))
                .await;
            let declared = copy::sql_type(column.column_type);
            assert_eq!(types, [declared], "{}.{}", table.name(), column.name);
        }
    }
}

#[tokio::test]
async fn sessions_are_ended_by_their_key() {
    let bench = Bench::postgres().await;
    bench
        .run("INSERT INTO sessions SELECT n, n, 'logic-1', '10.0.0.1', now() FROM generate_series(1, 20000) AS n; \
              ANALYZE sessions")
        .await;
    let ended = postgres::ENDED
        .replace("$1", "'{1,2,3}'")
        .replace("$2", "'{1,2,3}'")
        .replace("$3", "'{now,now,now}'")
        .replace("$4", "'{idle,idle,idle}'");
    let plan = bench.rows(&format!("EXPLAIN {ended}")).await;
    let by_key = |line: &String| line.contains("Index Scan using sessions_pkey");
    assert!(plan.iter().any(by_key), "{plan:?}");
}

/// Given up at its deadline, a write keeps no lock, no connection and no half of itself.
#[tokio::test]
async fn a_write_that_is_given_up_leaves_nothing_behind() {
    let bench = Bench::postgres().await;
    let Database::Postgres(held) = &bench.owner else {
        panic!("a bench of PostgreSQL");
    };
    let mut lock = held.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE telemetry_custom IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    put(&mut batch, 1, 2, Fuel::KIND, &[0; 14]);
    let mut again = empty();
    put_record(&mut again, 1, 1, custom(1));
    let (work, careful) = (work(batch), careful(again));
    let hurried = bench.hurried();
    for _ in 0..5 {
        assert_eq!(hurried.write(&work).await, WriteResult::Failed);
        assert_eq!(hurried.write(&careful).await, WriteResult::Failed);
    }
    // The server notices within a second that nobody waits for them any more.
    let deadline = Instant::now() + PATIENCE;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    loop {
        let waiting: i64 = sqlx::query_scalar(waiting)
            .fetch_one(&mut *lock)
            .await
            .unwrap();
        if waiting == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{waiting} still wait");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock.rollback().await.unwrap();
    assert_eq!(bench.store.write(&work).await, COMMITTED);
    assert_eq!(bench.count("telemetry_custom").await, 1);
    assert_eq!(bench.count("telemetry_fuel").await, 1);
}

/// Also in the middle of a COPY, to a server that does not answer any more.
#[tokio::test]
async fn a_server_that_stands_still_fails_in_time_and_takes_it_later() {
    let server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let bench = Bench::of_server(&server).await;
    let hurried = bench.hurried();
    let mut batch = empty();
    (0..20_000).for_each(|seq| put_record(&mut batch, 1, seq, custom(1)));
    let work = work(batch);
    assert_eq!(bench.write(empty()).await, COMMITTED);
    server.freeze().unwrap();
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(hurried.write(&work).await, WriteResult::Failed);
        assert!(begun.elapsed() < PATIENCE);
    }
    server.thaw().unwrap();
    assert_eq!(bench.store.write(&work).await, COMMITTED);
    assert_eq!(bench.count("telemetry_custom").await, 20_000);
}

/// F16 and F14: what was committed is there after a crash, and what may have been is written again.
#[tokio::test]
async fn a_crash_of_the_database_loses_nothing_and_doubles_nothing() {
    let mut server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let bench = Bench::of_server(&server).await;
    let works: Vec<_> = (0..200)
        .map(|number| {
            let mut batch = empty();
            (0..50).for_each(|row| put_record(&mut batch, number, row, custom(1)));
            work(batch)
        })
        .collect();
    let mut failed = 0;
    let mut crashed = false;
    let deadline = Instant::now() + 6 * PATIENCE;
    for (number, work) in works.iter().enumerate() {
        let mut write = Box::pin(bench.store.write(work));
        let mut early = None;
        if number == 100 {
            // Under way, somewhere between its first byte and its COMMIT; or just done.
            early = timeout(Duration::from_millis(1), &mut write).await.ok();
            server.crash().unwrap();
            crashed = true;
        }
        let mut result = match early {
            Some(result) => result,
            None => write.await,
        };
        while !is_committed(&result) {
            assert!(crashed && result == WriteResult::Failed, "{result:?}");
            assert!(Instant::now() < deadline);
            failed += 1;
            if failed == 3 {
                server.start_again().unwrap();
            }
            result = bench.store.write(work).await;
        }
    }
    assert!(failed >= 3, "{failed}");
    assert_eq!(bench.count("telemetry_custom").await, 200 * 50);
}

#[tokio::test]
async fn a_database_that_is_read_only_or_full_of_clients_fails_and_takes_it_later() {
    let server =
        PostgresServer::start("max_connections = 6\nsuperuser_reserved_connections = 0").unwrap();
    server.make_database(NAME).unwrap();
    let bench = Bench::of_server(&server).await;
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    let work = work(batch);

    let read_only = |on: &str| {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
        server.sql(NAME, &set).unwrap();
        server.sql(NAME, "SELECT pg_reload_conf()").unwrap();
    };
    read_only("on");
    let deadline = Instant::now() + PATIENCE;
    while bench.store.write(&work).await != WriteResult::Failed {
        assert!(Instant::now() < deadline, "it is not read-only");
    }
    read_only("off");
    let deadline = Instant::now() + PATIENCE;
    while !is_committed(&bench.store.write(&work).await) {
        assert!(Instant::now() < deadline, "it is still read-only");
    }

    // None of the bench's own connections is open, and nobody else gets one.
    bench.database.close().await;
    let mut full = Bench::of_server(&server).await;
    full.store = full.hurried();
    let mut others = vec![];
    let Database::Postgres(postgres) = &full.database else {
        panic!("a bench of PostgreSQL");
    };
    let options = postgres.pool().connect_options();
    while let Ok(connection) = sqlx::ConnectOptions::connect(&*options).await {
        others.push(connection);
    }
    assert_eq!(full.store.write(&work).await, WriteResult::Failed);
    drop(others);
    let deadline = Instant::now() + PATIENCE;
    while !is_committed(&full.store.write(&work).await) {
        assert!(Instant::now() < deadline, "it is still full");
    }
    assert_eq!(full.count("telemetry_custom").await, 1);
}

#[tokio::test]
async fn a_database_that_is_gone_is_told_at_the_start() {
    let server = PostgresServer::start("").unwrap();
    server.make_database(NAME).unwrap();
    let bench = Bench::of_server(&server).await;
    drop(server);
    let missing = bench.hurried().repair(1).await;
    assert!(missing.is_err());
}
