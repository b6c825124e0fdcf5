//! The command that people type.

mod backup;
mod check;
mod cluster;
mod command;
mod completions;
mod config;
mod data;
mod database;
mod db;
mod demo;
mod device;
mod device_key;
mod fleet;
mod import;
mod keys;
mod list;
mod logs;
mod node;
mod operator;
mod screen;
mod session;
mod simulate;
mod table;
mod time;
mod top;
mod up;
mod used;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use common::process::{self, output};
use rcu::explain;

/// The RCU cluster: long-lived device connections that prove they lost nothing.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  rcu demo                          a whole cluster and 200 simulated devices, until q
  rcu up                            a cluster of your own, in ./rcu-data
  rcu backup rcu-2026-01-31.db      its database, copied while it runs
  rcu device add my-device          make an account; prints its key once
  rcu top                           the running cluster, live
  rcu node list                     its processes; rcu session list: who is connected
  rcu command send my-device ping   have a device do something
  rcu explain 52430105030000005ccbd217
  rcu explain code 4007             what a line of the log means, and what to do
  rcu logs stats /var/log/rcu       the lines of log files, counted

Environment:
  RCU_LOG                      what is logged, as info,logic_server=debug; empty: as not set
  RCU_CLUSTER=HOST:PORT        a conn server, for node, session, command and top
  RCU_OPERATOR_KEY_FILE=FILE   the operator's key for it
  RCU_LOGIC_SERVER__WINDOW=16  overrides a key of the configuration, and so on for every key
  RCU_DATABASE_URL             the database of `rcu db`, `device` and `backup`, as its owner
  RCU_READ_DATABASE_URL        the database of `rcu simulate`, as who may read it
  RCU_MASTER_KEY_FILE          the file of the key that opens its accounts
  RCU_DEVICE_KEY               a device's key, for explain

Exit codes: 0 done, 1 failed, 2 wrong usage, 141 nobody reads what it prints; session and command have
more, see their --help."
)]
struct Rcu {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Up(up::Up),
    Backup(backup::Backup),
    Device(device::Device),
    Node(node::Node),
    Session(session::Session),
    Command(command::Command),
    Top(top::Top),
    Config(check::ConfigCommand),
    Db(db::Db),
    Keys(keys::KeysCommand),
    Logs(logs::Logs),
    Simulate(simulate::Simulate),
    Explain(explain::Explain),
    Completions(completions::Completions),
}

fn main() -> ExitCode {
    let rcu: Rcu = output::command_line("rcu");
    process::run("rcu", || match rcu.command {
        Command::Demo(demo) => demo.run(),
        Command::Up(up) => up.run(),
        Command::Backup(backup) => backup.run(),
        Command::Device(device) => device.run(),
        Command::Node(node) => node.run(),
        Command::Session(session) => session.run(),
        Command::Command(command) => command.run(),
        Command::Top(top) => top.run(),
        Command::Config(config) => config.run(),
        Command::Db(db) => db.run(),
        Command::Keys(keys) => keys.run(),
        Command::Logs(logs) => logs.run(),
        Command::Simulate(simulate) => simulate.run(),
        Command::Explain(explain) => explain.run(),
        Command::Completions(completions) => completions.run(Rcu::command()),
    })
}
