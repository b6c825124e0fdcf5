//! A cluster as `rcu up` runs it, for tests that meet it as its users do.

// Every test file uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use servers::said;
use simulator::device::{Identity, Settings as DeviceSettings};
use simulator::driver::{Settings, Simulator};
use simulator::keys::key_from_hex;

pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// Nothing here takes as long; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster on free ports; killed where a test fails before it ends it.
pub(crate) struct Up {
    process: Child,
    pub(crate) data: tempfile::TempDir,
}

impl Up {
    pub(crate) fn start() -> Self {
        Self::start_with_log("info")
    }

    pub(crate) fn start_with_log(filter: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("up.toml");
        let free = "listen = \"127.0.0.1:0\"\n";
        let tables = ["balancer", "logic_server", "metrics"];
        let tables = tables.map(|table| format!("[{table}]\n{free}"));
        fs::write(&config, tables.concat()).unwrap();
        let log = fs::File::create(data.path().join("up.log")).unwrap();
        let process = rcu(data.path(), &["up", "--config", config.to_str().unwrap()])
            .env("RCU_LOG", filter)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let up = Self { process, data };
        wait_for("up.json", || up.data.path().join("up.json").exists());
        up
    }

    /// An address that up.json names.
    pub(crate) fn address(&self, pointer: &str) -> SocketAddr {
        let text = fs::read_to_string(self.data.path().join("up.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json.pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn add(&self, account: &str) {
        let added = rcu(self.data.path(), &["device", "add", account, "--key", KEY])
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
    }

    /// What it has logged until now.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.path().join("up.log")).unwrap()
    }

    /// The status of /readyz, and what it says.
    pub(crate) fn readyz(&self) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address("/metrics")).unwrap();
        write!(stream, "GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// A device of this account, attached, which sends nothing by itself.
    pub(crate) fn device(&self, account: &str) -> Simulator {
        self.reporting_device(account, 0)
    }

    /// Likewise with a record in each interval.
    pub(crate) fn reporting_device(&self, account: &str, report_interval_ms: u32) -> Simulator {
        let simulator = Simulator::start(Settings {
            balancers: vec![self.address("/balancer/0").to_string()],
            identities: vec![Identity {
                account: account.parse().unwrap(),
                key: key_from_hex(KEY).unwrap(),
            }],
            device: DeviceSettings {
                report_interval_ms,
                ..DeviceSettings::default()
            },
            ..Settings::default()
        })
        .unwrap();
        wait_for("the device to attach", || simulator.stats().attached == 1);
        simulator
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        said::secrets_in(&self.data.path().join("keys"));
        said::keep(&self.data.path().join("up.log"));
    }
}

pub(crate) fn rcu(data: &Path, arguments: &[&str]) -> Process {
    let mut process = Process::new(env!("CARGO_BIN_EXE_rcu"));
    process.args(arguments).arg("--data").arg(data);
    // What it remembers is not for whoever runs this.
    process.env("XDG_STATE_HOME", data.join("state"));
    process
}

pub(crate) fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < PATIENCE, "waited for {what}");
        sleep(Duration::from_millis(10));
    }
}
