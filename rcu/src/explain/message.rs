//! Pure. The fields of every message of the contract, section 3, for people.

use std::net::IpAddr;

use common::ids::AccountName;
use protocols::rcu::attach::RESUMPTION_BYTES_MAX;
use protocols::rcu::close::RedirectReason;
use protocols::rcu::code::{AckStatus, AttachStatus, CloseReason, CommandStatus, LoginStatus};
use protocols::rcu::command::cluster_code;
use protocols::rcu::frame::HEADER_BYTES;
use protocols::rcu::kind;
use protocols::rcu::login::FIRMWARE_BYTES_MAX;

use super::field::{Stop, Told, Walk, count, number, text, time};
use super::hex::hex;
use super::proofs::Verdict;
use super::record;

/// Who sends a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToCluster,
    ToDevice,
}

/// Name and direction of a kind; `None` for one that the contract does not list.
pub(super) fn name(kind: u8) -> Option<(&'static str, Direction)> {
    use Direction::{ToCluster, ToDevice};
    Some(match kind {
        kind::LOGIN => ("Login", ToCluster),
        kind::LOGIN_REPLY => ("LoginReply", ToDevice),
        kind::ATTACH => ("Attach", ToCluster),
        kind::ATTACH_REPLY => ("AttachReply", ToDevice),
        kind::HEARTBEAT => ("Heartbeat", ToCluster),
        kind::HEARTBEAT_REPLY => ("HeartbeatReply", ToDevice),
        kind::TELEMETRY => ("Telemetry", ToCluster),
        kind::TELEMETRY_ACK => ("TelemetryAck", ToDevice),
        kind::RESUME => ("Resume", ToCluster),
        kind::RESUME_CHALLENGE => ("ResumeChallenge", ToDevice),
        kind::RESUME_PROOF => ("ResumeProof", ToCluster),
        kind::COMMAND => ("Command", ToDevice),
        kind::COMMAND_REPLY => ("CommandReply", ToCluster),
        kind::REDIRECT => ("Redirect", ToDevice),
        kind::CLOSE => ("Close", ToDevice),
        _ => return None,
    })
}

/// Walks the body of a frame of this kind, and what is left over after its last field.
pub(super) fn walk_body(walk: &mut Walk<'_>, kind: u8) -> Result<(), Stop> {
    match kind {
        kind::LOGIN => login(walk),
        kind::LOGIN_REPLY => login_reply(walk),
        kind::ATTACH => {
            ticket(walk)?;
            proof(walk, "session_key, \"rcu1 attach\\0\" ‖ ticket")
        }
        kind::ATTACH_REPLY => attach_reply(walk),
        kind::HEARTBEAT => Ok(()),
        kind::HEARTBEAT_REPLY => server_time(walk),
        kind::TELEMETRY => record::walk_telemetry(walk),
        kind::TELEMETRY_ACK => telemetry_ack(walk),
        kind::RESUME => resumption(walk, true),
        kind::RESUME_CHALLENGE => opaque::<16>(walk, "challenge"),
        kind::RESUME_PROOF => proof(
            walk,
            "session_key, \"rcu1 resume\\0\" ‖ challenge ‖ resumption",
        ),
        kind::COMMAND => command(walk),
        kind::COMMAND_REPLY => command_reply(walk),
        kind::REDIRECT => redirect(walk),
        kind::CLOSE => close(walk),
        _ => {
            walk.skip_rest("body", hex);
            Ok(())
        }
    }?;
    walk.end();
    Ok(())
}

fn login(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.str8("account", |bytes| {
        let right = str::from_utf8(bytes).is_ok_and(|text| text.parse::<AccountName>().is_ok());
        Told::right(text(bytes)).unless(right, "an account is 1..=32 of A-Z a-z 0-9 . _ : -")
    })?;
    walk.str8("firmware", |bytes| {
        let printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
        Told::right(text(bytes)).unless(
            printable && bytes.len() <= FIRMWARE_BYTES_MAX,
            "firmware is 0..=32 of printable ASCII",
        )
    })?;
    walk.u64("sent_at_ms", |at| {
        Told::right(match at {
            0 => "0: the device has no clock yet; it will be told clock_skew".to_owned(),
            at => time(at),
        })
    })?;
    opaque::<16>(walk, "nonce")?;
    signed(walk, "key, \"rcu1 login\\0\"")
}

fn login_reply(walk: &mut Walk<'_>) -> Result<(), Stop> {
    let status = walk.u8("status", |code| {
        let then = match LoginStatus::from_code(code) {
            Some(LoginStatus::Ok) => "connects to host:port",
            Some(LoginStatus::Refused) => "backs off",
            Some(LoginStatus::Disabled | LoginStatus::Malformed) => {
                "takes the longest step of the backoff"
            }
            Some(LoginStatus::ClockSkew) => "sets its clock and logs in again at once",
            Some(LoginStatus::Full | LoginStatus::Busy) => "waits",
            None => "takes it for busy",
        };
        code_and(
            code,
            LoginStatus::from_code(code).map(LoginStatus::name),
            then,
        )
    })?;
    retry_after(walk)?;
    server_time(walk)?;
    match LoginStatus::from_code(status) {
        Some(LoginStatus::Ok) => {
            target(walk)?;
            signed(walk, "key, \"rcu1 grant\\0\" ‖ the login's nonce")
        }
        Some(LoginStatus::Disabled | LoginStatus::ClockSkew) => {
            signed(walk, "key, \"rcu1 told\\0\" ‖ the login's nonce")
        }
        _ => Ok(()),
    }
}

fn attach_reply(walk: &mut Walk<'_>) -> Result<(), Stop> {
    let status = walk.u8("status", |code| {
        let then = match AttachStatus::from_code(code) {
            Some(AttachStatus::Ok) => "is attached",
            Some(_) => "logs in again after the wait",
            None => "takes it for not_admitted",
        };
        code_and(
            code,
            AttachStatus::from_code(code).map(AttachStatus::name),
            then,
        )
    })?;
    retry_after(walk)?;
    server_time(walk)?;
    if status != AttachStatus::Ok.code() {
        return Ok(());
    }
    walk.u16("heartbeat_s", |seconds| {
        Told::right(match seconds {
            0..5 => format!("{seconds} s; the device takes it as 5"),
            3601.. => format!("{seconds} s; the device takes it as 3600"),
            _ => format!("{seconds} s"),
        })
    })?;
    walk.u16("window", |window| {
        Told::right(match window {
            0 => "0 frames unanswered at once; the device takes it as 1".to_owned(),
            _ => format!("{} unanswered at once", count(window.into(), "frame")),
        })
    })?;
    let resume_ttl_s = walk.u16("resume_ttl_s", |seconds| {
        Told::right(match seconds {
            0 => "0: no resumption".to_owned(),
            _ => format!("{seconds} s"),
        })
    })?;
    resumption(walk, resume_ttl_s > 0)?;
    signed(
        walk,
        "session_key, \"rcu1 admit\\0\" ‖ the ticket, or the challenge of a resumption",
    )
}

fn telemetry_ack(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u64("base_seq", number)?;
    walk.u8("count", number)?;
    walk.u8("status", |code| {
        let then = match AckStatus::from_code(code) {
            Some(AckStatus::Stored) => "may forget the records",
            Some(AckStatus::Malformed) => "does not send the frame again",
            Some(AckStatus::Overloaded) => "sends it again after the wait",
            None => "takes it for overloaded",
        };
        code_and(code, AckStatus::from_code(code).map(AckStatus::name), then)
    })?;
    retry_after(walk)
}

fn command(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u64("command_id", number)?;
    walk.u64("deadline_ms", |at| {
        Told::right(match at {
            0 => "0: none".to_owned(),
            at => time(at),
        })
    })?;
    walk.u16("code", |code| {
        let name = match code {
            cluster_code::PING => "ping",
            cluster_code::SET_CLOCK => "set_clock",
            cluster_code::SET_REPORT_INTERVAL => "set_report_interval",
            cluster_code::READ_CONFIG => "read_config",
            cluster_code::REBOOT => "reboot",
            0..=0x00FF => "one of the cluster's own, not listed",
            _ => "one of the fleet's",
        };
        Told::right(format!("0x{code:04x} {name}"))
    })?;
    payload(walk)
}

fn command_reply(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u64("command_id", number)?;
    walk.u8("status", |code| {
        let status = CommandStatus::from_code(code);
        let name = status.map_or("not listed", CommandStatus::name);
        Told::right(format!("{code} {name}")).unless(status.is_some(), "a status is 0..=4")
    })?;
    walk.u8("more", |flag| {
        let meaning = match flag {
            0 => "the final reply",
            _ => "further replies to the same command follow",
        };
        Told::right(format!("{flag}: {meaning}")).unless(flag <= 1, "more is 0 or 1")
    })?;
    payload(walk)
}

fn redirect(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u8("reason", |code| {
        let name = match RedirectReason::from_code(code) {
            RedirectReason::Draining => "draining",
            RedirectReason::Rebalancing => "rebalancing",
            RedirectReason::Other(_) => "not listed",
        };
        Told::right(format!("{code} {name}"))
    })?;
    walk.u32("retry_after_ms", |wait| {
        Told::right(match wait {
            0 => "0: at once".to_owned(),
            wait => format!("{wait} ms of going on as usual"),
        })
    })?;
    let has_target = walk.u8("has_target", |flag| {
        let meaning = match flag {
            0 => "the body ends here; the device logs in again",
            _ => "the device attaches at the target",
        };
        Told::right(format!("{flag}: {meaning}")).unless(flag <= 1, "has_target is 0 or 1")
    })?;
    if has_target == 0 {
        return Ok(());
    }
    target(walk)?;
    signed(walk, "session_key, \"rcu1 redirect\\0\"")
}

fn close(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u8("reason", |code| {
        use CloseReason::{
            AttachTimeout, CloneSuspected, Disabled, Idle, ProtocolError, Replaced, Shutdown,
            SlowReader,
        };
        let then = match CloseReason::from_code(code) {
            Some(ProtocolError | Replaced | AttachTimeout) => "drops its resumption and logs in",
            Some(Idle | Shutdown | SlowReader) => "resumes where it can, else logs in",
            Some(Disabled | CloneSuspected) => {
                "drops its resumption and takes the longest step of the backoff"
            }
            None => "takes it for idle",
        };
        code_and(
            code,
            CloseReason::from_code(code).map(CloseReason::name),
            then,
        )
    })?;
    retry_after(walk)
}

/// A number with its name and what a device does then.
fn code_and(code: u8, name: Option<&str>, then: &str) -> Told {
    let name = name.unwrap_or("not listed");
    Told::right(format!("{code} {name}: the device {then}"))
}

fn retry_after(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u32("retry_after_ms", |wait| {
        Told::right(match wait {
            0 => "0: by the backoff where the device has to wait".to_owned(),
            wait => format!("{wait} ms"),
        })
    })?;
    Ok(())
}

fn server_time(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.u64("server_time_ms", |at| Told::right(time(at)))?;
    Ok(())
}

fn opaque<const N: usize>(walk: &mut Walk<'_>, name: &str) -> Result<(), Stop> {
    walk.array::<N>(name, |bytes| Told::right(hex(&bytes)))?;
    Ok(())
}

fn ticket(walk: &mut Walk<'_>) -> Result<(), Stop> {
    opaque::<16>(walk, "ticket")
}

fn target(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.str8("host", |bytes| {
        let right = str::from_utf8(bytes).is_ok_and(|text| text.parse::<IpAddr>().is_ok());
        let wrong = "a host is an IPv4 or IPv6 address without brackets or zone";
        Told::right(text(bytes)).unless(right, wrong)
    })?;
    walk.u16("port", number)?;
    ticket(walk)?;
    walk.u16("ticket_ttl_s", |seconds| {
        Told::right(format!("{seconds} s"))
    })?;
    Ok(())
}

fn resumption(walk: &mut Walk<'_>, on: bool) -> Result<(), Stop> {
    walk.bytes16("resumption", |bytes| {
        let length = bytes.len();
        Told::right(format!("{}: {}", count(length, "byte"), hex(bytes)).trim_end_matches(": "))
            .unless(
                length <= RESUMPTION_BYTES_MAX || !on,
                "a resumption has at most 256 bytes",
            )
            .unless(on || length == 0, "it is empty where resume_ttl_s is 0")
    })
}

fn payload(walk: &mut Walk<'_>) -> Result<(), Stop> {
    walk.bytes16("payload", |bytes| {
        Told::right(match bytes.len() {
            0 => "none".to_owned(),
            length => format!("{}: {}", count(length, "byte"), text(bytes)),
        })
    })
}

/// A proof over `what` and the body up to here.
fn signed(walk: &mut Walk<'_>, what: &str) -> Result<(), Stop> {
    let end = walk.at();
    proof(
        walk,
        &format!("{what} ‖ bytes {HEADER_BYTES}..{end} of the frame"),
    )
}

/// Checked where the device's key is at hand.
fn proof(walk: &mut Walk<'_>, over: &str) -> Result<(), Stop> {
    let (judged, wrong) = match walk.proof {
        None => ("not checked: that takes the key (--key)".to_owned(), None),
        Some(Verdict::Right) => ("right, by this key".to_owned(), None),
        Some(Verdict::Lacks(what)) => (format!("not checked: give {what} before it"), None),
        Some(Verdict::Wrong(mistake)) => {
            let hint = mistake.map_or_else(String::new, |mistake| format!(": it is {mistake}"));
            (
                String::new(),
                Some(format!("not what this key gives{hint}")),
            )
        }
    };
    walk.array::<32>("proof", |bytes| Told {
        text: format!("{}\n= HMAC-SHA256({over})\n{judged}", hex(&bytes)),
        wrong,
    })?;
    Ok(())
}
