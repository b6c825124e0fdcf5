//! Pure. One full login as its two connections see it: what to send, and what the answer means.
//!
//! Every proof of the cluster is checked: an answer that a device would not take is no login.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::ids::{Nonce, Ticket};
use common::secret::SessionKey;
use protocols::rcu::attach::{Attach, AttachReply, AttachVerdict, Credential};
use protocols::rcu::code::{AttachStatus, CloseReason, LoginStatus};
use protocols::rcu::frame::{self, FRAME_BYTES_TO_DEVICE_MAX, Parsed};
use protocols::rcu::login::{Login, LoginReply, LoginVerdict};
use protocols::rcu::message::FromCluster;
use protocols::rcu::proof;

use crate::fleet::Device;

const FIRMWARE: &str = "bench 1.0";
/// Of the only question on a connection.
const ID: u16 = 1;

/// What a login earned: where to attach, and with what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    server: SocketAddr,
    ticket: Ticket,
    session_key: SessionKey,
}

impl Granted {
    pub(crate) fn new(server: SocketAddr, ticket: Ticket, session_key: SessionKey) -> Self {
        Self {
            server,
            ticket,
            session_key,
        }
    }

    /// Where to attach.
    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }
}

/// On what terms a session began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    heartbeat_s: u16,
}

impl Attached {
    /// How often the session is to heartbeat.
    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_s.into())
    }
}

/// What came instead of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Refusal {
    Login(LoginStatus),
    Attach(AttachStatus),
    Close(CloseReason),
    WrongFrame,
    WrongProof,
    /// The connection could not be made, broke or ended before the answer.
    Lost,
    /// No answer in time.
    Silent,
}

/// What the bytes that came so far say.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    Incomplete,
    Done(T),
    Refused {
        why: Refusal,
        /// 0: not said.
        retry_after_ms: u32,
    },
}

impl<T> Answer<T> {
    fn refused(why: Refusal) -> Self {
        Self::Refused {
            why,
            retry_after_ms: 0,
        }
    }
}

pub(crate) fn login(device: &Device, nonce: Nonce, unix_ms: u64, out: &mut Vec<u8>) {
    Login::sign(&device.account, FIRMWARE, unix_ms, nonce, &device.key).encode(ID, out);
}

/// Judges what the balancer sent.
pub(crate) fn login_answer(device: &Device, nonce: Nonce, bytes: &[u8]) -> Answer<Granted> {
    answer(bytes, |message| match message {
        FromCluster::LoginReply(reply) => Some(login_reply(device, nonce, &reply)),
        _ => None,
    })
}

fn login_reply(device: &Device, nonce: Nonce, reply: &LoginReply<'_>) -> Answer<Granted> {
    if !reply.verify(nonce, &device.key) {
        return Answer::refused(Refusal::WrongProof);
    }
    let LoginVerdict::Ok(signed) = &reply.verdict else {
        return Answer::Refused {
            why: Refusal::Login(reply.status()),
            retry_after_ms: reply.retry_after_ms,
        };
    };
    let target = signed.target;
    let Ok(host) = target.host.parse::<IpAddr>() else {
        return Answer::refused(Refusal::WrongFrame);
    };
    Answer::Done(Granted::new(
        SocketAddr::new(host, target.port),
        target.ticket,
        proof::session_key(&device.key, nonce, &target.ticket),
    ))
}

pub(crate) fn attach(granted: &Granted, out: &mut Vec<u8>) {
    Attach::sign(granted.ticket, &granted.session_key).encode(ID, out);
}

/// Judges what the logic server sent.
pub(crate) fn attach_answer(granted: &Granted, bytes: &[u8]) -> Answer<Attached> {
    answer(bytes, |message| match message {
        FromCluster::AttachReply(reply) => Some(attach_reply(granted, &reply)),
        _ => None,
    })
}

fn attach_reply(granted: &Granted, reply: &AttachReply<'_>) -> Answer<Attached> {
    if !reply.verify(Credential::Ticket(granted.ticket), &granted.session_key) {
        return Answer::refused(Refusal::WrongProof);
    }
    match reply.verdict {
        AttachVerdict::Ok { terms, .. } => Answer::Done(Attached {
            heartbeat_s: terms.heartbeat_s,
        }),
        _ => Answer::Refused {
            why: Refusal::Attach(reply.status()),
            retry_after_ms: reply.retry_after_ms,
        },
    }
}

/// The first frame of `bytes`: the answer where `expected` knows it, else what it means instead.
fn answer<T>(
    bytes: &[u8],
    expected: impl FnOnce(FromCluster<'_>) -> Option<Answer<T>>,
) -> Answer<T> {
    let frame = match frame::parse(bytes, FRAME_BYTES_TO_DEVICE_MAX) {
        Ok(Parsed::Incomplete { .. }) => return Answer::Incomplete,
        Ok(Parsed::Frame { frame, .. }) => frame,
        Err(_) => return Answer::refused(Refusal::WrongFrame),
    };
    match FromCluster::decode(&frame) {
        Ok(FromCluster::Close(close)) => Answer::Refused {
            why: Refusal::Close(close.reason),
            retry_after_ms: close.retry_after_ms,
        },
        Ok(message) if frame.id == ID => {
            expected(message).unwrap_or(Answer::refused(Refusal::WrongFrame))
        }
        _ => Answer::refused(Refusal::WrongFrame),
    }
}

#[cfg(test)]
mod tests {
    use common::secret::Secret;
    use protocols::rcu::attach::Terms;
    use protocols::rcu::login::Target;

    use super::*;
    use crate::fleet;

    const NONCE: Nonce = Nonce([7; 16]);

    fn granted_by(device: &Device) -> Vec<u8> {
        let target = Target {
            host: "127.0.0.1",
            port: 20_000,
            ticket: Secret::new([9; 16]),
            ticket_ttl_s: 30,
        };
        let mut bytes = Vec::new();
        LoginReply::ok(1, target, NONCE, &device.key).encode(ID, &mut bytes);
        bytes
    }

    fn device() -> Device {
        fleet::devices(1).remove(0)
    }

    fn refusal<T>(answer: Answer<T>) -> Option<Refusal> {
        match answer {
            Answer::Refused { why, .. } => Some(why),
            _ => None,
        }
    }

    #[test]
    fn a_login_that_is_granted_attaches_with_its_ticket() {
        let device = device();
        let reply = granted_by(&device);
        for cut in 0..reply.len() {
            let answer = login_answer(&device, NONCE, &reply[..cut]);
            assert!(matches!(answer, Answer::Incomplete), "{cut}");
        }
        let Answer::Done(granted) = login_answer(&device, NONCE, &reply) else {
            panic!("not granted");
        };
        assert_eq!(granted.server, ([127, 0, 0, 1], 20_000).into());

        let terms = Terms {
            heartbeat_s: 60,
            window: 8,
            resume_ttl_s: 0,
            resumption: &[],
        };
        let credential = Credential::Ticket(Secret::new([9; 16]));
        let key = proof::session_key(&device.key, NONCE, &Secret::new([9; 16]));
        let mut reply = Vec::new();
        AttachReply::ok(1, terms, credential, &key).encode(ID, &mut reply);
        let answer = attach_answer(&granted, &reply);
        assert!(matches!(answer, Answer::Done(Attached { heartbeat_s: 60 })));
    }

    #[test]
    fn an_answer_to_another_login_is_none() {
        let device = device();
        let reply = granted_by(&device);
        let answer = login_answer(&device, Nonce([8; 16]), &reply);
        assert_eq!(refusal(answer), Some(Refusal::WrongProof));
    }

    #[test]
    fn a_refusal_keeps_its_name() {
        let busy = LoginReply {
            retry_after_ms: 70,
            server_time_ms: 1,
            verdict: LoginVerdict::Busy,
        };
        let mut bytes = Vec::new();
        busy.encode(ID, &mut bytes);
        let answer = login_answer(&device(), NONCE, &bytes);
        assert_eq!(refusal(answer), Some(Refusal::Login(LoginStatus::Busy)));

        let answer = login_answer(&device(), NONCE, b"HTTP/1.1 400");
        assert_eq!(refusal(answer), Some(Refusal::WrongFrame));
    }
}
