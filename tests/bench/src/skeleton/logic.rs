//! The skeleton's logic server: grants from the link, one Attach a connection.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;

use common::secret::{Secret, SessionKey};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use protocols::rcu::attach::{Attach, AttachReply, Credential, Terms};
use protocols::rcu::frame::{self, FRAME_BYTES_BEFORE_ATTACH_MAX, Parsed};
use protocols::rcu::kind;
use slab::Slab;

use super::link::Link;
use crate::error::{BenchError, Result, Tried as _};
use crate::net::{accept_each, address_of, is_not_yet, listen, wait};
use crate::{clock, process};

const DEVICES: Token = Token(0);
const LINKS: Token = Token(1);
const LINK: Token = Token(2);
const CONNECTIONS: usize = 3;
const BUFFER_BYTES: usize = 256 * 1_024;
const TERMS: Terms<'_> = Terms {
    heartbeat_s: 60,
    window: 8,
    resume_ttl_s: 0,
    resumption: &[],
};

struct Grant {
    source: IpAddr,
    session_key: SessionKey,
}

struct Connection {
    stream: TcpStream,
    source: IpAddr,
    attached: bool,
}

struct Logic {
    grants: HashMap<[u8; 16], Grant>,
    connections: Slab<Connection>,
    reply: Vec<u8>,
}

/// Serves until its parent ends.
pub(crate) fn serve() -> Result<()> {
    process::end_with_parent();
    let mut poll = Poll::new().tried("poll")?;
    let devices = listen(poll.registry(), DEVICES)?;
    let links = listen(poll.registry(), LINKS)?;
    let device_address = address_of(&devices)?;
    let mut link = None;
    process::say(&address_of(&links)?)?;

    let mut logic = Logic {
        grants: HashMap::new(),
        connections: Slab::new(),
        reply: Vec::new(),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut granted = Vec::new();
    let mut events = Events::with_capacity(1_024);
    loop {
        wait(&mut poll, &mut events, None)?;
        for event in &events {
            match event.token() {
                DEVICES => logic.accept(&devices, poll.registry())?,
                LINKS => accept_each(&links, |stream, _| {
                    link = Some(Link::new(stream, poll.registry(), LINK)?);
                    Ok(())
                })?,
                LINK => {
                    if let Some(link) = &mut link {
                        link.receive(&mut buffer, |id, grant| {
                            granted.push(id);
                            logic.grant(grant)
                        })?;
                        for id in granted.drain(..) {
                            link.queue(id, &[device_address.as_bytes()]);
                        }
                    }
                }
                Token(token) => logic.ready(token - CONNECTIONS, &mut buffer),
            }
        }
        if let Some(link) = &mut link {
            link.flush()?;
        }
    }
}

impl Logic {
    /// `message`: the source's IPv4 address, ticket and session key.
    fn grant(&mut self, message: &[u8]) -> Result<()> {
        let cut = message
            .split_first_chunk::<4>()
            .and_then(|(source, rest)| Some((source, rest.split_first_chunk::<16>()?)))
            .and_then(|(source, (ticket, rest))| Some((source, ticket, rest.first_chunk::<32>()?)));
        let Some((source, ticket, session_key)) = cut else {
            return Err(BenchError::failed("a grant that is too short"));
        };
        let grant = Grant {
            source: (*source).into(),
            session_key: Secret::new(*session_key),
        };
        self.grants.insert(*ticket, grant);
        Ok(())
    }

    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> Result<()> {
        accept_each(listener, |mut stream, source| {
            let entry = self.connections.vacant_entry();
            let token = Token(CONNECTIONS + entry.key());
            registry
                .register(&mut stream, token, Interest::READABLE)
                .tried("register a connection")?;
            entry.insert(Connection {
                stream,
                source: source.ip(),
                attached: false,
            });
            Ok(())
        })
    }

    fn ready(&mut self, key: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let stays = match connection.stream.read(buffer) {
            Err(error) => is_not_yet(&error),
            Ok(0) => false,
            Ok(_) if connection.attached => true,
            Ok(length) => {
                connection.attached = true;
                attach(
                    connection,
                    &buffer[..length],
                    &mut self.grants,
                    &mut self.reply,
                )
                .is_ok()
            }
        };
        if !stays {
            self.connections.remove(key);
        }
    }
}

/// Answers an Attach. One that is not there in one piece is refused: the load has no others.
fn attach(
    connection: &mut Connection,
    bytes: &[u8],
    grants: &mut HashMap<[u8; 16], Grant>,
    reply: &mut Vec<u8>,
) -> Result<()> {
    let parsed = frame::parse(bytes, FRAME_BYTES_BEFORE_ATTACH_MAX).map_err(BenchError::failed)?;
    let frame = match parsed {
        Parsed::Frame { frame, .. } if frame.kind == kind::ATTACH => frame,
        _ => return Err(BenchError::failed("not one Attach")),
    };
    let attach = Attach::decode_body(frame.body).map_err(BenchError::failed)?;
    let grant = grants
        .remove(attach.ticket.expose())
        .filter(|grant| grant.source == connection.source && attach.verify(&grant.session_key))
        .ok_or_else(|| BenchError::failed("not admitted"))?;
    reply.clear();
    let credential = Credential::Ticket(attach.ticket);
    AttachReply::ok(clock::unix_ms(), TERMS, credential, &grant.session_key)
        .encode(frame.id, reply);
    connection.stream.write(reply).tried("write to a device")?;
    Ok(())
}
