//! Pure. The short connection: one balancer after the other until one gives a right LoginReply.

use std::net::SocketAddr;

use common::ids::Nonce;
use protocols::rcu::frame::Frame;
use protocols::rcu::login::{Login, LoginReply, LoginVerdict};
use protocols::rcu::message::FromCluster;
use protocols::rcu::proof::{LoginCount, nonce_without_generator, session_key};

use super::effect::{ConnId, Effect, Effects, Event, Fault};
use super::wait::Next;
use super::{CONNECT_MS, Device, Phase, RESOLVE_MS, elapsed_ms};

const LOGIN_REPLY_MS: u64 = 15_000;
/// The only question on a short connection.
const LOGIN_ID: u16 = 1;

#[derive(Debug)]
pub(super) struct LoggingIn {
    pub(super) conn: ConnId,
    address: SocketAddr,
    /// An address that is asked again, outside a round: when it fails a new round begins.
    again: bool,
    begun_ms: u64,
    deadline_ms: u64,
    /// Of the Login that was sent; `None` while connecting.
    nonce: Option<Nonce>,
}

impl LoggingIn {
    pub(super) fn is_connecting(&self) -> bool {
        self.nonce.is_none()
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
}

impl Device {
    /// Step 1: resolve the cluster's name.
    pub(super) fn begin_login(&mut self, now_ms: u64, effects: &mut Effects) {
        effects.push(Effect::Resolve);
        self.phase = Phase::Resolving {
            deadline_ms: now_ms + RESOLVE_MS,
        };
    }

    pub(super) fn resolved(
        &mut self,
        addresses: &[SocketAddr],
        now_ms: u64,
        effects: &mut Effects,
    ) {
        if let Phase::Resolving { .. } = self.phase {
            self.balancers.begin(addresses, &mut self.rng);
            self.try_next_balancer(now_ms, effects);
        }
    }

    fn try_next_balancer(&mut self, now_ms: u64, effects: &mut Effects) {
        match self.balancers.next() {
            Some(address) => self.connect_to_balancer(address, false, now_ms, effects),
            // A round of all addresses without a right LoginReply is one failed try.
            None => self.wait(0, Next::Resolve, now_ms, effects),
        }
    }

    /// The same address again, because it named a wait or the time.
    pub(super) fn ask_again(&mut self, address: SocketAddr, now_ms: u64, effects: &mut Effects) {
        self.connect_to_balancer(address, true, now_ms, effects);
    }

    fn connect_to_balancer(
        &mut self,
        address: SocketAddr,
        again: bool,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let conn = self.connect(address, effects);
        self.phase = Phase::LoggingIn(LoggingIn {
            conn,
            address,
            again,
            begun_ms: now_ms,
            deadline_ms: now_ms + CONNECT_MS,
            nonce: None,
        });
    }

    pub(super) fn send_login(&mut self, now_ms: u64, effects: &mut Effects) {
        let Phase::LoggingIn(login) = &mut self.phase else {
            return;
        };
        if !login.is_connecting() {
            return;
        }
        let count = LoginCount {
            boot: self.memory.sequence.boot_counter(),
            login: self.logins,
        };
        self.logins = self.logins.wrapping_add(1);
        let nonce = nonce_without_generator(&self.identity.key, count);
        login.nonce = Some(nonce);
        login.deadline_ms = now_ms + LOGIN_REPLY_MS;
        let message = Login::sign(
            &self.identity.account,
            &self.settings.firmware,
            self.clock.unix_ms(now_ms).unwrap_or(0),
            nonce,
            &self.identity.key,
        );
        effects.send(login.conn, |out| message.encode(LOGIN_ID, out));
    }

    pub(super) fn handle_while_logging_in(
        &mut self,
        frame: &Frame<'_>,
        message: FromCluster<'_>,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let Phase::LoggingIn(login) = &self.phase else {
            return;
        };
        let (FromCluster::LoginReply(reply), Some(nonce)) = (message, login.nonce) else {
            self.fail(Fault::WrongFrame, 0, now_ms, effects);
            return;
        };
        if frame.id != LOGIN_ID {
            effects.tell(Event::AnswerIgnored { kind: frame.kind });
            return;
        }
        if !reply.verify(nonce, &self.identity.key) {
            self.fail(Fault::WrongProof, 0, now_ms, effects);
            return;
        }
        effects.push(Effect::Disconnect { conn: login.conn });
        effects.tell(Event::LoginAnswered {
            status: reply.status(),
            after_ms: elapsed_ms(login.begun_ms, now_ms),
        });
        let address = login.address;
        if !login.again {
            self.balancers.remember();
        }
        self.obey(&reply, nonce, address, now_ms, effects);
    }

    /// The table of LoginReply.
    fn obey(
        &mut self,
        reply: &LoginReply<'_>,
        nonce: Nonce,
        address: SocketAddr,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        let told = reply.retry_after_ms;
        let then = match told {
            0 => Next::Resolve,
            _ => Next::Balancer(address),
        };
        let skewed = std::mem::take(&mut self.skewed);
        match &reply.verdict {
            LoginVerdict::Ok(signed) => match signed.target.host.parse() {
                Ok(host) => {
                    let target = SocketAddr::new(host, signed.target.port);
                    let key = session_key(&self.identity.key, nonce, &signed.target.ticket);
                    self.attach(target, signed.target.ticket, key, now_ms, effects);
                }
                // The decoder lets no other text through; one failed try if it did.
                Err(_) => self.wait(0, Next::Resolve, now_ms, effects),
            },
            LoginVerdict::Malformed | LoginVerdict::Disabled { .. } => {
                self.wait_longest(told, now_ms, effects);
            }
            LoginVerdict::ClockSkew { .. } => {
                self.skewed = true;
                if let Some(by_ms) = self.clock.set(reply.server_time_ms, now_ms) {
                    effects.tell(Event::ClockSet { by_ms });
                }
                if skewed {
                    self.wait(told, then, now_ms, effects);
                } else {
                    self.ask_again(address, now_ms, effects);
                }
            }
            LoginVerdict::Busy | LoginVerdict::Refused | LoginVerdict::Full => {
                self.wait(told, then, now_ms, effects);
            }
        }
    }

    /// This address gave no right LoginReply.
    pub(super) fn login_failed(
        &mut self,
        login: &LoggingIn,
        why: Fault,
        now_ms: u64,
        effects: &mut Effects,
    ) {
        effects.push(Effect::Disconnect { conn: login.conn });
        effects.tell(Event::LoginFailed { why });
        if login.again {
            self.begin_login(now_ms, effects);
        } else {
            self.try_next_balancer(now_ms, effects);
        }
    }
}
