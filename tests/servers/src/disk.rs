//! A small disk that one process and its children see, and nobody else; it is gone with the last of
//! them. It is in memory, and as full as any other when it is full.

use std::path::Path;
use std::process::Command;

/// Set, tests that need such a disk are left out: for whoever may not mount. `scripts/test` sets it where
/// that is so, and says it.
pub const LEFT_OUT: &str = "RCU_TEST_WITHOUT_DISKS";

/// Bytes, place, and the command that is to run with it.
const MOUNTED: &str = r#"mount -t tmpfs -o "size=$1,mode=1777" tmpfs "$2" && shift 2 && exec "$@""#;

/// Whether whoever runs the tests has asked to leave them out.
pub fn disks_are_left_out() -> bool {
    std::env::var_os(LEFT_OUT).is_some()
}

/// What the arguments that follow say, with a disk of so many bytes at `place`, which is a directory.
/// As `user`, where one is given and the test is root; else as whoever runs the test.
pub fn on_disk(place: &Path, bytes: u64, user: Option<u32>) -> Command {
    let mut command = Command::new("unshare");
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", MOUNTED, "sh", &bytes.to_string()]);
    command.arg(place);
    match user {
        Some(user) if is_root => {
            let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
            command.args(["setpriv", &user, &group, "--clear-groups"]);
        }
        _ if !is_root => {
            // Himself again: a server that finds itself root does not start.
            let user = format!("--map-user={}", rustix::process::getuid().as_raw());
            let group = format!("--map-group={}", rustix::process::getgid().as_raw());
            command.args(["unshare", "--user", &user, &group]);
        }
        _ => {}
    }
    command
}
