//! Pure. A gate, and what it asked for last.

use std::net::Ipv4Addr;

use common::link::message::GrantVerdict;
use common::secret::Secret;
use protocols::rcu::attach::{Attach, AttachReply};
use protocols::rcu::close::Close;
use protocols::rcu::code::AttachStatus;
use protocols::rcu::frame::{self, Frame, Parsed};
use protocols::rcu::kind;

use crate::adapter::Protocol;
use crate::gate::*;

pub(super) const LINK: LinkId = LinkId(1);

/// What a device hears of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Closed without a frame.
    Nothing,
    Reply {
        id: u16,
        status: AttachStatus,
    },
    Close(CloseReason),
}

pub(super) const PROTOCOL_ERROR: Heard = Heard::Close(CloseReason::ProtocolError);

pub(super) fn not_admitted(id: u16) -> Heard {
    let status = AttachStatus::NotAdmitted;
    Heard::Reply { id, status }
}

pub(super) fn settings() -> Settings {
    Settings {
        listeners: vec![Listener {
            protocol: Protocol::Rcu,
        }],
        shards: 2,
        places_max: 10,
        pending_max: 100,
        first_frame_ms: 5_000,
        heartbeat_s: 60,
        advertise: vec![],
        shutdown_spread_ms: 1_000,
    }
}

/// 192.0.2.`host`.
pub(super) fn address(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
}

/// A grant of `account` with an epoch and ticket of this number, for 192.0.2.1.
pub(super) fn grant(account: i64, number: u64) -> message::Grant {
    let mut ticket = [0; 16];
    ticket[..8].copy_from_slice(&number.to_le_bytes());
    let mut session_key = [1; 32];
    session_key[..8].copy_from_slice(&number.to_le_bytes());
    message::Grant {
        account_id: AccountId(account),
        account: "device".parse().unwrap(),
        account_version: 1,
        session_key: Secret::new(session_key),
        ticket: Secret::new(ticket),
        source: Some(address(1)),
        epoch: Epoch::at_ms(number),
        ttl_ms: 30_000,
        heartbeat_s: None,
    }
}

pub(super) fn attach_frame(grant: &message::Grant) -> Vec<u8> {
    let mut out = vec![];
    Attach::sign(grant.ticket, &grant.session_key).encode(7, &mut out);
    out
}

pub(super) fn frame_of(kind: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    Frame { kind, id, body }.encode(&mut out);
    out
}

pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: Now,
    /// But for what is explained.
    pub(super) effects: Vec<Effect>,
    pub(super) explained: Vec<(IpAddr, Option<AccountId>, Counter)>,
    next_conn: u32,
}

impl Bench {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            core: Core::new(&settings, 1),
            now: Now {
                ms: 1_000_000,
                unix_ms: 1_767_225_600_000,
            },
            effects: vec![],
            explained: vec![],
            next_conn: 0,
        }
    }

    pub(super) fn apply(&mut self, input: Input<'_>) {
        self.core.apply(input, self.now, &mut self.effects);
        let explains = |it: &mut Effect| matches!(it, Effect::Explain { .. });
        for effect in self.effects.extract_if(.., explains) {
            if let Effect::Explain {
                source,
                account_id,
                why,
            } = effect
            {
                self.explained.push((source, account_id, why));
            }
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
        self.apply(Input::Tick);
    }

    pub(super) fn grant(&mut self, grant: &message::Grant) -> GrantVerdict {
        self.apply(Input::Grant {
            link: LINK,
            request: 1,
            grant: grant.clone(),
        });
        match self.effects.pop() {
            Some(Effect::Answer {
                message: Message::GrantAnswer(answer),
                ..
            }) => {
                assert_eq!(answer.load, self.core.load());
                answer.verdict
            }
            other => panic!("{other:?}"),
        }
    }

    /// A new connection, unless it is closed at once.
    pub(super) fn connect(&mut self, source: IpAddr) -> Option<ConnId> {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.apply(Input::Accepted {
            conn,
            listener: ListenerIndex(0),
            source,
        });
        let closed = self.refusals();
        (!closed.contains(&(conn, Heard::Nothing))).then_some(conn)
    }

    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.apply(Input::Received { conn, bytes });
    }

    /// Connects from 192.0.2.1, sends these bytes, and tells what the device hears, if anything.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<Heard> {
        let conn = self.connect(address(1)).expect("it holds a grant");
        self.receive(conn, bytes);
        self.refusals().first().map(|&(_, heard)| heard)
    }

    /// Attaches with this grant from 192.0.2.1.
    pub(super) fn attach(&mut self, grant: &message::Grant) -> Result<SessionSeed, Heard> {
        match self.send(&attach_frame(grant)) {
            Some(heard) => Err(heard),
            None => Ok(self.admitted().expect("in or out").1),
        }
    }

    /// Grants and attaches.
    pub(super) fn session(&mut self, account: i64, number: u64) -> SessionSeed {
        let grant = grant(account, number);
        assert_eq!(self.grant(&grant), GrantVerdict::Granted);
        self.attach(&grant).unwrap()
    }

    pub(super) fn refusals(&mut self) -> Vec<(ConnId, Heard)> {
        let refused = self
            .effects
            .extract_if(.., |it| matches!(it, Effect::Refuse { .. }));
        refused
            .map(|effect| match effect {
                Effect::Refuse { conn, reply } => (conn, hear(&reply)),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(super) fn admitted(&mut self) -> Option<(ShardIndex, SessionSeed, Vec<u8>)> {
        let index = self
            .effects
            .iter()
            .position(|it| matches!(it, Effect::Admit { .. }))?;
        match self.effects.remove(index) {
            Effect::Admit {
                shard,
                seed,
                unread,
                ..
            } => Some((shard, seed, unread)),
            other => panic!("{other:?}"),
        }
    }

    /// Sessions that shards are told to close.
    pub(super) fn endings(&mut self) -> Vec<(SessionId, CloseReason)> {
        let endings = self
            .effects
            .extract_if(.., |it| matches!(it, Effect::EndSession { .. }));
        endings
            .map(|effect| match effect {
                Effect::EndSession {
                    session, reason, ..
                } => (session, reason),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(super) fn session_ended(&mut self, seed: &SessionSeed) {
        self.apply(Input::SessionEnded {
            account_id: seed.account_id,
            epoch: seed.epoch,
        });
    }

    pub(super) fn places_used(&self) -> u32 {
        self.core.load().places_used
    }

    pub(super) fn counted(&self, counter: Counter) -> u64 {
        self.core.counters().of(counter)
    }
}

fn hear(reply: &[u8]) -> Heard {
    if reply.is_empty() {
        return Heard::Nothing;
    }
    let Ok(Parsed::Frame { frame, consumed }) = frame::parse(reply, 1_024) else {
        panic!("a whole frame");
    };
    assert_eq!(consumed, reply.len(), "one frame");
    if frame.kind == kind::CLOSE {
        assert_eq!(frame.id, 0);
        return Heard::Close(Close::decode_body(frame.body).unwrap().reason);
    }
    assert_eq!(frame.kind, kind::ATTACH_REPLY);
    let reply = AttachReply::decode_body(frame.body).unwrap();
    assert_eq!(
        reply.retry_after_ms > 0,
        reply.status() == AttachStatus::Draining
    );
    Heard::Reply {
        id: frame.id,
        status: reply.status(),
    }
}
