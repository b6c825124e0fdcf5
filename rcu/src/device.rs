//! `rcu device`: accounts, straight in the database, whether a cluster runs on it or not. A running
//! one follows the changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use common::database::{Client, Database};
use common::fleet::{self, FleetKey};
use common::ids::{AccountId, AccountName, NameError};
use common::link::{read_secret, secret_from_hex};
use common::process::clock::unix_ms;
use common::process::output::{self, OutputError};
use common::secret::{DeviceKey, Secret};
use conn_server::accounts::described::{Described, Online};
use conn_server::accounts::seal::MasterKey;
use conn_server::accounts::store::{Accounts, AccountsError};
use rcu::columns;
use serde::Serialize;

use crate::data::{self, DataDir};
use crate::database::{self, UrlArgument};
use crate::device_key::{hex, new_file, random_key};
use crate::import::Import;
use crate::operator::json_line;
use crate::table::{Column, Table, Wide};
use crate::time;
use crate::used::Used;

/// Names of a fleet are numbered with six digits.
const FLEET_COUNT_MAX: u32 = 999_999;

/// A person waits so long for a database.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Rows of a list that are read at a time.
const PAGE_ROWS: u32 = 1_000;

type Failure = Box<dyn std::error::Error>;

/// Makes, shows and changes the accounts with which devices log in.
///
/// Works on the database of a data directory, whether `rcu up` runs on it or not, or on any database with
/// its master key. A running cluster takes every change into account within 5 seconds.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu device add my-device                 prints its key, once
  rcu device add --fleet truck --count 200 --out keys.csv
  rcu device import trucks.csv --out keys.csv
  rcu device list --json | jq -r 'select(.enabled | not) | .account'
  rcu device disable my-device             ends its session, too
  rcu device list --database postgres://rcu@localhost/rcu --master-key /etc/rcu/master.key")]
pub(crate) struct Device {
    /// The data directory of the cluster; ./rcu-data where no database is named.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// The database instead: postgres://USER:PASSWORD@HOST:PORT/NAME, of the owner of its tables, or
    /// sqlite:PATH. A data directory that is named goes before.
    #[arg(
        long,
        value_name = "URL",
        value_parser = database::read,
        env = "RCU_DATABASE_URL",
        hide_env_values = true,
        global = true
    )]
    database: Option<UrlArgument>,
    /// The file with the master key of that database.
    #[arg(long, value_name = "FILE", env = "RCU_MASTER_KEY_FILE", global = true)]
    master_key: Option<PathBuf>,
    /// Prints JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
    /// Which data directories there were before.
    #[arg(skip = Used::by_user())]
    used: Used,
}

#[derive(Subcommand)]
enum Action {
    Add(Add),
    Import(Import),
    /// Shows all accounts, in order of their names.
    List(Wide),
    /// Shows one account: its last login, and whether it is online.
    Show {
        account: AccountName,
    },
    /// Switches an account off: its session ends, and its logins are answered `disabled`.
    Disable {
        account: AccountName,
    },
    /// Switches an account on again.
    Enable {
        account: AccountName,
    },
    RotateKey(RotateKey),
    /// Removes an account: its session ends, and its logins are refused. What it sent stays.
    Remove {
        account: AccountName,
    },
}

/// Makes an account, or a numbered fleet of them, and prints the keys: they are not shown again.
///
/// The data directory is made where it is missing. Keys go to standard output: that of one account
/// as 64 hex digits, those of a fleet as CSV with the header account,key.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu device add my-device
  rcu device add my-device --key 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
  rcu device add --fleet truck --count 200 --out keys.csv     truck-000001 to truck-000200
  rcu device add --fleet truck --count 200 --fleet-key HEX    keys that the factory can make, too:
                    HMAC-SHA256(fleet key, \"rcu1 fleet\\0\" followed by the account)")]
struct Add {
    /// 1 to 32 of A-Z a-z 0-9 . _ : -
    #[arg(required_unless_present = "fleet")]
    account: Option<AccountName>,
    /// The account's key, 64 hex digits; a random one where it is not given.
    #[arg(long, value_name = "HEX", value_parser = key, conflicts_with = "fleet")]
    key: Option<DeviceKey>,
    /// Makes PREFIX-000001, PREFIX-000002 and so on.
    #[arg(
        long,
        value_name = "PREFIX",
        value_parser = prefix,
        conflicts_with = "account",
        requires = "count"
    )]
    fleet: Option<String>,
    /// How many accounts the fleet gets, all at once: for 100,000 of them a running cluster stores
    /// nothing for some seconds.
    #[arg(
        long,
        value_name = "N",
        requires = "fleet",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(FLEET_COUNT_MAX))
    )]
    count: Option<u32>,
    /// Makes each key from this one, 64 hex digits; without it they are random.
    #[arg(long, value_name = "HEX", value_parser = key, requires = "fleet")]
    fleet_key: Option<FleetKey>,
    /// Writes the keys to a new file that only you can read, instead of standard output.
    #[arg(long, value_name = "FILE", requires = "fleet")]
    out: Option<PathBuf>,
}

/// Gives an account a new key and prints it: it is not shown again. The session ends, and only
/// the new key lets the device in.
#[derive(Args)]
struct RotateKey {
    account: AccountName,
    /// The new key, 64 hex digits; a random one where it is not given.
    #[arg(long, value_name = "HEX", value_parser = key)]
    key: Option<DeviceKey>,
}

/// Keys go out before the database has them; what can be known beforehand was looked at.
#[derive(Debug, thiserror::Error)]
#[error("no account has what was printed as its key")]
struct PrintedInVain(#[source] AccountsError);

fn key(text: &str) -> Result<Secret<32>, &'static str> {
    secret_from_hex(text).ok_or("a key is 64 hex digits")
}

/// The longest prefix leaves room for a number.
fn prefix(text: &str) -> Result<String, NameError> {
    numbered(text, 1).map(|_| text.to_owned())
}

fn numbered(prefix: &str, number: u32) -> Result<AccountName, NameError> {
    format!("{prefix}-{number:06}").parse()
}

impl Device {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let (database, master) = self.open().await?;
            let accounts = Accounts::new(database.clone(), master);
            let done = self.action.run(&accounts, self.json).await;
            database.close().await;
            done
        })
    }

    async fn open(&self) -> Result<(Database, MasterKey), Failure> {
        let url = match (&self.data, &self.database) {
            (None, Some(url)) => url.as_ref().map_err(|mistake| *mistake)?,
            (data, _) => return self.open_data(data.as_deref()).await,
        };
        let missing = "which key opens its accounts? --master-key FILE, or RCU_MASTER_KEY_FILE";
        let master = read_secret(self.master_key.as_deref().ok_or(missing)?)?;
        let client = Client {
            name: "device",
            connections_max: 1,
            connect_deadline: CONNECT_DEADLINE,
        };
        Ok((Database::connect(url, client).await?, master))
    }

    async fn open_data(&self, path: Option<&Path>) -> Result<(Database, MasterKey), Failure> {
        let path = path.unwrap_or(Path::new(data::DEFAULT));
        let data = match &self.action {
            Action::Add(_) | Action::Import(Import { dry_run: false, .. }) => {
                DataDir::open_or_make(path, &self.used)?
            }
            _ => DataDir::open(path)?,
        };
        let database = Database::open(&data.database_path()).await?;
        self.used.remember(path);
        Ok((database, data.master_key()?))
    }
}

impl Action {
    async fn run(self, accounts: &Accounts, json: bool) -> Result<ExitCode, Failure> {
        let now_ms = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
        match self {
            Self::Add(add) => add.run(accounts, now_ms, json).await?,
            Self::Import(import) => return import.run(accounts, now_ms, json).await,
            Self::List(wide) => list(accounts, wide, json).await?,
            Self::Show { account } => {
                let (described, online) = accounts.show(&account).await?;
                match json {
                    true => json_line(&Shown {
                        account: Line::from(&described),
                        online: online.as_ref().map(Since::from),
                    })?,
                    false => output::print(&page(&described, online.as_ref()))?,
                }
            }
            Self::Disable { account } => {
                let changed = accounts.disable(&account, now_ms).await?;
                told(&account, "disabled", changed, json)?;
            }
            Self::Enable { account } => {
                let changed = accounts.enable(&account, now_ms).await?;
                told(&account, "enabled", changed, json)?;
            }
            Self::RotateKey(RotateKey { account, key }) => {
                let key = key.map_or_else(random_key, Ok)?;
                // The key first: one that is in the database only is lost.
                accounts.show(&account).await?;
                print_key(&account, &key, json)?;
                let rotated = accounts.rotate_key(&account, &key, now_ms).await;
                rotated.map_err(PrintedInVain)?;
                if !json {
                    output::tell(format_args!(
                        "{account} has this key from now on; it is not shown again"
                    ));
                }
            }
            Self::Remove { account } => {
                accounts.remove(&account, now_ms).await?;
                match json {
                    true => json_line(&Changed::new(&account, "removed", true))
                        .map_err(|error| error.after(format_args!("{account} is removed")))?,
                    false => output::tell(format_args!("{account} is removed; what it sent stays")),
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    async fn run(self, accounts: &Accounts, now_ms: i64, json: bool) -> Result<(), Failure> {
        if let Some(account) = self.account {
            let key = self.key.map_or_else(random_key, Ok)?;
            accounts.none_exists([&account]).await?;
            print_key(&account, &key, json)?;
            let added = accounts.add(&account, &key, now_ms).await;
            added.map_err(PrintedInVain)?;
            if !json {
                output::tell(format_args!(
                    "{account} has this key; it is not shown again"
                ));
            }
            return Ok(());
        }
        let (Some(prefix), Some(count)) = (self.fleet, self.count) else {
            return Err("an account, or --fleet and --count".into());
        };
        let fleet = fleet(&prefix, count, self.fleet_key.as_ref())?;
        let csv = csv(&fleet);
        match &self.out {
            // The file first: keys that are in the database only are lost.
            Some(path) => {
                new_file(path, &csv)
                    .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                if let Err(error) = accounts.add_many(&fleet, now_ms).await {
                    fs::remove_file(path)?;
                    return Err(error.into());
                }
                let keys = path.display();
                let told = format!("{count} accounts added; their keys are in {keys}");
                match json {
                    true => json_line(&serde_json::json!({ "added": count, "keys": path }))
                        .map_err(|error| error.after(told))?,
                    false => output::tell(told),
                }
            }
            None => {
                accounts
                    .none_exists(fleet.iter().map(|(account, _)| account))
                    .await?;
                match json {
                    true => {
                        for (account, key) in &fleet {
                            print_key(account, key, json)?;
                        }
                    }
                    false => output::print(&csv)?,
                }
                let added = accounts.add_many(&fleet, now_ms).await;
                added.map_err(PrintedInVain)?;
                if !json {
                    output::tell(format_args!(
                        "{count} accounts added; their keys are not shown again"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The accounts of a fleet with their keys: made from the fleet's key, or random.
fn fleet(
    prefix: &str,
    count: u32,
    fleet_key: Option<&FleetKey>,
) -> Result<Vec<(AccountName, DeviceKey)>, Failure> {
    let account = |number| -> Result<_, Failure> {
        let account = numbered(prefix, number)?;
        let key = match fleet_key {
            Some(fleet_key) => fleet::device_key(fleet_key, &account),
            None => random_key()?,
        };
        Ok((account, key))
    };
    (1..=count).map(account).collect()
}

fn csv(accounts: &[(AccountName, DeviceKey)]) -> String {
    let mut csv = String::from("account,key\n");
    for (account, key) in accounts {
        csv.push_str(&format!("{account},{}\n", hex(key)));
    }
    csv
}

/// A line of `rcu device list --json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    account: &'a str,
    account_id: AccountId,
    enabled: bool,
    /// Grows with every change of key or `enabled`.
    version: i64,
    created_at_ms: i64,
    /// As of the last login, like the three below.
    firmware: Option<&'a str>,
    last_login_at_ms: Option<i64>,
    last_source: Option<&'a str>,
    last_node: Option<&'a str>,
}

/// What `rcu device show --json` prints.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    account: Line<'a>,
    /// `null`: it is not.
    online: Option<Since<'a>>,
}

#[derive(Debug, Serialize)]
struct Since<'a> {
    node: &'a str,
    source: &'a str,
    attached_at_ms: i64,
}

/// What `rcu device disable --json`, `enable` and `remove` print.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    account: &'a str,
    /// What it is now: disabled, enabled or removed.
    is: &'static str,
    /// False: it was so before.
    changed: bool,
}

impl<'a> From<&'a Described> for Line<'a> {
    fn from(account: &'a Described) -> Self {
        Self {
            account: &account.name,
            account_id: AccountId(account.id),
            enabled: account.enabled,
            version: account.version,
            created_at_ms: account.created_at_ms,
            firmware: account.firmware.as_deref(),
            last_login_at_ms: account.last_login_at_ms,
            last_source: account.last_source.as_deref(),
            last_node: account.last_node.as_deref(),
        }
    }
}

impl<'a> From<&'a Online> for Since<'a> {
    fn from(online: &'a Online) -> Self {
        Self {
            node: &online.node,
            source: &online.source,
            attached_at_ms: online.attached_at_ms,
        }
    }
}

impl<'a> Changed<'a> {
    fn new(account: &'a AccountName, is: &'static str, changed: bool) -> Self {
        let account = account.as_str();
        Self {
            account,
            is,
            changed,
        }
    }
}

fn told(account: &AccountName, is: &'static str, changed: bool, json: bool) -> Result<(), Failure> {
    let told = match changed {
        true => format!("{account} is {is}"),
        false => format!("{account} was {is} already"),
    };
    match json {
        true => {
            json_line(&Changed::new(account, is, changed)).map_err(|error| error.after(told))?
        }
        false => output::tell(told),
    }
    Ok(())
}

fn print_key(account: &AccountName, key: &DeviceKey, json: bool) -> Result<(), OutputError> {
    match json {
        true => json_line(&serde_json::json!({ "account": account.as_str(), "key": hex(key) })),
        false => output::print(&(hex(key) + "\n")),
    }
}

const COLUMNS: [Column; 5] = [
    Column::left("account").shortens(),
    Column::left("enabled"),
    Column::left("last login"),
    Column::left("logic server").leaves(1).shortens(),
    Column::left("firmware").leaves(2),
];

async fn list(accounts: &Accounts, wide: Wide, json: bool) -> Result<(), Failure> {
    let mut out = output::List::begin();
    let mut table = Table::new(COLUMNS, wide.width(columns::of_stdout()));
    let mut after = String::new();
    loop {
        let page = accounts.list(&after, PAGE_ROWS).await?;
        if json {
            for account in &page {
                out.line(serde_json::to_string(&Line::from(account))?)?;
            }
        } else {
            let rows: Vec<_> = page.iter().map(row).collect();
            out.text(&table.page(&rows))?;
        }
        let Some(last) = page.last() else { break };
        after.clone_from(&last.name);
    }
    Ok(out.end()?)
}

fn row(account: &Described) -> [String; 5] {
    [
        account.name.clone(),
        yes_or_no(account.enabled).into(),
        account.last_login_at_ms.map_or("never".into(), date),
        account.last_node.clone().unwrap_or("-".into()),
        account.firmware.clone().unwrap_or("-".into()),
    ]
}

fn page(account: &Described, online: Option<&Online>) -> String {
    let last_login = account.last_login_at_ms.map_or("never".into(), |at_ms| {
        let source = account.last_source.as_deref().unwrap_or("?");
        let node = account.last_node.as_deref().unwrap_or("?");
        format!("{} from {source}, sent to {node}", date(at_ms))
    });
    let online = online.map_or("no".into(), |online| {
        let since = date(online.attached_at_ms);
        format!("since {since} from {}, on {}", online.source, online.node)
    });
    let lines = [
        ("account", account.name.clone()),
        ("id", account.id.to_string()),
        ("enabled", yes_or_no(account.enabled).into()),
        ("created", date(account.created_at_ms)),
        ("firmware", account.firmware.clone().unwrap_or("-".into())),
        ("last login", last_login),
        ("online", online),
    ];
    lines
        .iter()
        .map(|(name, value)| format!("{name:<12}{value}\n"))
        .collect()
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Of a column, which is never negative.
fn date(unix_ms: i64) -> String {
    time::date(u64::try_from(unix_ms).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;
    use common::database::DatabaseUrl;
    use common::link::write_key;

    use super::*;

    #[derive(Parser)]
    struct Rcu {
        #[command(flatten)]
        device: Device,
    }

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn parse(arguments: &str) -> Result<Device, ErrorKind> {
        let arguments = ["device"].into_iter().chain(arguments.split_whitespace());
        Rcu::try_parse_from(arguments)
            .map(|rcu| rcu.device)
            .map_err(|error| error.kind())
    }

    /// The database of a data directory on which these commands have run.
    fn run(directory: &Path, commands: &[&str]) -> Result<Accounts, Failure> {
        for command in commands {
            let mut device = parse(command).unwrap();
            device.data = Some(directory.to_owned());
            device.used = Used::by_nobody();
            device.run()?;
        }
        let data = DataDir::open(directory)?;
        let database =
            tokio::runtime::Runtime::new()?.block_on(Database::open(&data.database_path()))?;
        Ok(Accounts::new(database, data.master_key()?))
    }

    fn described(accounts: &Accounts, account: &str) -> Result<String, Failure> {
        let account = account.parse()?;
        let shown = accounts.show(&account);
        let (described, online) = tokio::runtime::Runtime::new()?.block_on(shown)?;
        Ok(page(&described, online.as_ref()))
    }

    #[test]
    fn usage_says_what_goes_together() {
        for right in [
            "add my-device",
            &format!("add my-device --key {KEY} --data elsewhere"),
            "--data elsewhere list",
            "add --fleet truck --count 3",
            &format!("add --fleet truck --count 3 --fleet-key {KEY} --out keys.csv"),
            "rotate-key my-device",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "add",
            "add my/device",
            "add my-device --key 00",
            "add my-device --fleet truck --count 3",
            "add --fleet truck",
            "add --fleet truck --count 0",
            "add --fleet truck --count 1000000",
            "add --fleet a-prefix-of-26-characters-x --count 1",
            "add my-device --out keys.csv",
            "show",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn accounts_are_made_changed_and_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu-data");
        let accounts = run(
            &path,
            &["add my-device", "disable my-device", "disable my-device"],
        )
        .unwrap();
        let shown = described(&accounts, "my-device").unwrap();
        assert!(shown.contains("enabled     no\n"), "{shown}");
        assert!(shown.contains("last login  never\n"), "{shown}");
        let accounts = run(&path, &["enable my-device", "rotate-key my-device"]).unwrap();
        let shown = described(&accounts, "my-device").unwrap();
        assert!(shown.contains("enabled     yes\n"), "{shown}");
        assert!(
            run(&path, &["add my-device"]).is_err(),
            "it is there already"
        );
        run(&path, &["remove my-device"]).unwrap();
        for gone in ["show", "disable", "enable", "rotate-key", "remove"] {
            assert!(
                run(&path, &[&format!("{gone} my-device")]).is_err(),
                "{gone}"
            );
        }
    }

    #[test]
    fn a_fleet_and_its_file_are_made_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu-data");
        let keys = directory.path().join("keys.csv");
        let add = format!(
            "add --fleet truck --count 2 --fleet-key {KEY} --out {}",
            keys.display()
        );
        run(&path, &[&add]).unwrap();
        let csv = fs::read_to_string(&keys).unwrap();
        let account = "truck-000002".parse().unwrap();
        let second = fleet::device_key(&key(KEY).unwrap(), &account);
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines[0], "account,key");
        assert_eq!(lines[2], format!("truck-000002,{}", hex(&second)));
        assert_eq!(lines.len(), 3);

        assert!(run(&path, &[&add]).is_err(), "the file is not replaced");
        assert_eq!(fs::read_to_string(&keys).unwrap(), csv);
        fs::remove_file(&keys).unwrap();
        let more = add.replace("--count 2", "--count 3");
        assert!(run(&path, &[&more]).is_err(), "two of them exist");
        assert!(!keys.exists());
        let accounts = run(&path, &[]).unwrap();
        assert!(described(&accounts, "truck-000003").is_err());
    }

    #[test]
    fn only_add_makes_a_data_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rcu-data");
        assert!(run(&path, &["list"]).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn accounts_of_a_postgresql_database_need_its_master_key() {
        let test = servers::TestDatabase::new();
        let url: DatabaseUrl = test.url(servers::Role::Owner).parse().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let master = directory.path().join("master");
        write_key(&master, &Secret::new([7; 32])).unwrap();
        let run = |command: &str, with_key: bool| {
            let mut device = parse(command).unwrap();
            device.data = None;
            device.database = Some(Ok(url.clone()));
            device.master_key = with_key.then(|| master.clone());
            device.run()
        };
        let refused = run("add my-device", false).unwrap_err().to_string();
        assert!(refused.contains("--master-key"), "{refused}");
        for command in [
            "add my-device",
            "add --fleet truck --count 3",
            "disable my-device",
            "list",
            "list --json",
            "show my-device",
            "rotate-key my-device",
            "remove my-device",
        ] {
            run(command, true).unwrap_or_else(|error| panic!("{command}: {error}"));
        }
        assert!(run("show my-device", true).is_err(), "it was removed");

        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("list.csv"), "truck-000001\nvan-1\nvan-2\n").unwrap();
        for made in ["made.csv", "again.csv"] {
            let import = format!("import {} --out {}", path("list.csv"), path(made));
            assert_eq!(run(&import, true).unwrap(), ExitCode::SUCCESS);
        }
        let made = fs::read_to_string(path("made.csv")).unwrap();
        assert_eq!(made.lines().count(), 3, "of those that were not there");
        assert!(!Path::new(&path("again.csv")).exists(), "no key was made");
    }
}
