//! `rcu device import`: accounts from a list, a transaction for each thousand.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use common::ids::AccountName;
use common::process::{EXIT_FAILED, output};
use common::secret::DeviceKey;
use conn_server::accounts::store::Accounts;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::device_key::{hex, new_file, random_key};
use crate::list::{self, List, Mistake, Row, Separator, ranges};
use crate::operator::{Failure, json_line};

/// Rows of one transaction: a running cluster stores nothing meanwhile.
const CHUNK_ROWS: usize = 1_000;

/// Mistakes that are shown to people; the others are counted.
const MISTAKES_SHOWN: usize = 50;

/// Makes the accounts of a list: CSV with the columns account and, where it is known, key, parted by commas,
/// semicolons or tabs.
///
/// The list is read whole before anything is written; with a mistake in it nothing is. Then each
/// thousand rows are one transaction. A row without a key gets a random one, which goes to the file
/// of --out before the account is made. An account that exists stays as it is and is told of, so that a
/// list can be imported again after it has grown or was interrupted; one that exists with another
/// key than the row's is a mistake.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu device import trucks.csv --dry-run          tells all mistakes and what exists, writes nothing
  rcu device import trucks.csv --out keys.csv     keys that are made go to keys.csv, mode 0600
  rcu device import trucks.csv --json

trucks.csv:
  account,key
  truck-000001,000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
  truck-000002

Exit codes: 0 every row is an account now, 1 there are mistakes, or it failed, 2 wrong usage.")]
pub(crate) struct Import {
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
    /// Writes the keys that are made to a new file that only you can read.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Tells what would be done, and does not do it.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What `rcu device import --json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    dry_run: bool,
    /// What stands between the columns of the list: comma, semicolon or tab.
    separator: Separator,
    /// Rows of the list that can be read.
    rows: usize,
    /// Accounts that were made, or in a dry run would be.
    added: usize,
    /// Of them, those whose key was made, too.
    keys_made: usize,
    existing: usize,
    /// Their lines: 2-5, 9.
    existing_lines: String,
    mistakes: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    line: u32,
    what: String,
}

impl From<Mistake> for Told {
    fn from(mistake: Mistake) -> Self {
        Self {
            line: mistake.line,
            what: mistake.what,
        }
    }
}

/// What becomes of the rows, as far as they have been looked at.
#[derive(Default)]
struct Done {
    added: usize,
    keys_made: usize,
    existing: Vec<u32>,
    mistakes: Vec<Mistake>,
}

impl Import {
    pub(crate) async fn run(
        &self,
        accounts: &Accounts,
        now_ms: i64,
        json: bool,
    ) -> Result<ExitCode, Failure> {
        let name = self.file.display();
        let bytes = fs::read(&self.file).map_err(|error| format!("cannot read {name}: {error}"))?;
        let List {
            rows,
            mistakes,
            separator,
        } = list::parse(&String::from_utf8_lossy(&bytes));
        if !mistakes.is_empty() && !self.dry_run {
            let done = Done {
                mistakes,
                ..Done::default()
            };
            return self.tell(rows.len(), separator, done, json);
        }
        let mut keys = self.keys_file(&rows)?;
        let bar = bar(rows.len());
        let mut done = Done {
            mistakes,
            ..Done::default()
        };
        for chunk in rows.chunks(CHUNK_ROWS) {
            let taken = self.take(chunk, accounts, keys.as_mut(), now_ms, &mut done);
            if let Err(error) = taken.await {
                bar.abandon();
                let (first, last) = (chunk[0].line, chunk[chunk.len() - 1].line);
                return Err(format!(
                    "{error}: {} accounts of the lines before {first} are made, and lines {first} to \
                     {last} may be; import the list again, with another --out",
                    done.added
                )
                .into());
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        if let (Some(_), Some(path), 0) = (keys, &self.out, done.keys_made) {
            // Nothing came to be in it.
            fs::remove_file(path)?;
        }
        self.tell(rows.len(), separator, done, json)
    }

    /// Where keys go that are made; `None`: none is made.
    fn keys_file(&self, rows: &[Row]) -> Result<Option<File>, Failure> {
        let without: Vec<_> = rows.iter().filter(|row| row.key.is_none()).collect();
        if self.dry_run || without.is_empty() {
            return Ok(None);
        }
        let Some(path) = &self.out else {
            let lines: Vec<_> = without.iter().map(|row| row.line).collect();
            return Err(format!(
                "{} rows name no key (lines {}): give --out FILE, for the keys that are made",
                lines.len(),
                ranges(&lines)
            )
            .into());
        };
        Ok(Some(new_file(path, "account,key\n").map_err(|error| {
            format!("cannot write {}: {error}", path.display())
        })?))
    }

    /// One transaction's worth of rows.
    async fn take(
        &self,
        chunk: &[Row],
        accounts: &Accounts,
        keys: Option<&mut File>,
        now_ms: i64,
        done: &mut Done,
    ) -> Result<(), Failure> {
        let names: Vec<_> = chunk.iter().map(|row| row.account.clone()).collect();
        let known = accounts.keys_of(&names).await?;
        let mut new: Vec<(AccountName, DeviceKey)> = vec![];
        let mut made = String::new();
        let mut new_rows = vec![];
        for row in chunk {
            match (known.get(&row.account), row.key) {
                (None, Some(key)) => new.push((row.account.clone(), key)),
                (None, None) => {
                    let key = random_key()?;
                    made.push_str(&format!("{},{}\n", row.account, hex(&key)));
                    new.push((row.account.clone(), key));
                }
                (Some(Some(there)), Some(key)) if *there != key => {
                    done.mistakes.push(mistake(row, "exists with another key"));
                    continue;
                }
                (Some(None), Some(_)) => {
                    let what = "exists, and its key cannot be opened with this master key";
                    done.mistakes.push(mistake(row, what));
                    continue;
                }
                (Some(_), _) => {
                    done.existing.push(row.line);
                    continue;
                }
            }
            new_rows.push(row);
        }
        let added = if self.dry_run || new.is_empty() {
            names.into_iter().collect()
        } else {
            if let Some(file) = keys {
                // The file first: a key that is in the database only is lost.
                file.write_all(made.as_bytes())?;
                file.sync_data()?;
            }
            accounts.add_new(&new, now_ms).await?
        };
        for row in new_rows {
            if !added.contains(&row.account) {
                // Its key in the file, if it got one, is nobody's.
                done.mistakes
                    .push(mistake(row, "was made by somebody else just now"));
                continue;
            }
            done.added += 1;
            done.keys_made += usize::from(row.key.is_none());
        }
        Ok(())
    }

    fn tell(
        &self,
        rows: usize,
        separator: Separator,
        mut done: Done,
        json: bool,
    ) -> Result<ExitCode, Failure> {
        done.mistakes.sort_by_key(|mistake| mistake.line);
        let exit = match done.mistakes.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(EXIT_FAILED),
        };
        if json {
            let wants = if self.dry_run { "would be " } else { "" };
            let added = format!("{} accounts {wants}added", done.added);
            json_line(&Outcome {
                dry_run: self.dry_run,
                separator,
                rows,
                added: done.added,
                keys_made: done.keys_made,
                existing: done.existing.len(),
                existing_lines: ranges(&done.existing),
                mistakes: done.mistakes.into_iter().map(Told::from).collect(),
            })
            .map_err(|error| error.after(added))?;
            return Ok(exit);
        }
        let name = self.file.display();
        let mut text = String::new();
        if separator != Separator::Comma {
            let separator = separator.name();
            text.push_str(&format!("{name}: its columns are parted by {separator}\n"));
        }
        for mistake in done.mistakes.iter().take(MISTAKES_SHOWN) {
            text.push_str(&format!("{name}:{}: {}\n", mistake.line, mistake.what));
        }
        if let Some(more @ 1..) = done.mistakes.len().checked_sub(MISTAKES_SHOWN) {
            text.push_str(&format!("and {more} mistakes more\n"));
        }
        if !done.existing.is_empty() {
            let (count, lines) = (done.existing.len(), ranges(&done.existing));
            text.push_str(&format!(
                "{count} exist already, and stay as they are: lines {lines}\n"
            ));
        }
        let wants = if self.dry_run { "would be " } else { "" };
        text.push_str(&format!("{} accounts {wants}added", done.added));
        if done.keys_made > 0 {
            let place = match (&self.out, self.dry_run) {
                (Some(path), false) => format!(", their keys are in {}", path.display()),
                _ => String::new(),
            };
            text.push_str(&format!("; {} keys {wants}made{place}", done.keys_made));
        }
        output::tell(text);
        Ok(exit)
    }
}

fn mistake(row: &Row, what: &str) -> Mistake {
    Mistake {
        line: row.line,
        what: format!("{} {what}", row.account),
    }
}

/// To standard error, and only where that is a terminal.
fn bar(rows: usize) -> ProgressBar {
    let bar = ProgressBar::new(rows as u64);
    let style = "{bar:40} {pos} of {len} rows  {per_sec}  {eta} left";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use common::database::Database;
    use common::secret::Secret;

    use super::*;

    struct Rig {
        directory: tempfile::TempDir,
        accounts: Accounts,
    }

    impl Rig {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let database = Database::open(&directory.path().join("rcu.db")).await;
            let accounts = Accounts::new(database.unwrap(), Secret::new([9; 32]));
            Self {
                directory,
                accounts,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        async fn import(
            &self,
            list: &str,
            out: Option<&str>,
            dry_run: bool,
        ) -> Result<Done, Failure> {
            let file = self.path("list.csv");
            fs::write(&file, list).unwrap();
            let import = Import {
                file,
                out: out.map(|name| self.path(name)),
                dry_run,
            };
            let List { rows, mistakes, .. } = list::parse(list);
            assert_eq!(mistakes, []);
            let mut keys = import.keys_file(&rows)?;
            let mut done = Done::default();
            for chunk in rows.chunks(CHUNK_ROWS) {
                let taken = import.take(chunk, &self.accounts, keys.as_mut(), 1, &mut done);
                taken.await?;
            }
            Ok(done)
        }

        async fn names(&self) -> Vec<String> {
            let page = self.accounts.list("", 10_000).await.unwrap();
            page.into_iter().map(|account| account.name).collect()
        }
    }

    fn key(byte: &str) -> String {
        byte.repeat(32)
    }

    #[tokio::test]
    async fn what_is_made_can_be_opened_again_and_what_exists_stays() {
        let rig = Rig::new().await;
        let first = format!("account,key\na,{}\nb\n", key("01"));
        let done = rig.import(&first, Some("keys.csv"), false).await.unwrap();
        assert_eq!((done.added, done.keys_made), (2, 1));
        let keys = fs::read_to_string(rig.path("keys.csv")).unwrap();
        let mode = fs::metadata(rig.path("keys.csv"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let made = keys.strip_prefix("account,key\nb,").unwrap().trim();
        let b = "b".parse().unwrap();
        let known = rig.accounts.keys_of(&[b]).await.unwrap();
        let there = known.values().next().unwrap().unwrap();
        assert_eq!(hex(&there), made);

        // Again: nothing is made, and no file is needed where no key is.
        let same = format!("account,key\na,{}\nb,{made}\n", key("01"));
        let done = rig.import(&same, None, false).await.unwrap();
        assert_eq!((done.added, done.existing), (0, vec![2, 3]));
        // It has grown, and somebody changed a key.
        let grown = format!("a,{}\nb\nc,{}\n", key("02"), key("03"));
        let done = rig.import(&grown, Some("more.csv"), false).await.unwrap();
        assert_eq!((done.added, done.existing), (1, vec![2]));
        assert_eq!(
            done.mistakes,
            [Mistake {
                line: 1,
                what: "a exists with another key".into()
            }]
        );
        assert_eq!(rig.names().await, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_dry_run_tells_the_same_and_writes_nothing() {
        let rig = Rig::new().await;
        let list = format!("a,{}\nb\n", key("01"));
        let done = rig.import(&list, Some("keys.csv"), true).await.unwrap();
        assert_eq!((done.added, done.keys_made), (2, 1));
        assert_eq!(rig.names().await, Vec::<String>::new());
        assert!(!rig.path("keys.csv").exists());
    }

    #[tokio::test]
    async fn keys_need_a_file_of_their_own_before_anything_is_made() {
        let rig = Rig::new().await;
        let error = rig.import("a\nb\n", None, false).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "2 rows name no key (lines 1-2): give --out FILE, for the keys that are made"
        );
        fs::write(rig.path("keys.csv"), "somebody's").unwrap();
        let error = rig.import("a\n", Some("keys.csv"), false).await.err();
        assert!(error.unwrap().to_string().contains("cannot write"));
        assert_eq!(rig.names().await, Vec::<String>::new());
        let kept = fs::read_to_string(rig.path("keys.csv")).unwrap();
        assert_eq!(kept, "somebody's");
    }

    #[tokio::test]
    async fn more_rows_than_a_transaction_takes_are_all_made_and_told_to_the_cluster() {
        let rig = Rig::new().await;
        let list: String = (0..2_500)
            .map(|row| format!("a-{row},{}\n", key("01")))
            .collect();
        let done = rig.import(&list, None, false).await.unwrap();
        assert_eq!(done.added, 2_500);
        assert_eq!(rig.names().await.len(), 2_500);
        let changes = rig.accounts.add_new(&[], 1).await.unwrap();
        assert!(changes.is_empty());
    }
}
