//! One device at the door: its Login in, its reply out, and a goodbye that does not destroy it.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use common::device::code::CloseReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::door::FromDoor;
use crate::intake::{self, INTAKE_BYTES, Intake};
use crate::pending::ConnectionId;
use crate::route::End;

/// A socket closed while bytes wait in it sends a reset, which overtakes the reply. So after our
/// last word we read on, this long and this much, until the device closes.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 64 << 10;

/// A reply is smaller than any socket's buffer; a device that does not take it is not waited for.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// What a connection's task knows of its device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) connection: ConnectionId,
    pub(crate) source: IpAddr,
    /// When its Login must be complete.
    pub(crate) deadline: Instant,
    pub(crate) door: mpsc::Sender<FromDoor>,
}

/// What a device said, or that it said the wrong thing, or nothing more.
enum Said {
    Login { frame_id: u16, body: Range<usize> },
    Breach,
    Gone,
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
    reply: oneshot::Receiver<Vec<u8>>,
) -> End {
    // Beside the task, which stays small.
    let mut bytes = vec![0; INTAKE_BYTES];
    let reading = timeout_at(device.deadline, read_login(stream, &mut bytes));
    let login = match reading.await {
        Ok(Said::Login { frame_id, body }) => FromDoor::Login {
            connection: device.connection,
            source: device.source,
            frame_id,
            body: bytes[body].to_vec(),
        },
        Ok(Said::Breach) => return close(stream, CloseReason::ProtocolError, &mut bytes).await,
        Ok(Said::Gone) => return End::Gone,
        Err(_) => return close(stream, CloseReason::AttachTimeout, &mut bytes).await,
    };
    if device.door.send(login).await.is_err() {
        return End::Gone;
    }
    match await_reply(stream, &mut bytes, reply).await {
        Ok(frame) => {
            say_goodbye(stream, &frame, &mut bytes).await;
            End::Replied
        }
        Err(Said::Breach) => close(stream, CloseReason::ProtocolError, &mut bytes).await,
        Err(_) => End::Gone,
    }
}

async fn read_login(stream: &mut TcpStream, bytes: &mut [u8]) -> Said {
    let mut length = 0;
    loop {
        match stream.read(&mut bytes[length..]).await {
            Ok(0) | Err(_) => return Said::Gone,
            Ok(more) => length += more,
        }
        match intake::judge(&bytes[..length]) {
            Intake::Incomplete => {}
            Intake::Login { frame_id, body } => return Said::Login { frame_id, body },
            Intake::Breach => return Said::Breach,
        }
    }
}

/// Waits for the reply, and for what a device may not do meanwhile: say more. That it has shut down
/// its sending side is no reason not to answer it.
async fn await_reply(
    stream: &mut TcpStream,
    bytes: &mut [u8],
    mut reply: oneshot::Receiver<Vec<u8>>,
) -> Result<Vec<u8>, Said> {
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            frame = &mut reply => return frame.map_err(|_| Said::Gone),
            read = stream.read(bytes), if open => match read {
                Ok(0) => open = false,
                Ok(_) => return Err(Said::Breach),
                Err(_) => return Err(Said::Gone),
            },
        }
    }
}

async fn close(stream: &mut TcpStream, reason: CloseReason, bytes: &mut [u8]) -> End {
    say_goodbye(stream, &intake::close(reason), bytes).await;
    match reason {
        CloseReason::AttachTimeout => End::AttachTimeout,
        _ => End::ProtocolError,
    }
}

/// Our last word; then the sending side is shut, and what still comes is read into `dropped`.
async fn say_goodbye(stream: &mut TcpStream, frame: &[u8], dropped: &mut [u8]) {
    let written = timeout(WRITE_MAX, async {
        stream.write_all(frame).await?;
        stream.shutdown().await
    });
    if let Ok(Ok(())) = written.await {
        // The device's end, the bound or the time: whichever comes first, it is over.
        let _ = timeout(LINGER_MAX, drain(stream, dropped)).await;
    }
}

async fn drain(stream: &mut TcpStream, dropped: &mut [u8]) -> io::Result<()> {
    let mut total_bytes = 0;
    while total_bytes < LINGER_BYTES_MAX {
        match stream.read(dropped).await? {
            0 => break,
            bytes => total_bytes += bytes,
        }
    }
    Ok(())
}
