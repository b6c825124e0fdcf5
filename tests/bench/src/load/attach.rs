//! Sessions on a logic server that is measured alone: granted, connected, attached, a few at a
//! time. How fast that goes is not measured.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use mio::net::TcpStream;
use protocols::rcu::frame::FRAME_BYTES_TO_DEVICE_MAX;

use super::connect::connect_and_wait;
use super::exchange::{self, Answer, Attached, Granted};
use super::grants::Grants;
use super::sources::Sources;
use crate::error::{BenchError, Result, Tried as _};

/// Grants, then connections, under way at once.
const AT_ONCE: usize = 64;
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    pub(crate) attached: Attached,
}

/// At most [`AT_ONCE`] sessions, as many as are still `wanted`.
pub(crate) fn attach_some(
    grants: &mut Grants,
    sources: &mut Sources,
    wanted: usize,
) -> Result<Vec<Session>> {
    let sources: Vec<_> = (0..wanted.min(AT_ONCE)).map(|_| sources.next()).collect();
    let addresses: Vec<_> = sources.iter().map(|source| source.ip()).collect();
    let mut asked = Vec::with_capacity(sources.len());
    for (granted, source) in grants.grant(&addresses)?.into_iter().zip(sources) {
        let mut stream = connect_and_wait(source, granted.server()).tried("connect")?;
        stream
            .set_read_timeout(Some(ANSWER_MAX))
            .tried("wait for a socket")?;
        let mut frame = Vec::new();
        exchange::attach(&granted, &mut frame);
        stream.write_all(&frame).tried("send an Attach")?;
        asked.push((stream, granted));
    }
    asked
        .into_iter()
        .map(|(stream, granted)| attached(stream, &granted))
        .collect()
}

/// Waits for the reply.
fn attached(mut stream: std::net::TcpStream, granted: &Granted) -> Result<Session> {
    let mut received = Vec::new();
    let mut buffer = [0; FRAME_BYTES_TO_DEVICE_MAX];
    loop {
        let length = stream.read(&mut buffer).tried("read an AttachReply")?;
        received.extend_from_slice(&buffer[..length]);
        match exchange::attach_answer(granted, &received) {
            Answer::Done(attached) => {
                stream.set_nonblocking(true).tried("use a socket")?;
                let stream = TcpStream::from_std(stream);
                return Ok(Session { stream, attached });
            }
            Answer::Incomplete if length > 0 => {}
            Answer::Incomplete => return Err(BenchError::failed("closed before AttachReply")),
            Answer::Refused { why, .. } => {
                return Err(BenchError::failed(format!("not attached: {why:?}")));
            }
        }
    }
}
