//! `rcu up` as its users meet it: a process, a data directory, devices and an operator.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use common::device::code::CommandStatus;
use common::device::command::cluster_code;
use common::link::message::{AccountCommand, CommandAnswer, Message, Order};
use common::link::{Keys, Role, call};

use support::{PATIENCE, Up, rcu};

impl Up {
    fn command(&self, account: &str, order: Order) -> CommandAnswer {
        let keys = self.data.path().join("keys");
        let keys = Keys::default()
            .with_operator_file(&keys.join("operator"))
            .unwrap();
        let message = AccountCommand {
            account: account.parse().unwrap(),
            order,
        };
        let conn_server = self.address("/conn_server").to_string();
        let asking = call(&conn_server, Role::Operator, keys, message, PATIENCE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        match runtime.block_on(asking).unwrap().pop() {
            Some(Message::CommandAnswer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

fn order(command_id: u64, code: u16, payload: &[u8]) -> Order {
    Order {
        command_id,
        deadline_ms: 0,
        code,
        payload: payload.to_vec(),
    }
}

fn replied(status: CommandStatus, payload: &[u8]) -> CommandAnswer {
    CommandAnswer::Replied {
        status: status.code(),
        more: false,
        payload: payload.to_vec(),
    }
}

#[test]
fn an_operators_command_reaches_the_device_and_its_reply_comes_back() {
    let up = Up::start();
    up.add("truck-1");
    up.add("truck-2");
    let device = up.device("truck-1");

    let ping = up.command("truck-1", order(1, cluster_code::PING, b"hello"));
    assert_eq!(ping, replied(CommandStatus::Ok, b"hello"));
    let interval = up.command(
        "truck-1",
        order(2, cluster_code::SET_REPORT_INTERVAL, &[1, 2]),
    );
    assert_eq!(interval, replied(CommandStatus::Failed, b""));
    let unknown = up.command("truck-1", order(3, 0x7777, b""));
    assert_eq!(unknown, replied(CommandStatus::Unsupported, b""));
    // Past its deadline it is not even sent.
    let expired = Order {
        deadline_ms: 1,
        ..order(4, cluster_code::PING, b"late")
    };
    assert_eq!(up.command("truck-1", expired), CommandAnswer::Expired);

    let offline = up.command("truck-2", order(5, cluster_code::PING, b""));
    assert_eq!(offline, CommandAnswer::NotAttached);
    let nobody = up.command("truck-3", order(6, cluster_code::PING, b""));
    assert_eq!(nobody, CommandAnswer::NotAttached);
    drop(device);
}

#[test]
fn a_second_cluster_on_the_same_data_is_refused() {
    let up = Up::start();
    let second = rcu(up.data.path(), &["up"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains("another cluster runs on"), "{told}");
}

#[test]
fn what_does_not_fit_the_descriptors_is_refused_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("up.toml");
    fs::write(&config, "[logic_server]\nmax_connections = 4000000000\n").unwrap();
    let refused = rcu(data.path(), &["up", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(
        told.contains("max_connections") && told.contains("ulimit -n"),
        "{told}"
    );
}
