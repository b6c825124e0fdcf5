//! A broker of the field that holds as many idle clients: Debian's mosquitto, where it is installed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{BenchError, Result, Tried as _};

const START_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Debian keeps it out of the PATH of most users.
const PROGRAMS: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

/// The broker as a process of its own, while it runs.
pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Mosquitto {
    /// `None`: it is not installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        let is_there = |program: &&&str| {
            let mut asked = Command::new(program);
            asked.arg("-h").stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok()
        };
        let Some(program) = PROGRAMS.iter().find(is_there) else {
            return Ok(None);
        };
        let address = free_address()?;
        let directory = TempDir::with_prefix("rcu-bench-").tried("make a directory")?;
        let file = directory.path().join("mosquitto.conf");
        // It keeps nothing and says nothing, and stays who it is.
        let configuration = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nlog_type none\nuser root\n",
            address.port(),
            address.ip()
        );
        std::fs::write(&file, configuration).tried("write a configuration")?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .tried("start mosquitto")?;
        let broker = Self {
            child,
            address,
            _directory: directory,
        };
        broker.wait()?;
        Ok(Some(broker))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&self) -> Result<()> {
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > until {
                return Err(BenchError::failed("mosquitto does not listen"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill, and nothing is wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It does not say where it listens, so it is told; somebody may take the port in between.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).tried("find a free port")?;
    listener.local_addr().tried("find a free port")
}
