//! A device on a thread of its own, and what it hears. It judges what it can see: its proof, and
//! that what it is told is stored is stored at that moment.

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::message::Grant;
use common::secret::Secret;
use protocols::rcu::attach::{Attach, Credential};
use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason};
use protocols::rcu::frame::{self, FRAME_BYTES_MAX, Parsed};
use protocols::rcu::message::{FromCluster, FromDevice};
use protocols::rcu::telemetry::TelemetryWriter;
use records::{Custom, Record};

use crate::fake_mio::net::{Address, Peer};
use crate::world::World;

/// What a device sends along with Attach: more than 512 bytes before the reply break the contract.
const EARLY_FRAMES_MAX: u16 = 4;

/// How a device behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Telemetry frames of one record each.
    pub(crate) frames: u16,
    /// Goes when it has sent them, without a word.
    pub(crate) leaves: bool,
    /// Leaves its end open when the server has closed.
    pub(crate) hangs: bool,
}

/// What it was told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) connected: bool,
    pub(crate) attached: bool,
    pub(crate) turned_away: bool,
    pub(crate) stored: u64,
    pub(crate) overloaded: u64,
    pub(crate) closes: Vec<CloseReason>,
    /// Of a device that hangs.
    pub(crate) open: Option<Peer>,
}

pub(crate) fn grant(account: i64) -> Grant {
    Grant {
        account_id: AccountId(account),
        account: format!("device-{account}").parse().expect("a name"),
        account_version: 1,
        session_key: Secret::new([account as u8; 32]),
        ticket: Secret::new([account as u8; 16]),
        source: None,
        epoch: Epoch::at_ms(1_000 + account as u64),
        ttl_ms: 3_600_000,
        heartbeat_s: None,
    }
}

pub(crate) fn run(world: &World, address: &Address, account: i64, manner: Manner) -> Heard {
    let mut heard = Heard::default();
    let Some(peer) = address.connect() else {
        return heard;
    };
    heard.connected = true;
    let grant = grant(account);
    peer.send(&encode(
        1,
        &FromDevice::Attach(Attach::sign(grant.ticket, &grant.session_key)),
    ));
    if manner.frames <= EARLY_FRAMES_MAX {
        report(&peer, manner);
    }
    if !manner.leaves {
        listen(world, &peer, &grant, manner, &mut heard);
    }
    heard.open = manner.hangs.then_some(peer);
    heard
}

fn report(peer: &Peer, manner: Manner) {
    for frame in 1..=manner.frames {
        peer.send(&telemetry(frame));
    }
}

/// Until the server has nothing more to say.
fn listen(world: &World, peer: &Peer, grant: &Grant, manner: Manner, heard: &mut Heard) {
    let mut received = vec![];
    loop {
        let bytes = peer.read();
        if bytes.is_empty() {
            return;
        }
        received.extend(bytes);
        while let Parsed::Frame { frame, consumed } =
            frame::parse(&received, FRAME_BYTES_MAX).expect("whole frames")
        {
            assert!(heard.closes.is_empty(), "a frame after Close");
            match FromCluster::decode(&frame).expect("a message") {
                FromCluster::AttachReply(reply) => match reply.status() {
                    AttachStatus::Ok => {
                        assert!(!heard.attached, "attached twice");
                        assert!(reply.verify(Credential::Ticket(grant.ticket), &grant.session_key));
                        heard.attached = true;
                        if manner.frames > EARLY_FRAMES_MAX {
                            report(peer, manner);
                        }
                    }
                    AttachStatus::Draining => heard.turned_away = true,
                    other => panic!("{other:?}, though it has a grant"),
                },
                FromCluster::TelemetryAck(ack) => {
                    assert!(heard.attached, "an ack before AttachReply");
                    match ack.status {
                        AckStatus::Stored => {
                            let seq = ack.base_seq as i64;
                            let is_stored = world.has_row(grant.account_id, seq);
                            assert!(is_stored, "{seq} is not stored");
                            heard.stored += 1;
                        }
                        AckStatus::Overloaded => heard.overloaded += 1,
                        AckStatus::Malformed => panic!("its frames are well made"),
                    }
                }
                FromCluster::Close(close) => heard.closes.push(close.reason),
                other => panic!("{other:?} is not to be heard here"),
            }
            received.drain(..consumed);
        }
    }
}

/// A frame's number is its id and its record's sequence number.
fn telemetry(number: u16) -> Vec<u8> {
    let (seq, at_ms) = (number.into(), 1_700_000_000_000);
    let mut writer = TelemetryWriter::default();
    writer.begin(seq, at_ms);
    let record = Record::Custom(Custom {
        channel: 1,
        data: &[7],
    });
    writer.push(at_ms, &record).expect("one record fits");
    let telemetry = writer.telemetry().expect("a record");
    encode(number + 1, &FromDevice::Telemetry(telemetry))
}

fn encode(id: u16, message: &FromDevice<'_>) -> Vec<u8> {
    let mut bytes = vec![];
    message.encode(id, &mut bytes);
    bytes
}
