//! Events that are no arrivals, as lines; and whom a link message concerns.

use std::collections::BTreeMap;

use common::ids::AccountId;
use common::link::message::Message;
use logic_server::batch::Row;
use logic_server::writer::{Work, WriteResult};
use protocols::rcu::login::Login;

use super::{Concerns, Leg, Line, device_of, name_of_device, number_after, words};
use crate::accounts::Reply;
use crate::conn::ConnMail;
use crate::logic::ShardMail;
use crate::network::Client;
use crate::process::{Mail, Process};
use crate::store::Fate;
use crate::world::{Event, World};

/// `None`: of no interest, because what follows from it is told.
pub(super) fn of_event(event: &Event, world: &World) -> Option<Line> {
    match event {
        Event::Resolved { device } => Some(Line {
            who: name_of_device(*device),
            sign: '<',
            whom: "dns".into(),
            what: "addresses".into(),
            concerns: Concerns::Devices(vec![*device]),
        }),
        Event::Reaches { stream } => {
            let connection = world.network.connection(*stream)?;
            let (whom, device) = match connection.client {
                Client::Device { index, .. } => (name_of_device(index), Some(index)),
                other => (format!("{other:?}").to_lowercase(), None),
            };
            Some(Line {
                who: connection.server.to_string(),
                sign: '<',
                whom,
                what: format!(
                    "connection from {}  [stream {}]",
                    connection.source, stream.0
                ),
                concerns: Concerns::Devices(device.into_iter().collect()),
            })
        }
        Event::Heal => Some(Line {
            who: "fault".into(),
            sign: '!',
            whom: String::new(),
            what: "all faults end".into(),
            concerns: Concerns::Everybody,
        }),
        // What arrives and what is written is told when it is known what becomes of it, and a fault
        // where it hits.
        _ => None,
    }
}

/// What comes to a process from its own threads or from its database.
pub(super) fn of_mail(to: Process, mail: &Mail, leg: Leg) -> Option<Line> {
    let line = |thread: String, whom: &str, (what, concerns): (String, Concerns)| {
        Some(Line {
            who: format!("{to}{thread}"),
            sign: leg.sign(),
            whom: whom.into(),
            what,
            concerns,
        })
    };
    match mail {
        Mail::Wake(_)
        | Mail::Dial { .. }
        | Mail::Accept { .. }
        | Mail::Stream { .. }
        | Mail::Link { .. }
        | Mail::Written { .. } => None,
        Mail::Conn(mail) => match mail.as_ref() {
            ConnMail::Reply(said) => line(String::new(), "database", reply(said)),
            ConnMail::Follow | ConnMail::Note => None,
        },
        Mail::Gate(ended) => {
            let what = format!(
                "session {} of account {} ended: {}",
                ended.session,
                ended.account_id,
                ended.reason.name()
            );
            line(String::new(), "shard", (what, of_account(ended.account_id)))
        }
        Mail::Shard { shard, mail } => line(format!(".{shard}"), "process", shard_mail(mail)),
        Mail::Batch(batch) => {
            let (rows, concerns) = rows(batch.rows.iter());
            let what = format!("batch {}: {rows}", batch.id);
            let whom = format!("shard {}", batch.shard.0);
            line(".writer".into(), &whom, (what, concerns))
        }
        #[allow(unreachable_patterns, reason = "more may come to a process")]
        other => {
            let what = words::cut(&format!("{other:?}"));
            line(String::new(), "", (what, Concerns::Everybody))
        }
    }
}

/// A write is over, and the process that asked for it may be too.
pub(super) fn of_write(
    by: Process,
    leg: Leg,
    work: &Work,
    fate: Fate,
    result: &WriteResult,
) -> Line {
    let (rows, concerns) = rows(work.rows().map(|(row, _)| row));
    let carefully = match work.is_careful() {
        true => "carefully, ",
        false => "",
    };
    let as_drawn = match fate.commits() {
        true => String::new(),
        false => format!(" ({fate:?})"),
    };
    Line {
        who: format!("{by}.writer"),
        sign: leg.sign(),
        whom: "store".into(),
        what: format!("{result:?}{as_drawn}: {carefully}{rows}"),
        concerns,
    }
}

/// What the database says to a conn server. It names at most one account.
fn reply(reply: &Reply) -> (String, Concerns) {
    let words = format!("{reply:?}");
    let account_id = number_after(&words, "AccountId(").map(|number| AccountId(number as i64));
    let device = account_id.and_then(device_of);
    (
        words::cut(&words),
        Concerns::Devices(device.into_iter().collect()),
    )
}

fn shard_mail(mail: &ShardMail) -> (String, Concerns) {
    match mail {
        ShardMail::Adopt { stream, seed, .. } => (
            format!(
                "adopt account {} epoch {} as session {}  [stream {}]",
                seed.account_id, seed.epoch, seed.session, stream.0
            ),
            of_account(seed.account_id),
        ),
        ShardMail::Finished { batch, outcome } => {
            let (rows, concerns) = rows(batch.rows.iter());
            (format!("batch {} {outcome:?}: {rows}", batch.id), concerns)
        }
        other => (words::cut(&format!("{other:?}")), Concerns::Everybody),
    }
}

fn of_account(account_id: AccountId) -> Concerns {
    Concerns::Devices(device_of(account_id).into_iter().collect())
}

/// Rows by device: `sim-000003 seq 5..=9`, first to last.
fn rows<'a>(rows: impl Iterator<Item = &'a Row>) -> (String, Concerns) {
    let mut by_account = BTreeMap::<AccountId, (i64, i64, usize)>::new();
    for row in rows {
        let (first, last, count) = by_account
            .entry(row.account_id)
            .or_insert((row.seq, row.seq, 0));
        *first = (*first).min(row.seq);
        *last = (*last).max(row.seq);
        *count += 1;
    }
    let told: Vec<_> = by_account
        .iter()
        .map(|(account_id, (first, last, count))| {
            let name = device_of(*account_id).map_or_else(|| "nobody".into(), name_of_device);
            format!("{name} {count} rows seq {first}..={last}")
        })
        .collect();
    let what = if told.is_empty() {
        "no rows".into()
    } else {
        words::cut(&told.join(", "))
    };
    let devices = by_account.keys().copied().filter_map(device_of);
    (what, Concerns::Devices(devices.collect()))
}

/// Whose business a message is.
pub(super) fn of_message(message: &Message) -> Concerns {
    let devices = |accounts: Vec<AccountId>| {
        Concerns::Devices(accounts.into_iter().filter_map(device_of).collect())
    };
    match message {
        Message::Login(login) => Concerns::Devices(
            Login::decode_body(&login.body)
                .ok()
                .and_then(|login| login.account.strip_prefix("sim-")?.parse().ok())
                .into_iter()
                .collect(),
        ),
        Message::Grant(grant) => of_account(grant.account_id),
        Message::GrantCheck(check) => of_account(check.account_id),
        Message::End(end) => of_account(end.account_id),
        Message::Revoke(revoke) => of_account(revoke.account_id),
        Message::Command(command) => of_account(command.account_id),
        Message::Attached(attached) => devices(
            attached
                .sessions
                .iter()
                .map(|held| held.account_id)
                .collect(),
        ),
        Message::Ended(ended) => {
            let ended = ended.sessions.iter().chain(&ended.grants);
            devices(ended.map(|(account_id, _)| *account_id).collect())
        }
        Message::Adopt(adopt) => {
            let held = adopt.sessions.iter().chain(&adopt.grants);
            devices(held.map(|held| held.account_id).collect())
        }
        _ => Concerns::Devices(vec![]),
    }
}
