//! The task of one device at the door: moves its bytes; what they come to says [`crate::visit`].

use std::net::IpAddr;
use std::time::Duration;

use common::millis::millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::door::FromDoor;
use crate::pending::ConnectionId;
use crate::route::End;
use crate::visit::{Step, Visit};

/// What a connection's task knows of its device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) connection: ConnectionId,
    pub(crate) source: IpAddr,
    pub(crate) accepted: Instant,
    /// From then on its Login may take so long.
    pub(crate) login_deadline: Duration,
    pub(crate) door: mpsc::Sender<FromDoor>,
}

/// Serves the device to its end, and tells the front how it ended. `reply` brings the frame to send.
pub(crate) async fn serve(
    mut stream: TcpStream,
    device: Device,
    reply: oneshot::Receiver<Vec<u8>>,
) {
    let how = converse(&mut stream, &device, reply).await;
    let connection = device.connection;
    // A front that is gone counts no more.
    let _ = device.door.send(FromDoor::Ended { connection, how }).await;
}

async fn converse(
    stream: &mut TcpStream,
    device: &Device,
    mut reply: oneshot::Receiver<Vec<u8>>,
) -> End {
    let login_ms = millis(device.login_deadline);
    // What it reads lies beside the task, which stays small.
    let mut visit = Visit::new(login_ms);
    let mut is_asked = false;
    loop {
        let deadline = visit.deadline_ms().map(|ms| device.at(ms));
        let step = tokio::select! {
            biased;
            frame = &mut reply, if is_asked => {
                is_asked = false;
                visit.replied(frame.ok(), device.now_ms())
            }
            read = read(stream, &mut visit) => match read {
                Ok(count) => visit.read(count, device.now_ms()),
                Err(_) => visit.lost(),
            },
            () = sleep_until(deadline.unwrap_or(device.accepted)), if deadline.is_some() => {
                visit.late(device.now_ms())
            }
        };
        match step {
            Step::Wait => {}
            Step::Ask { frame_id, body } => {
                let login = FromDoor::Login {
                    connection: device.connection,
                    source: device.source,
                    frame_id,
                    body: visit.bytes()[body].to_vec(),
                };
                if device.door.send(login).await.is_err() {
                    return End::Gone;
                }
                is_asked = true;
            }
            Step::Say(frame) => {
                is_asked = false;
                let by = visit
                    .deadline_ms()
                    .map_or(device.accepted, |ms| device.at(ms));
                let said = match timeout_at(by, say(stream, &frame)).await {
                    Ok(Ok(())) => visit.said(device.now_ms()),
                    Ok(Err(_)) => visit.lost(),
                    Err(_) => visit.late(device.now_ms()),
                };
                if let Step::Over(how) = said {
                    return how;
                }
            }
            Step::Over(how) => return how,
        }
    }
}

/// Never ends where nothing is to be read.
async fn read(stream: &mut TcpStream, visit: &mut Visit) -> std::io::Result<usize> {
    match visit.room() {
        Some(room) => stream.read(room).await,
        None => std::future::pending().await,
    }
}

/// Our last word; then the sending side is shut.
async fn say(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<()> {
    stream.write_all(frame).await?;
    stream.shutdown().await
}

impl Device {
    /// Milliseconds since it was accepted.
    fn now_ms(&self) -> u64 {
        millis(self.accepted.elapsed())
    }

    fn at(&self, ms: u64) -> Instant {
        self.accepted + Duration::from_millis(ms)
    }
}
