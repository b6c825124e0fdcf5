//! How a server tells its supervisor that it runs: systemd's `Type=notify`, one datagram to the socket that
//! `NOTIFY_SOCKET` names. Where there is none, nobody asked.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Devices, links and operators are let in from now on.
pub(super) fn tell_ready() -> io::Result<()> {
    match env::var_os(VARIABLE) {
        Some(socket) => tell(&socket, b"READY=1"),
        None => Ok(()),
    }
}

fn tell(socket: &OsStr, state: &[u8]) -> io::Result<()> {
    // A name in no file system is written with an @ in the place of its first byte, which is 0.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state, &address)
        .map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_hears_it_at_a_path_and_at_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("rcu-test-{}", std::process::id());
        let at_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (supervisor, socket) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&at_name).unwrap(),
                format!("@{name}").into(),
            ),
        ] {
            tell(&socket, b"READY=1").unwrap();
            let mut heard = [0; 16];
            let bytes = supervisor.recv(&mut heard).unwrap();
            assert_eq!(&heard[..bytes], b"READY=1");
        }
    }
}
