//! `rcu session`: who is connected to a running cluster, and to end that.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use common::epoch::Epoch;
use common::ids::{AccountId, AccountName, NodeName};
use common::link::message::{
    KickAnswer, KickAsk, NoSession, SESSIONS_PAGE_MAX, SessionAsk, SessionShown, SessionView,
    SessionsAnswer, SessionsAsk,
};
use rcu::columns;
use serde::Serialize;

use crate::operator::{EXIT_NOT_ATTACHED, Failure, Operator, Target, busy, json_line, no_session};
use crate::table::{Column, Table, Wide};
use crate::time;
use common::process::{EXIT_FAILED, output};

/// Shows who is connected to a running cluster, and closes sessions.
///
/// A conn server is asked: it knows the sessions on the logic servers that it dials. In a cluster of
/// several conn servers with logic servers of their own, ask each.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu session list --node logic-1 --limit 20
  rcu session list --json | jq -r .account > online.txt
  rcu session show truck-000001
  rcu session kick truck-000001

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the account has no session.")]
pub(crate) struct Session {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists the sessions, node by node, each in the order in which accounts were made.
    List(List),
    /// Shows one session as its logic server sees it now.
    Show { account: AccountName },
    /// Closes a session with the contract's `replaced`: the device logs in anew, after its backoff,
    /// and may be sent to another node. To keep it out, use `rcu device disable`.
    Kick { account: AccountName },
}

#[derive(Args)]
struct List {
    /// Those on this logic server alone.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// No more than so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    wide: Wide,
}

const COLUMNS: [Column; 4] = [
    Column::left("account").shortens(),
    Column::right("id").leaves(1),
    Column::left("node").shortens(),
    Column::left("epoch").leaves(2),
];

/// A line of `rcu session list --json`.
#[derive(Debug, Serialize)]
struct Line {
    /// `null`: the conn server could not read the accounts.
    account: Option<String>,
    account_id: AccountId,
    node: String,
    epoch: Epoch,
}

/// What `rcu session show --json` and `kick --json` print.
#[derive(Debug, Default, Serialize)]
struct Shown {
    account: String,
    /// attached, kicked, not_attached, unknown_account, busy, no_answer or unsupported.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
}

#[derive(Debug, Serialize)]
struct State {
    /// By the clock of its logic server, to the second; `null`: that is of an older version, and so below.
    attached_at_ms: Option<u64>,
    source: Option<String>,
    heartbeat_s: u16,
    /// Since its last whole frame.
    silent_ms: u64,
    /// Telemetry frames that wait for the database.
    unanswered: u16,
    /// A command is under way.
    command: bool,
    /// Records whose number and time were used before, for something else, since it was attached.
    contradicting: Option<u64>,
}

impl Session {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.target.json;
        let target = self.target;
        match self.action {
            Action::List(list) => {
                target.run(async |operator| list.run(operator, json).await)?;
                Ok(ExitCode::SUCCESS)
            }
            Action::Show { account } => show(&target, account),
            Action::Kick { account } => kick(&target, account),
        }
    }
}

impl List {
    async fn run(self, operator: &mut Operator, json: bool) -> Result<(), Failure> {
        let mut out = output::List::begin();
        let mut table = Table::new(COLUMNS, self.wide.width(columns::of_stdout()));
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut from = None;
        loop {
            let limit = left.min(SESSIONS_PAGE_MAX.into());
            let ask = SessionsAsk {
                node: self.node.clone(),
                from,
                limit: u32::try_from(limit).unwrap_or(SESSIONS_PAGE_MAX),
            };
            let (node, sessions, next) = page(operator.sessions(ask).await?)?;
            left -= (sessions.len() as u64).min(left);
            let lines = sessions.into_iter();
            let lines = lines.map(|session| Line::new(session, node.as_ref()));
            if json {
                for line in lines {
                    out.line(serde_json::to_string(&line)?)?;
                }
            } else {
                let rows: Vec<_> = lines.map(|line| line.row()).collect();
                out.text(&table.page(&rows))?;
            }
            // A page may be empty, and the list go on with the next node.
            from = next;
            if from.is_none() || left == 0 {
                break;
            }
        }
        Ok(out.end()?)
    }
}

type Page = (
    Option<NodeName>,
    Vec<SessionView>,
    Option<common::link::message::SessionCursor>,
);

fn page(answer: SessionsAnswer) -> Result<Page, Failure> {
    match answer {
        SessionsAnswer::Page {
            node,
            sessions,
            next,
        } => Ok((node, sessions, next)),
        SessionsAnswer::UnknownNode => {
            Err("no logic server of this name is linked: see `rcu node list`".into())
        }
        SessionsAnswer::Busy => Err(busy()),
        SessionsAnswer::NoAnswer(node) => {
            Err(format!("{node} did not answer, or was lost: the list is not complete").into())
        }
        SessionsAnswer::Unsupported(node) => {
            Err(format!("{node} is of an older version, and cannot list its sessions").into())
        }
    }
}

impl Line {
    fn new(session: SessionView, node: Option<&NodeName>) -> Self {
        Self {
            account: session.account.map(String::from),
            account_id: session.account_id,
            node: node.map_or("-".into(), ToString::to_string),
            epoch: session.epoch,
        }
    }

    fn row(&self) -> [String; 4] {
        [
            self.account.clone().unwrap_or_else(|| "?".into()),
            self.account_id.to_string(),
            self.node.clone(),
            self.epoch.to_string(),
        ]
    }
}

fn show(target: &Target, account: AccountName) -> Result<ExitCode, Failure> {
    let ask = SessionAsk {
        account: account.clone(),
    };
    let answer = target.run(async |operator| operator.session(ask).await)?;
    let (account_id, node, look) = match answer {
        SessionShown::Session {
            account_id,
            node,
            look,
        } => (account_id, node, look),
        SessionShown::No(why) => return none(target, &account, why),
    };
    let state = look.state;
    let source = state.source.map(|source| source.to_string());
    if target.json {
        json_line(&Shown {
            account: account.to_string(),
            outcome: "attached",
            account_id: Some(account_id),
            node: Some(node.to_string()),
            epoch: Some(state.epoch),
            state: Some(State {
                attached_at_ms: look.attached_unix_ms,
                source,
                heartbeat_s: state.heartbeat_s,
                silent_ms: state.silent_ms,
                unanswered: state.unanswered,
                command: state.command,
                contradicting: look.contradicting,
            }),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines = [
        ("account", account.to_string()),
        ("id", account_id.to_string()),
        ("node", node.to_string()),
        (
            "address",
            source.unwrap_or_else(|| "it went just now".into()),
        ),
        (
            "attached",
            look.attached_unix_ms.map_or("?".into(), time::date),
        ),
        ("epoch", state.epoch.to_string()),
        ("heartbeat", format!("every {} s", state.heartbeat_s)),
        ("last heard", format!("{} ms ago", state.silent_ms)),
        (
            "telemetry",
            format!("{} frames wait for the database", state.unanswered),
        ),
        (
            "contradicting",
            look.contradicting
                .map_or("?".into(), |records| match records {
                    0 => "none".into(),
                    _ => {
                        format!("{records} records have the number and time of others (code 4012)")
                    }
                }),
        ),
        (
            "command",
            if state.command {
                "one is under way"
            } else {
                "none"
            }
            .into(),
        ),
    ];
    let text: String = lines
        .iter()
        .map(|(name, value)| format!("{name:<15}{value}\n"))
        .collect();
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn kick(target: &Target, account: AccountName) -> Result<ExitCode, Failure> {
    let ask = KickAsk {
        account: account.clone(),
    };
    let answer = target.run(async |operator| operator.kick(ask).await)?;
    match answer {
        KickAnswer::Kicked { node, epoch } => {
            let told = format!("{account} is closed on {node}; the device may log in again");
            if target.json {
                json_line(&Shown {
                    account: account.to_string(),
                    outcome: "kicked",
                    node: Some(node.to_string()),
                    epoch: Some(epoch),
                    ..Shown::default()
                })
                .map_err(|error| error.after(told))?;
            } else {
                output::tell(told);
            }
            Ok(ExitCode::SUCCESS)
        }
        KickAnswer::No(why) => none(target, &account, why),
    }
}

/// There is no session, or nobody can say.
fn none(target: &Target, account: &AccountName, why: NoSession) -> Result<ExitCode, Failure> {
    if target.json {
        json_line(&Shown {
            account: account.to_string(),
            outcome: why.outcome(),
            ..Shown::default()
        })?;
    } else {
        output::tell(format_args!("{account}: {}", no_session(why)));
    }
    Ok(ExitCode::from(match why {
        NoSession::UnknownAccount | NoSession::NotAttached => EXIT_NOT_ATTACHED,
        NoSession::Busy | NoSession::NoAnswer | NoSession::Unsupported => EXIT_FAILED,
    }))
}
