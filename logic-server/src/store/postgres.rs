//! PostgreSQL: COPY BINARY straight into the tables, all of a work in one transaction.
//!
//! ```text
//! sorted rows ─┬─ new: COPY telemetry_… ─────────────────┬─▶ dead_letter, sessions ─▶ COMMIT
//!              ╰─ may be there: COPY staging_… ─▶ INSERT ─╯
//!                               … ON CONFLICT DO NOTHING
//! ```
//!
//! COPY knows no ON CONFLICT, and a staging table costs twice as much. So only what may be a repetition
//! goes through one: what a device sends first after it has lost its connection, and what was written with
//! an unknown outcome. Where something else is there already COPY fails with 23505, which PostgreSQL
//! writes into its log, and all of it is tried again through staging tables.
//!
//! In a careful write the rows that the database refuses are found by halving, each try behind a
//! savepoint, and go to dead_letter:
//!
//! ```text
//! SAVEPOINT ─▶ rows 0..8 ✗ ─▶ 0..4 ─▶ 4..8 ✗ ─▶ 4..6 ✗ ─▶ 4 ✗ ─▶ 5 ─▶ 6..8 ─▶ dead_letter: 4 ─▶ COMMIT
//! ```

use common::database::{self, UnixMs};
use common::ids::NodeName;
use records::Table;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Acquire, Arguments, Executor};

use super::copy::{Copy, KEY_TYPES, sql_type};
use super::refusal::{SqlState, Trouble};
use super::sorted::{Aside, Item, KEY_COLUMNS, Sorted, record, refused};
use crate::presence::Presence;
use crate::writer::{Work, Written};

/// Of a COPY, sent at a time: the server stores one piece while the next is made.
const PIECE_BYTES: usize = 64 << 10;

/// Of a piece beyond `PIECE_BYTES`: its last row.
const ROW_BYTES_MAX: usize = 1 << 10;

const DEAD_LETTER: &str = "INSERT INTO dead_letter \
    (account_id, recorded_at, seq, received_at, kind, payload, reason) \
    SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::timestamptz[], \
    $5::smallint[], $6::bytea[], $7::text[]) ON CONFLICT DO NOTHING";

/// Of rows that are there already: by account, how many of these say something else. The function reads them
/// with the rights of the owner, and tells nothing but that.
/// Columns go by their names: a table may have more of them than this program knows.
const DEAD_LETTER_CONTRADICTING: &str = "SELECT account_id, records FROM rcu_contradicting(ARRAY( \
    SELECT jsonb_populate_record(NULL::dead_letter, to_jsonb(given)) \
    FROM unnest($1::bigint[], $2::timestamptz[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::bytea[], \
    $7::text[]) AS given (account_id, recorded_at, seq, received_at, kind, payload, reason)), \
    ARRAY['kind', 'payload'])";

const ATTACHED: &str = "INSERT INTO sessions (account_id, epoch, node, source, attached_at) \
    SELECT account_id, epoch, $5, source::inet, attached_at \
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[]) \
    AS begun (account_id, epoch, source, attached_at) ON CONFLICT DO NOTHING";

/// Joined with the table by its key: a search through all that are live would make the end of many
/// sessions quadratic.
pub(super) const ENDED: &str = "UPDATE sessions SET ended_at = over.at, reason = over.reason \
    FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[]) \
    AS over (account_id, epoch, at, reason) \
    WHERE sessions.account_id = over.account_id AND sessions.epoch = over.epoch AND ended_at IS NULL";

#[derive(Debug)]
pub(super) struct Postgres {
    database: database::Postgres,
    node: String,
    /// In the order of [`Table::ALL`].
    telemetry: [Statements; Table::ALL.len()],
}

/// What one table is told.
#[derive(Debug)]
struct Statements {
    table: Table,
    copy: String,
    make_staging: String,
    copy_to_staging: String,
    /// From whatever stands behind it.
    insert: String,
    /// As [`DEAD_LETTER_CONTRADICTING`], of what stands in the staging table.
    contradicting: String,
    empty_staging: String,
}

impl Statements {
    fn new(table: Table) -> Self {
        let name = table.name();
        let own = || table.columns().iter().map(|column| column.name);
        let said: Vec<_> = own().map(|column| format!("'{column}'")).collect();
        let columns: Vec<_> = KEY_COLUMNS.iter().copied().chain(own()).collect();
        let columns = columns.join(", ");
        let copy = |into: &str| format!("COPY {into} ({columns}) FROM STDIN (FORMAT binary)");
        let insert = format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM");
        Self {
            table,
            copy: copy(name),
            make_staging: make_staging(table),
            copy_to_staging: copy(&format!("staging_{name}")),
            contradicting: format!(
                "SELECT account_id, records FROM rcu_contradicting(ARRAY( \
                 SELECT jsonb_populate_record(NULL::{name}, to_jsonb(given)) FROM staging_{name} AS given), \
                 ARRAY[{}])",
                said.join(", ")
            ),
            empty_staging: format!("DELETE FROM staging_{name}"),
            insert,
        }
    }

    fn merge(&self) -> String {
        let Self { table, insert, .. } = self;
        format!("{insert} staging_{} ON CONFLICT DO NOTHING", table.name())
    }

    /// The same, and empties the staging table for what comes next in this transaction.
    fn merge_slice(&self) -> String {
        let Self { table, insert, .. } = self;
        format!(
            "WITH slice AS (DELETE FROM staging_{} RETURNING *) {insert} slice ON CONFLICT DO NOTHING; \
             {RELEASE}; {SAVEPOINT}",
            table.name()
        )
    }
}

/// A table for as long as the connection lasts, empty between transactions. Not LIKE the one that its rows
/// go to: for that one must be allowed to read it, and the role of the logic servers reads no record.
fn make_staging(table: Table) -> String {
    let key = KEY_COLUMNS.iter().copied().zip(KEY_TYPES);
    let own = table.columns().iter();
    let own = own.map(|column| (column.name, sql_type(column.column_type)));
    let columns = key.chain(own).map(|(name, sql)| format!("{name} {sql}"));
    format!(
        "CREATE TEMPORARY TABLE IF NOT EXISTS staging_{} ({}) ON COMMIT DELETE ROWS",
        table.name(),
        columns.collect::<Vec<_>>().join(", ")
    )
}

/// There is one at a time: what is rolled back to stays, and would become one more level each time.
const SAVEPOINT: &str = "SAVEPOINT slice";
const RELEASE: &str = "RELEASE SAVEPOINT slice";
const ROLL_BACK: &str = "ROLLBACK TO SAVEPOINT slice";

/// How rows get into their tables.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// But for those that may be there already.
    Straight,
    /// All through a staging table: some are there that nobody would have thought so.
    Staged,
    /// The same in slices: some are refused.
    Careful,
}

impl Postgres {
    pub(super) fn new(database: database::Postgres, node: &NodeName) -> Self {
        Self {
            database,
            node: node.to_string(),
            telemetry: Table::ALL.map(Statements::new),
        }
    }

    pub(super) async fn repair(&self, unix_ms: u64) -> Result<u64, sqlx::Error> {
        let statement = "UPDATE sessions SET ended_at = greatest(attached_at, $1), reason = 'crash' \
                         WHERE node = $2 AND ended_at IS NULL";
        let mut lease = self.database.lease().await?;
        let done = sqlx::query(statement)
            .bind(UnixMs(i64::try_from(unix_ms).unwrap_or(i64::MAX)))
            .bind(&self.node)
            .execute(&mut *lease)
            .await?;
        lease.give_back();
        Ok(done.rows_affected())
    }

    pub(super) async fn write(&self, work: &Work) -> Result<Written, sqlx::Error> {
        let rows = Sorted::new(work);
        let way = match work.is_careful() {
            true => Way::Careful,
            false => Way::Straight,
        };
        let mut lease = self.database.lease().await?;
        let mut written = self
            .write_in_transaction(&mut lease, &rows, work, way)
            .await;
        let again = match &written {
            Err(error) if is_duplicate(error) && !work.is_careful() => Some(Way::Staged),
            Err(error) if lost_its_partition(error) => Some(way),
            _ => None,
        };
        if let Some(way) = again {
            written = self
                .write_in_transaction(&mut lease, &rows, work, way)
                .await;
        }
        if written
            .as_ref()
            .err()
            .is_none_or(|error| refusal(error).is_some())
        {
            lease.give_back();
        }
        written
    }

    async fn write_in_transaction(
        &self,
        connection: &mut PgConnection,
        rows: &Sorted<'_>,
        work: &Work,
        way: Way,
    ) -> Result<Written, sqlx::Error> {
        let mut transaction = connection.begin().await?;
        let written = async {
            let mut aside = rows.aside.clone();
            let mut written = Written::default();
            for ((statements, items), new) in self.telemetry.iter().zip(&rows.tables).zip(rows.new)
            {
                if items.is_empty() {
                    continue;
                }
                let (straight, staged) = match way {
                    Way::Straight => items.split_at(new),
                    Way::Staged => (&[][..], &items[..]),
                    Way::Careful => {
                        aside.extend(
                            write_carefully(&mut transaction, statements, items, &mut written)
                                .await?,
                        );
                        continue;
                    }
                };
                write_rows(&mut transaction, statements, straight, staged, &mut written).await?;
            }
            set_aside(&mut transaction, &aside, &mut written).await?;
            self.write_presence(&mut transaction, work).await?;
            written.refused = (aside.len() - rows.aside.len()) as u64;
            Ok::<_, sqlx::Error>(written)
        }
        .await;
        match written {
            Ok(written) => transaction.commit().await.map(|()| written),
            Err(error) => {
                // Where the server has answered, it answers this too; else the connection is given up.
                if error.as_database_error().is_some() {
                    transaction.rollback().await?;
                }
                Err(error)
            }
        }
    }

    /// All that attached, then all that ended: a session that did both in one batch is there when
    /// it is to be ended.
    async fn write_presence(
        &self,
        connection: &mut PgConnection,
        work: &Work,
    ) -> Result<(), sqlx::Error> {
        let (mut begun, mut over) = (Begun::default(), Over::default());
        for presence in work.presence() {
            match *presence {
                Presence::Attached {
                    account_id,
                    epoch,
                    source,
                    at_ms,
                } => {
                    begun.0.push(account_id.0);
                    begun.1.push(epoch.to_i64());
                    begun.2.push(source.to_string());
                    begun.3.push(UnixMs(at_ms));
                }
                Presence::Ended {
                    account_id,
                    epoch,
                    at_ms,
                    reason,
                } => {
                    over.0.push(account_id.0);
                    over.1.push(epoch.to_i64());
                    over.2.push(UnixMs(at_ms));
                    over.3.push(reason.name());
                }
            }
        }
        if !begun.0.is_empty() {
            sqlx::query(ATTACHED)
                .bind(begun.0)
                .bind(begun.1)
                .bind(begun.2)
                .bind(begun.3)
                .bind(&self.node)
                .execute(&mut *connection)
                .await?;
        }
        if !over.0.is_empty() {
            sqlx::query(ENDED)
                .bind(over.0)
                .bind(over.1)
                .bind(over.2)
                .bind(over.3)
                .execute(connection)
                .await?;
        }
        Ok(())
    }
}

/// Columns of sessions that began: account, epoch, source, time.
type Begun = (Vec<i64>, Vec<i64>, Vec<String>, Vec<UnixMs>);

/// Of those that ended: account, epoch, time, reason.
type Over = (Vec<i64>, Vec<i64>, Vec<UnixMs>, Vec<&'static str>);

async fn write_rows(
    connection: &mut PgConnection,
    statements: &Statements,
    straight: &[Item<'_>],
    staged: &[Item<'_>],
    written: &mut Written,
) -> Result<(), sqlx::Error> {
    if !straight.is_empty() {
        copy(connection, &statements.copy, statements.table, straight).await?;
    }
    if !staged.is_empty() {
        connection.execute(&*statements.make_staging).await?;
        let inserted = stage(connection, statements, staged, &statements.merge()).await?;
        let repeated = staged.len() as u64 - inserted;
        if repeated > 0 {
            compare(
                connection,
                &statements.contradicting,
                PgArguments::default(),
                repeated,
                written,
            )
            .await?;
        }
    }
    Ok(())
}

/// The first half of a slice first: of two records with one key the first is kept. Returns those that were
/// refused.
async fn write_carefully<'w>(
    connection: &mut PgConnection,
    statements: &Statements,
    items: &[Item<'w>],
    written: &mut Written,
) -> Result<Vec<Aside<'w>>, sqlx::Error> {
    let mut aside = vec![];
    connection.execute(&*statements.make_staging).await?;
    connection.execute(SAVEPOINT).await?;
    let merge = statements.merge_slice();
    let mut slices = vec![items];
    while let Some(slice) = slices.pop() {
        let error = match stage(connection, statements, slice, &merge).await {
            Ok(inserted) => {
                let repeated = slice.len() as u64 - inserted;
                if repeated > 0 {
                    // The slice has left its staging table, and comes back to it.
                    copy(
                        connection,
                        &statements.copy_to_staging,
                        statements.table,
                        slice,
                    )
                    .await?;
                    let ask = &statements.contradicting;
                    compare(connection, ask, PgArguments::default(), repeated, written).await?;
                    connection.execute(&*statements.empty_staging).await?;
                }
                continue;
            }
            Err(error) => error,
        };
        let Some(why) = refusal(&error) else {
            return Err(error);
        };
        connection.execute(ROLL_BACK).await?;
        match slice {
            [item] => aside.push(refused(item, &why)),
            _ => {
                let (first, second) = slice.split_at(slice.len() / 2);
                slices.extend([second, first]);
            }
        }
    }
    connection.execute(RELEASE).await?;
    Ok(aside)
}

/// Asks which of `repeated` rows that were there already say something else. Behind a savepoint of its own: where
/// it cannot be asked, nobody waits for an acknowledgement because of that.
async fn compare(
    connection: &mut PgConnection,
    ask: &str,
    rows: PgArguments,
    repeated: u64,
    written: &mut Written,
) -> Result<(), sqlx::Error> {
    connection.execute("SAVEPOINT compared").await?;
    let asked = sqlx::query_as_with(ask, rows).fetch_all(&mut *connection);
    let contradicting = match asked.await {
        Ok(contradicting) => contradicting,
        Err(error) if error.as_database_error().is_some() => {
            connection.execute("ROLLBACK TO SAVEPOINT compared").await?;
            written.uncompared = Some(error.to_string());
            vec![]
        }
        Err(error) => return Err(error),
    };
    connection.execute("RELEASE SAVEPOINT compared").await?;
    written.repeated(repeated, contradicting);
    Ok(())
}

/// Returns how many rows were inserted.
async fn stage(
    connection: &mut PgConnection,
    statements: &Statements,
    items: &[Item<'_>],
    merge: &str,
) -> Result<u64, sqlx::Error> {
    let Statements {
        table,
        copy_to_staging,
        ..
    } = statements;
    copy(connection, copy_to_staging, *table, items).await?;
    Ok(connection.execute(merge).await?.rows_affected())
}

async fn copy(
    connection: &mut PgConnection,
    statement: &str,
    table: Table,
    items: &[Item<'_>],
) -> Result<(), sqlx::Error> {
    let mut sink = connection.copy_in_raw(statement).await?;
    let mut copy = Copy::new(PIECE_BYTES + ROW_BYTES_MAX);
    for item in items {
        copy.row(item.0, table.columns(), |columns| {
            record(item).columns(columns);
        });
        if copy.bytes.len() >= PIECE_BYTES {
            sink.send(&copy.bytes[..]).await?;
            copy.bytes.clear();
        }
    }
    copy.finish();
    sink.send(&copy.bytes[..]).await?;
    sink.finish().await.map(drop)
}

async fn set_aside(
    connection: &mut PgConnection,
    aside: &[Aside<'_>],
    written: &mut Written,
) -> Result<(), sqlx::Error> {
    if aside.is_empty() {
        return Ok(());
    }
    let integers = |value: fn(&Aside<'_>) -> i64| aside.iter().map(value).collect::<Vec<_>>();
    let times = |value: fn(&Aside<'_>) -> i64| {
        let times = aside.iter().map(value).map(UnixMs);
        times.collect::<Vec<_>>()
    };
    let kinds: Vec<_> = aside.iter().map(|(row, ..)| i16::from(row.kind)).collect();
    let payloads: Vec<_> = aside.iter().map(|&(_, payload, _)| payload).collect();
    let reasons: Vec<_> = aside.iter().map(|(.., reason)| &**reason).collect();
    let rows = || -> Result<PgArguments, sqlx::error::BoxDynError> {
        let mut rows = PgArguments::default();
        rows.add(integers(|(row, ..)| row.account_id.0))?;
        rows.add(times(|(row, ..)| row.recorded_at_ms))?;
        rows.add(integers(|(row, ..)| row.seq))?;
        rows.add(times(|(row, ..)| row.received_at_ms))?;
        rows.add(&kinds)?;
        rows.add(&payloads)?;
        rows.add(&reasons)?;
        Ok(rows)
    };
    let rows = || rows().map_err(sqlx::Error::Encode);
    let insert = sqlx::query_with(DEAD_LETTER, rows()?);
    let inserted = insert.execute(&mut *connection).await?.rows_affected();
    let repeated = aside.len() as u64 - inserted;
    if repeated > 0 {
        compare(
            connection,
            DEAD_LETTER_CONTRADICTING,
            rows()?,
            repeated,
            written,
        )
        .await?;
    }
    Ok(())
}

fn state(error: &sqlx::Error) -> Option<SqlState> {
    SqlState::from_code(&error.as_database_error()?.code()?)
}

fn is_duplicate(error: &sqlx::Error) -> bool {
    state(error) == Some(SqlState::UNIQUE_VIOLATION)
}

/// The partition of its day was made while it was on its way into the default one.
fn lost_its_partition(error: &sqlx::Error) -> bool {
    state(error) == Some(SqlState::CHECK_VIOLATION) && refusal(error).is_none()
}

/// What the database said, where it is about a value that it will never take.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    state(error)?
        .refuses_the_value(database.constraint().is_some())
        .then(|| database.message().to_owned())
}

/// Where it is not.
pub(super) fn trouble(error: &sqlx::Error) -> Trouble {
    state(error).map_or(Trouble::Passing, SqlState::trouble)
}
