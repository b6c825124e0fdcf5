//! The skeleton's conn server: proof, ticket, grant, and the reply when the grant is acknowledged.

use std::collections::HashMap;
use std::net::SocketAddr;

use common::ids::{Nonce, Ticket};
use common::secret::{DeviceKey, Secret};
use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use protocols::rcu::frame::HEADER_BYTES;
use protocols::rcu::login::{Login, LoginReply, Target};
use protocols::rcu::proof;
use slab::Slab;

use super::link::Link;
use crate::error::{BenchError, Result, Tried as _};
use crate::net::{accept_each, address_of, listen, wait};
use crate::{clock, fleet, process};

const LISTENER: Token = Token(0);
const LOGIC: Token = Token(1);
const FRONT: Token = Token(2);
const BUFFER_BYTES: usize = 256 * 1_024;
const TICKET_TTL_S: u16 = 30;

/// A login whose grant is under way.
struct Open {
    front_id: u32,
    key: DeviceKey,
    nonce: Nonce,
    ticket: Ticket,
}

struct Conn {
    keys: HashMap<String, DeviceKey>,
    open: Slab<Open>,
    reply: Vec<u8>,
}

/// Serves until its parent ends. `accounts` is how many the fleet has.
pub(crate) fn serve(logic: SocketAddr, accounts: u32) -> Result<()> {
    process::end_with_parent();
    let devices = fleet::devices(accounts).into_iter();
    let mut conn = Conn {
        keys: devices
            .map(|device| (device.account.into(), device.key))
            .collect(),
        open: Slab::new(),
        reply: Vec::new(),
    };
    let mut poll = Poll::new().tried("poll")?;
    let listener = listen(poll.registry(), LISTENER)?;
    let stream = TcpStream::connect(logic).tried("connect a link")?;
    let mut logic = Link::new(stream, poll.registry(), LOGIC)?;
    let mut front = None;
    process::say(&address_of(&listener)?)?;

    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Events::with_capacity(16);
    loop {
        wait(&mut poll, &mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => accept_each(&listener, |stream, _| {
                    front = Some(Link::new(stream, poll.registry(), FRONT)?);
                    Ok(())
                })?,
                FRONT => {
                    if let Some(front) = &mut front {
                        front
                            .receive(&mut buffer, |id, login| conn.login(id, login, &mut logic))?;
                    }
                }
                _ => logic.receive(&mut buffer, |id, granted| {
                    conn.granted(id, granted, front.as_mut())
                })?,
            }
        }
        logic.flush()?;
        if let Some(front) = &mut front {
            front.flush()?;
        }
    }
}

impl Conn {
    /// `message`: the source's IPv4 address, then the body of the Login.
    fn login(&mut self, front_id: u32, message: &[u8], logic: &mut Link) -> Result<()> {
        let (source, body) = message
            .split_first_chunk::<4>()
            .ok_or_else(|| BenchError::failed("a login without a source"))?;
        let login = Login::decode_body(body).map_err(BenchError::failed)?;
        let key = self.keys.get(login.account).copied();
        let Some(key) = key.filter(|key| login.verify(key)) else {
            return Err(BenchError::failed("a login with a wrong proof"));
        };
        let ticket = Secret::new(rand::random());
        let session_key = proof::session_key(&key, login.nonce, &ticket);
        let id = self.open.insert(Open {
            front_id,
            key,
            nonce: login.nonce,
            ticket,
        });
        logic.queue(id as u32, &[source, ticket.expose(), session_key.expose()]);
        Ok(())
    }

    /// `message`: where the logic server takes devices, as text.
    fn granted(&mut self, id: u32, message: &[u8], front: Option<&mut Link>) -> Result<()> {
        let open = self
            .open
            .try_remove(id as usize)
            .ok_or_else(|| BenchError::failed("an answer to no grant"))?;
        let server: SocketAddr = str::from_utf8(message)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| BenchError::failed("a grant without an address"))?;
        let host = server.ip().to_string();
        let target = Target {
            host: &host,
            port: server.port(),
            ticket: open.ticket,
            ticket_ttl_s: TICKET_TTL_S,
        };
        self.reply.clear();
        let reply = LoginReply::ok(clock::unix_ms(), target, open.nonce, &open.key);
        reply.encode(0, &mut self.reply);
        if let Some(front) = front {
            // The front writes the header: it alone knows the id of the Login.
            front.queue(open.front_id, &[&self.reply[HEADER_BYTES..]]);
        }
        Ok(())
    }
}
