//! How commands reach a running cluster: over the link, as an operator, at any of its conn servers.

use std::env;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use common::ids::NodeName;
use common::link::message::{
    AccountCommand, CommandAnswer, KickAnswer, KickAsk, Message, NoSession, NodeView, NodesAnswer,
    NodesAsk, SessionAsk, SessionShown, SessionsAnswer, SessionsAsk,
};
use common::link::{Caller, Keys, Role, node_name};
use common::process::output::{self, OutputError};
use serde::{Deserialize, Serialize};

use crate::data;

/// The account has no session; there may be no such account.
pub(crate) const EXIT_NOT_ATTACHED: u8 = 3;
/// The device answered, and not `ok`.
pub(crate) const EXIT_NOT_OK: u8 = 4;

/// As [`NodeName`] has it.
const NODE_NAME_BYTES_MAX: usize = 32;

/// A conn server answers within half a second what it knows, and within 4 s what it has to ask.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

pub(crate) use common::process::Failure;

/// Which cluster, and with which key.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Any conn server of the cluster; without it that of `rcu up` on --data.
    #[arg(long, value_name = "HOST:PORT", env = "RCU_CLUSTER", global = true)]
    cluster: Option<String>,
    /// The operator's key; without it keys/operator of --data.
    #[arg(
        long,
        value_name = "FILE",
        env = "RCU_OPERATOR_KEY_FILE",
        global = true
    )]
    operator_key: Option<PathBuf>,
    /// The data directory of `rcu up`, for whatever the two above do not say.
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT, global = true)]
    data: PathBuf,
    /// Prints JSON, one object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What up.json says of the cluster.
#[derive(Deserialize)]
struct UpJson {
    conn_server: String,
}

impl Target {
    fn address(&self) -> Result<String, Failure> {
        if let Some(address) = &self.cluster {
            return Ok(address.clone());
        }
        let path = data::up_json(&self.data);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "no cluster runs on {}: start `rcu up`, or name a conn server with --cluster or RCU_CLUSTER",
                self.data.display()
            ),
            _ => format!("cannot read {}: {error}", path.display()),
        })?;
        let up: UpJson = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(up.conn_server)
    }

    fn keys(&self) -> Result<Keys, Failure> {
        let path = self.operator_key.clone();
        let path = path.unwrap_or_else(|| data::operator_key(&self.data));
        Ok(Keys::default().with_operator_file(&path)?)
    }

    /// Runs a command on the link, which is closed at its end.
    pub(crate) fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Operator) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut operator = Operator::connect(self).await?;
            let done = work(&mut operator).await;
            operator.caller.close().await;
            done
        })
    }
}

/// Under which name the conn server logs what is done: whoever has the key is believed.
fn name() -> NodeName {
    let user = env::var_os("SUDO_USER").or_else(|| env::var_os("USER"));
    let user = user.filter(|user| !user.is_empty());
    user.and_then(|user| name_of(user.as_bytes()))
        .unwrap_or_else(|| node_name(Role::Operator))
}

/// What no node's name can have, for example the @ of a directory service, stands there as `_` and its byte in
/// hex; a name that is cut, for it is too long, ends with `_`.
fn name_of(user: &[u8]) -> Option<NodeName> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut name = String::from("operator-");
    for (at, &byte) in user.iter().enumerate() {
        let behind = user.get(at + 1..at + 3);
        let reads_as_escape = byte == b'_' && behind.is_some_and(|two| two.iter().all(is_hex));
        let is_plain = byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let next = match is_plain && !reads_as_escape {
            true => char::from(byte).to_string(),
            false => format!("_{byte:02x}"),
        };
        let is_last = at + 1 == user.len();
        if name.len() + next.len() + usize::from(!is_last) > NODE_NAME_BYTES_MAX {
            name.push('_');
            break;
        }
        name += &next;
    }
    name.parse().ok()
}

/// A link to a conn server.
#[derive(Debug)]
pub(crate) struct Operator {
    caller: Caller,
}

impl Operator {
    async fn connect(target: &Target) -> Result<Self, Failure> {
        let (address, keys) = (target.address()?, target.keys()?);
        let dialling = Caller::connect(&address, Role::Operator, name(), keys, ANSWERED_WITHIN);
        let caller = dialling.await?;
        Ok(Self { caller })
    }

    /// The replies of a device, and how it ended. The device is waited for; the link a little longer.
    pub(crate) async fn command(
        &mut self,
        command: AccountCommand,
        wait: Duration,
        link_max: Duration,
    ) -> Result<Vec<CommandAnswer>, Failure> {
        let answers = self.caller.ask_for(command, wait, wait + link_max).await?;
        let answers = answers.into_iter().map(|answer| match answer {
            Message::CommandAnswer(answer) => Ok(answer),
            _ => Err(unexpected()),
        });
        answers.collect()
    }

    /// The final answer.
    async fn ask(&mut self, message: impl Into<Message>) -> Result<Message, Failure> {
        let answers = self.ask_all(message).await?;
        answers.into_iter().next_back().ok_or_else(unexpected)
    }

    /// All answers, the final one last.
    async fn ask_all(&mut self, message: impl Into<Message>) -> Result<Vec<Message>, Failure> {
        Ok(self.caller.ask(message, ANSWERED_WITHIN).await?)
    }

    /// The nodes that the conn server knows, itself first.
    pub(crate) async fn nodes(&mut self) -> Result<Vec<NodeView>, Failure> {
        let mut all = vec![];
        for answer in self.ask_all(NodesAsk).await? {
            match answer {
                Message::NodesAnswer(NodesAnswer::Page { nodes, .. }) => all.extend(nodes),
                Message::NodesAnswer(NodesAnswer::Busy) => return Err(busy()),
                _ => return Err(unexpected()),
            }
        }
        let peer = self.caller.peer();
        if let Some(own) = all.first_mut() {
            own.name = Some(peer.node.clone());
            own.link = peer.address.to_string();
            own.link_version = peer.version;
        }
        Ok(all)
    }

    pub(crate) async fn sessions(&mut self, ask: SessionsAsk) -> Result<SessionsAnswer, Failure> {
        match self.ask(ask).await? {
            Message::SessionsAnswer(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn session(&mut self, ask: SessionAsk) -> Result<SessionShown, Failure> {
        match self.ask(ask).await? {
            Message::SessionShown(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn kick(&mut self, ask: KickAsk) -> Result<KickAnswer, Failure> {
        match self.ask(ask).await? {
            Message::KickAnswer(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }
}

pub(crate) fn busy() -> Failure {
    "the conn server has too much to do, or cannot read the accounts: try again".into()
}

pub(crate) fn unexpected() -> Failure {
    "the conn server answers something else".into()
}

/// Why there is no session, for people.
pub(crate) fn no_session(why: NoSession) -> &'static str {
    match why {
        NoSession::UnknownAccount => "there is no such account",
        NoSession::NotAttached => "it has no session on this conn server's nodes",
        NoSession::Busy => {
            "the conn server has too much to do, or cannot read the accounts: try again"
        }
        NoSession::NoAnswer => "its logic server was lost, or did not answer: look again",
        NoSession::Unsupported => "its logic server is of an older version",
    }
}

/// One object, one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), OutputError> {
    let mut line = serde_json::to_string(value).map_err(io::Error::from)?;
    line.push('\n');
    output::print(&line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_whatever_the_name_is_made_of() {
        for (user, named) in [
            ("anna", "operator-anna"),
            ("svc_rcu", "operator-svc_rcu"),
            ("anna@example.org", "operator-anna_40example.org"),
            ("FIRM\\anna", "operator-FIRM_5canna"),
            ("jürgen", "operator-j_c3_bcrgen"),
            // Nobody takes it for the @ above.
            ("anna_40example.org", "operator-anna_5f40example.org"),
            (
                "a-name-of-23-characters",
                "operator-a-name-of-23-characters",
            ),
            (
                "a-name-of-24-characters.",
                "operator-a-name-of-24-character_",
            ),
            ("a-name-of-21-charact-@@", "operator-a-name-of-21-charact-_"),
        ] {
            assert_eq!(name_of(user.as_bytes()).unwrap().as_str(), named, "{user}");
        }
        assert_eq!(name_of(b"\xff").unwrap().as_str(), "operator-_ff");
    }
}
