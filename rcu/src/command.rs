//! `rcu command`: has a connected device do something, and tells what came of it.

use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::{Args, Subcommand};
use common::ids::AccountName;
use common::link::message::{AccountCommand, CommandAnswer, Order};
use common::millis::millis;
use common::process::clock::unix_ms;
use common::process::{EXIT_FAILED, output};
use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::{CommandId, cluster_code, outcome};
use serde::Serialize;

use crate::operator::{
    EXIT_NOT_ATTACHED, EXIT_NOT_OK, Failure, Operator, Target, json_line, unexpected,
};

/// The cluster waits no longer for a device.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What the link itself may take on top of the wait for the device.
const LINK_MAX: Duration = Duration::from_secs(5);

/// Has connected devices do something.
#[derive(Args)]
pub(crate) struct Command {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Send(Send),
}

/// Sends a command to the device of an account, waits for its reply, and prints that.
///
/// A device begins a command no later than the wait is over, by its own clock; set-clock has no such
/// time, since the clock may be wrong. What was sent and not answered may have been done: the same
/// --id again does nothing twice, and fetches the reply.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu command send truck-000001 ping
  rcu command send truck-000001 set-report-interval 30s --wait 1m
  rcu command send truck-000001 code 0x0101 --payload 0a0b
  rcu command send truck-000001 reboot --json

Exit codes: 0 the device answered ok, 1 failed or no answer, 2 wrong usage, 3 the account has no
session, 4 the device answered something else than ok.")]
struct Send {
    account: AccountName,
    /// How long to wait for the device, for example 30s.
    #[arg(long, value_name = "D", default_value = "10s", value_parser = wait, global = true)]
    wait: Duration,
    /// The command's number, to send one again; a new one where it is not given.
    #[arg(long, value_name = "N", global = true)]
    id: Option<u64>,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Has the device send the text back, and tells how long that took.
    Ping {
        #[arg(default_value = "")]
        text: String,
    },
    /// Sets the device's clock; without a time, to that of this machine.
    SetClock {
        /// For example 2026-01-31T12:00:00Z.
        #[arg(value_parser = humantime::parse_rfc3339_weak)]
        time: Option<std::time::SystemTime>,
    },
    /// How often it reports, for example 30s; 0s: the device's default. Kept over reboots.
    SetReportInterval {
        #[arg(value_name = "D", value_parser = humantime::parse_duration)]
        every: Duration,
    },
    /// Prints the device's configuration, in the device's own words.
    ReadConfig,
    /// Reboots the device; it answers before it does.
    Reboot,
    /// Any other command of the fleet, by its number.
    Code {
        /// 0x0100 to 0xFFFF are the fleet's own; decimal, or hex behind 0x.
        #[arg(value_parser = code)]
        code: u16,
        /// Hex digits.
        #[arg(long, value_name = "HEX", value_parser = payload, default_value = "")]
        payload: Bytes,
    },
}

/// A newtype, so that clap takes it for one value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bytes(Vec<u8>);

fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match wait {
        Duration::ZERO => Err("a wait of nothing".into()),
        wait if wait > WAIT_MAX => Err("at most 10m".into()),
        wait => Ok(wait),
    }
}

fn code(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "a code is 0 to 65535, or 0x0 to 0xFFFF".into())
}

fn payload(text: &str) -> Result<Bytes, String> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or("a payload is an even number of hex digits")?;
    let pairs = digits.chunks_exact(2);
    let bytes = pairs.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8));
    Ok(Bytes(bytes.collect()))
}

impl What {
    fn code(&self) -> u16 {
        match self {
            Self::Ping { .. } => cluster_code::PING,
            Self::SetClock { .. } => cluster_code::SET_CLOCK,
            Self::SetReportInterval { .. } => cluster_code::SET_REPORT_INTERVAL,
            Self::ReadConfig => cluster_code::READ_CONFIG,
            Self::Reboot => cluster_code::REBOOT,
            Self::Code { code, .. } => *code,
        }
    }

    /// As section 4 of the contract has it.
    fn payload(&self, unix_ms: u64) -> Result<Vec<u8>, Failure> {
        Ok(match self {
            Self::Ping { text } => text.as_bytes().to_vec(),
            Self::SetClock { time } => {
                let set_ms = match time {
                    Some(time) => {
                        let since = time.duration_since(UNIX_EPOCH)?;
                        u64::try_from(since.as_millis())?
                    }
                    None => unix_ms,
                };
                set_ms.to_le_bytes().to_vec()
            }
            Self::SetReportInterval { every } => {
                let every_ms = u32::try_from(every.as_millis())
                    .map_err(|_| "a report interval is at most 49 days")?;
                every_ms.to_le_bytes().to_vec()
            }
            Self::ReadConfig | Self::Reboot => vec![],
            Self::Code { payload, .. } => payload.0.clone(),
        })
    }

    /// Not to be begun after this; 0: whenever it comes.
    fn deadline_ms(&self, unix_ms: u64, wait: Duration) -> u64 {
        let wait_ms = millis(wait);
        match self {
            Self::SetClock { .. } => 0,
            _ => unix_ms.saturating_add(wait_ms),
        }
    }
}

/// What `rcu command send --json` prints.
#[derive(Debug, Serialize)]
struct Sent {
    account: String,
    command_id: CommandId,
    /// ok, failed, unsupported, busy, expired: what the device answered; or not_attached,
    /// another_command, lost, no_answer, too_large.
    outcome: &'static str,
    /// From the question to the last answer.
    took_ms: f64,
    replies: Vec<Reply>,
}

#[derive(Debug, Serialize)]
struct Reply {
    status: String,
    /// Hex digits.
    payload: String,
    /// The same as text, where all of it can be printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Action::Send(send) = self.action;
        let json = self.target.json;
        self.target
            .run(async |operator| send.run(operator, json).await)
    }
}

impl Send {
    async fn run(self, operator: &mut Operator, json: bool) -> Result<ExitCode, Failure> {
        let unix_ms = unix_ms();
        let command_id = self.id.unwrap_or_else(|| new_id(unix_ms));
        let command = AccountCommand {
            account: self.account.clone(),
            order: Order {
                command_id,
                deadline_ms: self.what.deadline_ms(unix_ms, self.wait),
                code: self.what.code(),
                payload: self.what.payload(unix_ms)?,
            },
        };
        let begun = Instant::now();
        // The conn server waits as long as it is asked to; the link is given a little more.
        let answers = operator.command(command, self.wait, LINK_MAX).await?;
        let took_ms = (begun.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        let last = answers.last().ok_or_else(unexpected)?;
        let (text, exit) = judge(last);
        let sent = Sent {
            account: self.account.to_string(),
            command_id: CommandId(command_id),
            outcome: outcome(last),
            took_ms,
            replies: answers.iter().filter_map(reply).collect(),
        };
        let account = &self.account;
        let told = format!("{account}: {text} (command {command_id}, {took_ms} ms)");
        if json {
            json_line(&sent).map_err(|error| error.after(told))?;
        } else {
            let replies = sent.replies.iter();
            let shown = replies.map(|reply| reply.text.as_ref().unwrap_or(&reply.payload));
            let shown = shown.filter(|shown| !shown.is_empty());
            let shown: String = shown.map(|shown| format!("{shown}\n")).collect();
            output::print(&shown).map_err(|error| error.after(&told))?;
            output::tell(told);
        }
        Ok(ExitCode::from(exit))
    }
}

/// Unique in the cluster: milliseconds and chance. Below 2^63, as databases like it.
fn new_id(unix_ms: u64) -> u64 {
    let chance: u64 = rand::random();
    (unix_ms << 21 | chance >> 43) & (u64::MAX >> 1)
}

/// The outcome for people, and the exit code.
fn judge(last: &CommandAnswer) -> (&'static str, u8) {
    match last {
        CommandAnswer::Replied { status, .. } => match CommandStatus::from_code(*status) {
            Some(CommandStatus::Ok) => ("ok", 0),
            Some(CommandStatus::Failed) => ("the device failed to do it", EXIT_NOT_OK),
            Some(CommandStatus::Unsupported) => ("the device does not know it", EXIT_NOT_OK),
            Some(CommandStatus::Busy) => ("the device is busy", EXIT_NOT_OK),
            Some(CommandStatus::Expired) => (
                "not begun: by the device's clock it came too late (see set-clock)",
                EXIT_NOT_OK,
            ),
            None => ("the device answered with an unknown status", EXIT_NOT_OK),
        },
        CommandAnswer::NotAttached => (
            "no session on this conn server's nodes, or no such account",
            EXIT_NOT_ATTACHED,
        ),
        CommandAnswer::Busy => (
            "not sent: another command is under way, or the conn server has too much to do",
            EXIT_FAILED,
        ),
        CommandAnswer::Lost => (
            "the session ended before the reply; the same --id fetches it",
            EXIT_FAILED,
        ),
        CommandAnswer::Expired => ("no reply in time; the same --id fetches it", EXIT_FAILED),
        CommandAnswer::TooLarge => ("the payload does not fit a frame", EXIT_FAILED),
    }
}

fn reply(answer: &CommandAnswer) -> Option<Reply> {
    let CommandAnswer::Replied {
        status, payload, ..
    } = answer
    else {
        return None;
    };
    let name = CommandStatus::from_code(*status).map(CommandStatus::name);
    let text = std::str::from_utf8(payload).ok();
    let is_plain = |text: &&str| !text.chars().any(char::is_control);
    Some(Reply {
        status: name.map_or_else(|| status.to_string(), str::to_owned),
        payload: payload.iter().map(|byte| format!("{byte:02x}")).collect(),
        text: text.filter(is_plain).map(str::to_owned),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Rcu {
        #[command(flatten)]
        command: Command,
    }

    fn parse(arguments: &str) -> Option<Send> {
        let arguments = ["rcu"].into_iter().chain(arguments.split_whitespace());
        let Action::Send(send) = Rcu::try_parse_from(arguments).ok()?.command.action;
        Some(send)
    }

    #[test]
    fn every_command_of_the_contract_has_its_code_and_payload() {
        let now_ms = 1_000;
        for (arguments, code, payload) in [
            ("ping hello", 1, b"hello".to_vec()),
            ("ping", 1, vec![]),
            ("set-clock", 2, 1_000_u64.to_le_bytes().to_vec()),
            (
                "set-clock 1970-01-01T00:00:05Z",
                2,
                5_000_u64.to_le_bytes().to_vec(),
            ),
            (
                "set-report-interval 30s",
                3,
                30_000_u32.to_le_bytes().to_vec(),
            ),
            ("read-config", 4, vec![]),
            ("reboot", 5, vec![]),
            ("code 0x0101 --payload 0aFF", 0x101, vec![10, 255]),
            ("code 7", 7, vec![]),
        ] {
            let send = parse(&format!("send truck {arguments} --wait 20s")).expect(arguments);
            assert_eq!(send.what.code(), code, "{arguments}");
            assert_eq!(send.what.payload(now_ms).unwrap(), payload, "{arguments}");
            assert_eq!(send.wait, Duration::from_secs(20));
            let deadline_ms = if code == 2 { 0 } else { 21_000 };
            assert_eq!(send.what.deadline_ms(now_ms, send.wait), deadline_ms);
        }
        for wrong in [
            "send truck",
            "send truck fly",
            "send tr/uck ping",
            "send truck ping --wait 0s",
            "send truck ping --wait 11m",
            "send truck code 65536",
            "send truck code 1 --payload 0",
            "send truck code 1 --payload xy",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_outcome_has_a_name_of_its_own_and_only_ok_is_0() {
        let replied = |status| CommandAnswer::Replied {
            status,
            more: false,
            payload: vec![],
        };
        let mut answers: Vec<_> = (0..=4).map(replied).collect();
        answers.extend([
            CommandAnswer::NotAttached,
            CommandAnswer::Busy,
            CommandAnswer::Lost,
            CommandAnswer::Expired,
            CommandAnswer::TooLarge,
        ]);
        let judged: Vec<_> = answers.iter().map(judge).collect();
        let names: std::collections::BTreeSet<_> = answers.iter().map(outcome).collect();
        assert_eq!(names.len(), judged.len());
        let exits: Vec<_> = judged.iter().map(|(.., exit)| *exit).collect();
        assert_eq!(exits, [0, 4, 4, 4, 4, 3, 1, 1, 1, 1]);
    }

    #[test]
    fn a_payload_is_text_only_where_all_of_it_can_be_printed() {
        let text = |payload: &[u8]| {
            let answer = CommandAnswer::Replied {
                status: 0,
                more: false,
                payload: payload.to_vec(),
            };
            reply(&answer).unwrap().text
        };
        assert_eq!(text(b"a=1"), Some("a=1".into()));
        assert_eq!(text(b"a\x1b[2J"), None);
        assert_eq!(text(&[0xFF]), None);
    }

    #[test]
    fn ids_grow_with_time_and_differ() {
        let (a, b) = (new_id(1_767_225_600_000), new_id(1_767_225_600_001));
        assert!(a < b && b < 1 << 63);
    }
}
