//! The bytes of each trick, with the device's own keys and tickets.

use common::ids::{Nonce, Ticket};
use common::secret::Secret;
use protocols::rcu::attach::Attach;
use protocols::rcu::login::Login;
use protocols::rcu::{frame, kind};
use rand::RngExt;

use super::HostileNode;
use crate::device::{account_name, device_key};
use crate::tricks::{self, AtDoor, AtGate, InSession};

impl HostileNode {
    /// A Login of its own account, right but for what `account` and `spoil` make of it.
    fn sign(&mut self, account: &str, nonce: Nonce, unix_ms: u64, spoil: bool) -> Vec<u8> {
        let mut key = device_key(self.account, 1);
        if spoil {
            key = Secret::new([0xEE; 32]);
        }
        let account = account.parse().expect("a valid name");
        let sent_at_ms = unix_ms.saturating_add_signed(self.clock_offset_ms);
        let mut login = vec![];
        Login::sign(&account, "hostile", sent_at_ms, nonce, &key).encode(1, &mut login);
        login
    }

    pub(super) fn right_login(&mut self, unix_ms: u64) -> Vec<u8> {
        self.earned = None;
        self.nonce = Nonce(self.rng.random());
        self.login = self.sign(
            account_name(self.account).as_str(),
            self.nonce,
            unix_ms,
            false,
        );
        self.login.clone()
    }

    pub(super) fn door_bytes(&mut self, trick: AtDoor, unix_ms: u64) -> Vec<u8> {
        let name = account_name(self.account);
        let nonce = Nonce(self.rng.random());
        let mut login = self.sign(name.as_str(), nonce, unix_ms, false);
        match trick {
            AtDoor::Nothing => vec![],
            AtDoor::Wrong(wrong) => tricks::wrong(wrong, tricks::EARLY_BODY_MAX, &mut self.rng),
            AtDoor::OtherKind => tricks::not_a_login(&mut self.rng),
            AtDoor::Half => {
                login.truncate(self.rng.random_range(0..login.len()));
                login
            }
            AtDoor::Twice => [login.clone(), login].concat(),
            AtDoor::Malformed => tricks::malformed_login(&login, &mut self.rng),
            AtDoor::WrongProof => self.sign(name.as_str(), nonce, unix_ms, true),
            AtDoor::Unknown => self.sign("nobody-knows-me", nonce, unix_ms, false),
            AtDoor::Replay => self.login.clone(),
        }
    }

    pub(super) fn gate_bytes(
        &mut self,
        trick: AtGate,
        own: &Attach,
        stolen: Option<Ticket>,
    ) -> Vec<u8> {
        let bytes = tricks::attach(own);
        match trick {
            AtGate::Nothing => vec![],
            AtGate::Wrong(wrong) => tricks::wrong(wrong, tricks::EARLY_BODY_MAX, &mut self.rng),
            AtGate::OtherKind => tricks::not_an_attach(&self.login, &mut self.rng),
            AtGate::Half => bytes[..self.rng.random_range(0..bytes.len())].to_vec(),
            AtGate::WrongProof => {
                let mut wrong = *own;
                wrong.proof[self.rng.random_range(0..32)] ^= 1;
                tricks::attach(&wrong)
            }
            AtGate::Stolen | AtGate::StolenNearby => tricks::attach(&Attach {
                ticket: stolen.unwrap_or(own.ticket),
                // Of its own session: of the other's it knows nothing.
                proof: [self.rng.random(); 32],
            }),
            AtGate::Elsewhere | AtGate::Replay => bytes,
            AtGate::Resume => tricks::resume(),
            AtGate::EarlyFits => tricks::early(&bytes, frame::FRAME_BYTES_BEFORE_ATTACH_MAX),
            AtGate::EarlyTooMuch => {
                let beyond = self.rng.random_range(1..=1_000);
                tricks::early(&bytes, frame::FRAME_BYTES_BEFORE_ATTACH_MAX + beyond)
            }
        }
    }

    pub(super) fn session_bytes(&mut self, trick: InSession, attach: &Attach) -> Vec<u8> {
        let rng = &mut self.rng;
        match trick {
            InSession::Leaves | InSession::Mute | InSession::Deaf => vec![],
            InSession::Wrong(wrong) => tricks::wrong(wrong, tricks::SESSION_BODY_MAX, rng),
            InSession::WrongDirection => tricks::wrong_direction(rng),
            InSession::WrongState => tricks::wrong_state(&self.login, &tricks::attach(attach), rng),
            InSession::UnknownKind => tricks::unknown_kind(rng),
            InSession::HeartbeatWithBody => tricks::framed(kind::HEARTBEAT, 1, &[0]),
            InSession::ShortTelemetry => tricks::short_telemetry(rng),
            InSession::MalformedTelemetry => tricks::malformed_telemetry(rng),
            InSession::ReplyToNothing => tricks::reply_and_heartbeat(),
            InSession::HalfFrame => tricks::heartbeat(1)[..rng.random_range(1..12)].to_vec(),
            // Its frames follow.
            InSession::Overrun => tricks::heartbeat(u16::MAX),
        }
    }
}
