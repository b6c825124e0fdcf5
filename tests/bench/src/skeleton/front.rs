//! The skeleton's balancer: one Login in, one LoginReply out.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use protocols::rcu::frame::{self, FRAME_BYTES_BEFORE_ATTACH_MAX, Parsed};
use protocols::rcu::kind;
use slab::Slab;

use super::link::Link;
use crate::error::{BenchError, Result, Tried as _};
use crate::net::{accept_each, address_of, is_not_yet, listen, wait};
use crate::process;

const LISTENER: Token = Token(0);
const LINK: Token = Token(1);
const CONNECTIONS: usize = 2;
const BUFFER_BYTES: usize = 256 * 1_024;

struct Connection {
    stream: TcpStream,
    source: IpAddr,
    /// Of its Login.
    id: u16,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    Asked,
    Closing,
}

/// Serves until its parent ends.
pub(crate) fn serve(conn: SocketAddr) -> Result<()> {
    process::end_with_parent();
    let mut poll = Poll::new().tried("poll")?;
    let listener = listen(poll.registry(), LISTENER)?;
    let stream = TcpStream::connect(conn).tried("connect a link")?;
    let mut link = Link::new(stream, poll.registry(), LINK)?;
    process::say(&address_of(&listener)?)?;

    let mut connections = Slab::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Events::with_capacity(1_024);
    loop {
        wait(&mut poll, &mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, poll.registry(), &mut connections)?,
                LINK => link.receive(&mut buffer, |key, body| {
                    answer(&mut connections, key, body);
                    Ok(())
                })?,
                Token(token) => {
                    ready(
                        &mut connections,
                        token - CONNECTIONS,
                        &mut buffer,
                        &mut link,
                    );
                }
            }
        }
        link.flush()?;
    }
}

fn accept(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut Slab<Connection>,
) -> Result<()> {
    accept_each(listener, |mut stream, source| {
        let entry = connections.vacant_entry();
        let token = Token(CONNECTIONS + entry.key());
        registry
            .register(&mut stream, token, Interest::READABLE)
            .tried("register a connection")?;
        entry.insert(Connection {
            stream,
            source: source.ip(),
            id: 0,
            stage: Stage::Reading,
        });
        Ok(())
    })
}

fn ready(connections: &mut Slab<Connection>, key: usize, buffer: &mut [u8], link: &mut Link) {
    let Some(connection) = connections.get_mut(key) else {
        return;
    };
    if connection.stage == Stage::Asked {
        // Its key must stay taken until the answer comes; what it does meanwhile shows then.
        return;
    }
    let read = connection.stream.read(buffer);
    let done = match (connection.stage, read) {
        (_, Err(error)) if is_not_yet(&error) => false,
        (Stage::Reading, Ok(length)) => ask(connection, key, &buffer[..length], link).is_err(),
        (_, Ok(0) | Err(_)) => true,
        _ => false,
    };
    if done {
        connections.remove(key);
    }
}

/// Passes the Login on. A Login that is not there in one piece is refused: the load has no others.
fn ask(connection: &mut Connection, key: usize, bytes: &[u8], link: &mut Link) -> Result<()> {
    let parsed = frame::parse(bytes, FRAME_BYTES_BEFORE_ATTACH_MAX).map_err(BenchError::failed)?;
    let IpAddr::V4(source) = connection.source else {
        return Err(BenchError::failed("not an IPv4 address"));
    };
    match parsed {
        Parsed::Frame { frame, .. } if frame.kind == kind::LOGIN => {
            connection.id = frame.id;
            connection.stage = Stage::Asked;
            link.queue(key as u32, &[&source.octets(), frame.body]);
            Ok(())
        }
        _ => Err(BenchError::failed("not one Login")),
    }
}

/// Sends LoginReply and shuts its side; the connection ends when the device has closed its own.
fn answer(connections: &mut Slab<Connection>, key: u32, body: &[u8]) {
    let key = key as usize;
    let Some(connection) = connections.get_mut(key) else {
        return;
    };
    let mut reply = Vec::with_capacity(frame::HEADER_BYTES + body.len());
    frame::write(kind::LOGIN_REPLY, connection.id, &mut reply, |out| {
        out.extend_from_slice(body);
    });
    connection.stage = Stage::Closing;
    let sent = connection.stream.write(&reply);
    let shut = connection.stream.shutdown(Shutdown::Write);
    if sent.is_err() || shut.is_err() {
        connections.remove(key);
    }
}
