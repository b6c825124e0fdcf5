//! What only SQLite can do.

use super::*;

#[tokio::test]
async fn a_database_that_is_locked_or_full_fails_and_takes_it_later() {
    let bench = Bench::sqlite().await;
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    let work = work(batch);

    // Of this connection alone: the next has room again.
    sqlx::query("PRAGMA max_page_count = 1")
        .execute(bench.database.sqlite().unwrap().writer())
        .await
        .unwrap();
    let mut large = empty();
    (0..5_000).for_each(|seq| put_record(&mut large, 2, seq, custom(1)));
    assert_eq!(bench.write(large).await, WriteResult::Failed, "disk full");
    // Nothing of it is set aside for that.
    sqlx::query("PRAGMA max_page_count = 1")
        .execute(bench.database.sqlite().unwrap().writer())
        .await
        .unwrap();
    let mut large = empty();
    (0..500).for_each(|seq| put(&mut large, 2, seq, 200, &[0; 200]));
    let result = bench.store.write(&careful(large)).await;
    assert_eq!(result, WriteResult::Failed, "disk full");
    assert_eq!(bench.count("dead_letter").await, 0);
    assert_eq!(bench.count("telemetry_custom").await, 0);
    assert_eq!(bench.store.write(&work).await, COMMITTED);

    // Given up at its deadline: the connection serves the next all the same.
    let hurried = bench.hurried();
    let held = bench
        .database
        .sqlite()
        .unwrap()
        .writer()
        .acquire()
        .await
        .unwrap();
    assert_eq!(hurried.write(&work).await, WriteResult::Failed);
    drop(held);
    assert!(is_committed(&bench.store.write(&work).await));
    assert_eq!(bench.count("telemetry_custom").await, 1);
}

/// A record that nobody will find is not stored, and once its file is back it is.
#[tokio::test]
async fn nothing_is_committed_to_a_file_that_was_moved_away() {
    let bench = Bench::sqlite().await;
    let Held::Directory(directory) = &bench._held else {
        panic!("a file has a directory");
    };
    let (path, away) = (
        directory.path().join("rcu.db"),
        directory.path().join("away.db"),
    );
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    let work = work(batch);
    std::fs::rename(&path, &away).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.store.write(&work).await, WriteResult::Failed);
        assert!(!path.exists(), "and none is made in its place");
    }
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(bench.store.write(&work).await, COMMITTED);
    assert_eq!(bench.count("telemetry_custom").await, 1);
}

/// Nor is what lies beside the old file read into the new one.
#[tokio::test]
async fn another_file_that_was_put_in_its_place_stays_as_it_is() {
    let bench = Bench::sqlite().await;
    let Held::Directory(directory) = &bench._held else {
        panic!("a file has a directory");
    };
    let (path, copy) = (
        directory.path().join("rcu.db"),
        directory.path().join("copy.db"),
    );
    std::fs::copy(&path, &copy).unwrap();
    let bytes = std::fs::read(&copy).unwrap();
    let mut batch = empty();
    put_record(&mut batch, 1, 1, custom(1));
    let work = work(batch);
    assert_eq!(bench.store.write(&work).await, COMMITTED);
    std::fs::rename(&copy, &path).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.store.write(&work).await, WriteResult::Failed);
    }
    bench.database.close().await;
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

/// A session is found by its key: a search through those that are live would make the end of many
/// sessions quadratic.
#[tokio::test]
async fn sessions_are_ended_by_their_key() {
    let bench = Bench::sqlite().await;
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(&format!(
        "EXPLAIN QUERY PLAN {} (?, ?, ?, ?) {}",
        sqlite::ENDED_HEAD,
        sqlite::ENDED_TAIL
    ))
    .fetch_all(bench.database.sqlite().unwrap().reader())
    .await
    .unwrap();
    let by_key = |(_, _, _, detail): &(i64, i64, i64, String)| {
        detail.contains("SEARCH sessions USING PRIMARY KEY (account_id=? AND epoch=?)")
    };
    assert!(plan.iter().any(by_key), "{plan:?}");
}
