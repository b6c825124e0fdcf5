//! What happens at the door, on its way to the front.

use std::net::IpAddr;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::pending::ConnectionId;
use crate::route::End;

/// What acceptors and connections tell the front.
#[derive(Debug)]
pub(crate) enum FromDoor {
    Accepted {
        stream: TcpStream,
        source: IpAddr,
        at: Instant,
    },
    /// One was turned away for want of a descriptor.
    Unseen,
    Login {
        connection: ConnectionId,
        source: IpAddr,
        frame_id: u16,
        body: Vec<u8>,
    },
    Ended {
        connection: ConnectionId,
        how: End,
    },
}
