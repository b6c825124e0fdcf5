//! Frames and link messages in the words of the contract, for people.

use std::fmt::Write;

use common::link::message::Message;
use protocols::rcu::attach::AttachVerdict;
use protocols::rcu::frame::Frame;
use protocols::rcu::login::{Login, LoginReply, LoginVerdict};
use protocols::rcu::message::{FromCluster, FromDevice};

use crate::network::Side;

/// A frame that came from this side.
pub fn frame(frame: &Frame<'_>, from: Side) -> String {
    let words = match from {
        Side::Client => FromDevice::decode(frame).map(|message| from_device(&message)),
        Side::Server => FromCluster::decode(frame).map(|message| from_cluster(&message)),
    };
    let words = words.unwrap_or_else(|error| {
        let bytes = frame.body.len();
        format!("kind {:#04x} with {bytes} bytes: {error}", frame.kind)
    });
    match frame.id {
        0 => words,
        id => format!("{words} #{id}"),
    }
}

fn from_device(message: &FromDevice<'_>) -> String {
    match message {
        FromDevice::Login(login) => login_words(login),
        FromDevice::Attach(attach) => format!("Attach ticket {}", tag(attach.ticket.expose())),
        FromDevice::Heartbeat => "Heartbeat".into(),
        FromDevice::Telemetry(telemetry) => {
            let seqs = run(telemetry.base_seq(), telemetry.count());
            format!("Telemetry seq {seqs}")
        }
        other => cut(&format!("{other:?}")),
    }
}

fn from_cluster(message: &FromCluster<'_>) -> String {
    match message {
        FromCluster::LoginReply(reply) => login_reply(reply),
        FromCluster::AttachReply(reply) => {
            let mut words = format!("AttachReply {}", reply.status());
            if let AttachVerdict::Ok { terms, .. } = &reply.verdict {
                let (heartbeat_s, window) = (terms.heartbeat_s, terms.window);
                let _ = write!(words, ", heartbeat {heartbeat_s} s, window {window}");
            }
            words + &later(reply.retry_after_ms)
        }
        FromCluster::HeartbeatReply(_) => "HeartbeatReply".into(),
        FromCluster::TelemetryAck(ack) => {
            let (seqs, later) = (run(ack.base_seq, ack.count), later(ack.retry_after_ms));
            format!("TelemetryAck {} seq {seqs}{later}", ack.status)
        }
        FromCluster::Close(close) => {
            format!("Close {}{}", close.reason, later(close.retry_after_ms))
        }
        other => cut(&format!("{other:?}")),
    }
}

fn login_words(login: &Login<'_>) -> String {
    let (account, nonce) = (login.account, tag(&login.nonce.0));
    format!("Login {account} nonce {nonce} sent at {}", login.sent_at_ms)
}

fn login_reply(reply: &LoginReply<'_>) -> String {
    let mut words = format!("LoginReply {}", reply.verdict.status());
    if let LoginVerdict::Ok(signed) = &reply.verdict {
        let target = &signed.target;
        let ticket = tag(target.ticket.expose());
        let _ = write!(
            words,
            ", to {} port {} with ticket {ticket}",
            target.host, target.port
        );
    }
    words + &later(reply.retry_after_ms)
}

/// A message between two processes.
pub fn link(message: &Message) -> String {
    match message {
        Message::Login(login) => match Login::decode_body(&login.body) {
            Ok(body) => format!("{} from {}", login_words(&body), login.source),
            Err(error) => format!("Login from {}: {error}", login.source),
        },
        Message::LoginAnswer(answer) => match LoginReply::decode_body(&answer.body) {
            Ok(reply) => login_reply(&reply),
            Err(error) => format!("LoginAnswer: {error}"),
        },
        Message::Grant(grant) => format!(
            "Grant account {} epoch {} ticket {} for {} ms",
            grant.account_id,
            grant.epoch,
            tag(grant.ticket.expose()),
            grant.ttl_ms
        ),
        Message::GrantAnswer(answer) => format!(
            "GrantAnswer {:?}, {} of {} places in use",
            answer.verdict, answer.load.places_used, answer.load.places_max
        ),
        Message::End(end) => format!("End account {} below epoch {}", end.account_id, end.below),
        Message::Attached(attached) => {
            let mut words = "Attached".to_owned();
            for held in &attached.sessions {
                let _ = write!(words, " account {} epoch {}", held.account_id, held.epoch);
            }
            cut(&words)
        }
        Message::Ended(ended) => {
            let mut words = "Ended".to_owned();
            for (account_id, epoch) in &ended.sessions {
                let _ = write!(words, " session of account {account_id} epoch {epoch}");
            }
            for (account_id, epoch) in &ended.grants {
                let _ = write!(words, " grant of account {account_id} epoch {epoch}");
            }
            cut(&words)
        }
        other => cut(&format!("{other:?}")),
    }
}

/// Enough of a ticket or a nonce to find it again. None of them opens anything but this world.
pub fn tag(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Consecutive sequence numbers.
pub fn run(first: u64, count: u8) -> String {
    match count {
        0 | 1 => first.to_string(),
        count => format!("{first}..={}", first.saturating_add(u64::from(count) - 1)),
    }
}

fn later(retry_after_ms: u32) -> String {
    match retry_after_ms {
        0 => String::new(),
        ms => format!(", again in {ms} ms"),
    }
}

/// A line stays a line.
const WORDS_MAX: usize = 240;

pub fn cut(words: &str) -> String {
    match words.char_indices().nth(WORDS_MAX) {
        None => words.into(),
        Some((end, _)) => format!("{}…", &words[..end]),
    }
}
