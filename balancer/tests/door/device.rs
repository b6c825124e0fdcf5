//! A device that says bytes and understands what it hears.

use std::net::SocketAddr;

use common::ids::Nonce;
use common::secret::Secret;
use protocols::rcu::code::{CloseReason, LoginStatus};
use protocols::rcu::frame::{self, Parsed};
use protocols::rcu::login::Login;
use protocols::rcu::message::FromCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) struct Device {
    pub(crate) stream: TcpStream,
}

/// All that a device heard until the balancer closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// With the frame's id.
    Reply(u16, LoginStatus),
    Close(CloseReason),
    /// Closed, or reset, without a word.
    Nothing,
}

impl Device {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Self { stream }
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("written");
    }

    /// Reads to the end. A frame must be the only one, and be followed by an orderly end.
    pub(crate) async fn hear(&mut self) -> Heard {
        let mut bytes = Vec::new();
        let reading = timeout(crate::PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        let end = reading.expect("heard in time");
        if bytes.is_empty() {
            return Heard::Nothing;
        }
        end.expect("an orderly end after a frame");
        let Ok(Parsed::Frame { frame, consumed }) = frame::parse(&bytes, 1_024) else {
            panic!("no frame: {bytes:02x?}");
        };
        assert_eq!(consumed, bytes.len(), "one frame");
        match FromCluster::decode(&frame) {
            Ok(FromCluster::LoginReply(reply)) => Heard::Reply(frame.id, reply.status()),
            Ok(FromCluster::Close(close)) => Heard::Close(close.reason),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn login_frame(id: u16) -> Vec<u8> {
    let account = "a-1".parse().expect("a name");
    let key = Secret::new([2; 32]);
    let mut frame = Vec::new();
    Login::sign(&account, "1.0", 0, Nonce([1; 16]), &key).encode(id, &mut frame);
    frame
}
