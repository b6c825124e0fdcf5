//! Many rows by few statements: every trip to SQLite's thread costs as much as dozens of rows.
//!
//! ```text
//! 300 rows ─▶ 256 · 32 · 8 · 4     one statement each
//! ```
//!
//! Sizes are powers of two, so that a few statement texts serve every number of rows and stay
//! prepared. While SQLite works on one chunk, the values of the next are made.

use std::slice;

use records::Row;
use sqlx::Arguments;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

/// Rows of the largest statement of a telemetry table. Batches of 5,000 came to 201,000 rows/s with
/// 128, 227,000 with 512, 234,000 with 1,024 (means of three noisy runs). A prepared statement keeps 1.1 KB for each row of 11 columns. Far
/// below the 32,766 parameters that SQLite allows.
pub(super) const RECORDS_MAX: usize = 512;

/// Of one for `sessions`, whose memory a server pays also when its devices are silent.
pub(super) const SESSIONS_MAX: usize = 128;

/// Of one that looks at rows which are there already: they are few, as a rule.
pub(super) const COMPARED_MAX: usize = 128;

/// A statement that takes rows as a list of VALUES, in every size that is used.
#[derive(Debug)]
pub(super) struct Bulk {
    columns: usize,
    rows_max: usize,
    /// For `rows_max` rows, half as many, …, one.
    texts: Vec<String>,
}

impl Bulk {
    /// `head (?, …), (?, …), … tail` with `columns` values a row; `rows_max` is a power of two.
    pub(super) fn new(head: &str, columns: usize, tail: &str, rows_max: usize) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        let sizes = std::iter::successors(Some(rows_max), |size| Some(size / 2));
        let texts = sizes
            .take_while(|&size| size > 0)
            .map(|size| format!("{head} {} {tail}", vec![row.as_str(); size].join(",")))
            .collect();
        Self {
            columns,
            rows_max,
            texts,
        }
    }

    /// Runs it for all items; `put` writes one item's values. Returns how many rows it changed.
    pub(super) async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        put: impl Fn(&T, &mut Values),
    ) -> Result<u64, sqlx::Error> {
        let mut rest = items;
        let mut next = || self.split_chunk(&mut rest, &put);
        let mut chunk = next();
        let mut changed = 0;
        while let Some((text, values)) = chunk {
            let statement = sqlx::query_with(text, values.0).execute(&mut *connection);
            // The statement first: once polled, it is with SQLite's thread.
            let (result, following) = tokio::join!(statement, async { next() });
            changed += result?.rows_affected();
            chunk = following;
        }
        Ok(changed)
    }

    /// What it answers for all items: pairs of integers.
    pub(super) async fn ask<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        put: impl Fn(&T, &mut Values),
    ) -> Result<Vec<(i64, i64)>, sqlx::Error> {
        let (mut rest, mut answers) = (items, vec![]);
        while let Some((text, values)) = self.split_chunk(&mut rest, &put) {
            let statement = sqlx::query_as_with::<_, (i64, i64), _>(text, values.0);
            answers.extend(statement.fetch_all(&mut *connection).await?);
        }
        Ok(answers)
    }

    /// Runs it for each item alone; `done` hears how many rows it changed, and ends it with an error.
    pub(super) async fn run_one_by_one<T>(
        &self,
        connection: &mut SqliteConnection,
        items: &[T],
        put: impl Fn(&T, &mut Values),
        mut done: impl FnMut(&T, Result<u64, sqlx::Error>) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        for item in items {
            done(
                item,
                self.run(connection, slice::from_ref(item), &put).await,
            )?;
        }
        Ok(())
    }

    /// The statement for as many of the items as one takes, with their values.
    fn split_chunk<T>(
        &self,
        items: &mut &[T],
        put: impl Fn(&T, &mut Values),
    ) -> Option<(&str, Values)> {
        let (text, size) = self
            .texts
            .iter()
            .enumerate()
            .map(|(halvings, text)| (text, self.rows_max >> halvings))
            .find(|&(_, size)| size <= items.len())?;
        let (chunk, rest) = items.split_at(size);
        *items = rest;
        let mut values = Values(SqliteArguments::default());
        values.0.reserve(size * self.columns, 0);
        chunk.iter().for_each(|item| put(item, &mut values));
        debug_assert_eq!(values.0.len(), size * self.columns);
        Some((text, values))
    }
}

/// The values of a statement, in the order of its parameters.
pub(super) struct Values(SqliteArguments<'static>);

impl Values {
    fn add<V>(&mut self, value: V)
    where
        V: sqlx::Encode<'static, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite> + 'static,
    {
        // Numbers, text and bytes are pushed as they are; only types of other crates can refuse.
        self.0.add(value).expect("a plain value always encodes");
    }
}

impl Row for Values {
    fn null(&mut self) {
        self.add(None::<i64>);
    }

    fn integer(&mut self, value: i64) {
        self.add(value);
    }

    fn real(&mut self, value: f64) {
        self.add(value);
    }

    fn boolean(&mut self, value: bool) {
        self.add(value);
    }

    fn text(&mut self, value: &str) {
        self.add(value.to_owned());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.add(value.to_owned());
    }
}
