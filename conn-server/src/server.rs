//! The task that owns the conn server's core: takes what happens, and carries out what the core says.
//!
//! Many things that happened are taken in one turn, one after the other, and a login whose account
//! is in the cache goes from its request to the grant's within that turn: nothing is spawned for it.

use std::net::IpAddr;
use std::time::Duration;

use common::codes::Code;
use common::ids::AccountName;
use common::link::message::Message;
use common::link::{Hub, LinkEvent, LinkId};
use common::logging::AUDIT;
use common::logging::repeats::Repeats;
use common::millis::millis;
use common::process::clock::unix_ms;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::field::display;

use crate::account::Found;
use crate::accounts::cache::AccountCache;
use crate::accounts::inquiries::{News, Question};
use crate::accounts::last_logins::LastLogins;
use crate::accounts::writer::Errand;
use crate::audit::{Act, Deed};
use crate::core::{Core, Effect, Input};
use crate::counters::{Counter, Counters};
use crate::stats::Board;

/// Taken in one turn from each queue.
const TURN_MAX: usize = 256;

/// How often last logins are written.
const NOTED_EVERY_MS: u64 = 1_000;

#[derive(Debug)]
pub(crate) struct Server {
    core: Core,
    hub: Hub,
    cache: AccountCache,
    last_logins: LastLogins,
    questions: mpsc::Sender<Question>,
    errands: mpsc::Sender<Errand>,
    board: Board,
    /// What is counted outside the core.
    counters: Counters,
    clock: Clock,
    note_at_ms: u64,
    /// Kept for their memory: what the core wants done, and what it wants on top while that is being done.
    effects: Vec<Effect>,
    further: Vec<Effect>,
    explained: Repeats<(Option<AccountName>, IpAddr, &'static str)>,
}

/// Both clocks, read once a turn.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    now_ms: u64,
    unix_ms: u64,
}

impl Clock {
    fn since(started: Instant) -> Self {
        let mut clock = Self {
            started,
            now_ms: 0,
            unix_ms: 0,
        };
        clock.read();
        clock
    }

    fn read(&mut self) {
        self.now_ms = millis(self.started.elapsed());
        self.unix_ms = unix_ms();
    }

    fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}

/// Whom the server speaks to.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) hub: Hub,
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) errands: mpsc::Sender<Errand>,
    pub(crate) board: Board,
}

/// What the server hears.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) stop: oneshot::Receiver<()>,
}

impl Server {
    pub(crate) fn new(core: Core, cache: AccountCache, peers: Peers) -> Self {
        Self {
            core,
            hub: peers.hub,
            cache,
            last_logins: LastLogins::default(),
            questions: peers.questions,
            errands: peers.errands,
            clock: Clock::since(peers.board.figures.started()),
            board: peers.board,
            counters: Counters::default(),
            note_at_ms: 0,
            effects: Vec::new(),
            further: Vec::new(),
            explained: Repeats::at_debug(),
        }
    }

    /// Runs until it is stopped, and then says so to everybody who waits.
    pub(crate) async fn run(mut self, mut ears: Ears) {
        let (mut events, mut heard) = (Vec::new(), Vec::new());
        loop {
            let due_ms = self.next_deadline();
            self.board.figures.round().ends(Some(due_ms));
            let due = self.clock.instant(due_ms);
            tokio::select! {
                _ = ears.links.recv_many(&mut events, TURN_MAX) => {}
                _ = ears.news.recv_many(&mut heard, TURN_MAX) => {}
                () = sleep_until(due) => {}
                _ = &mut ears.stop => break,
            }
            self.clock.read();
            self.board.figures.round().begins(self.clock.now_ms);
            for news in heard.drain(..) {
                self.hear(news);
            }
            for event in events.drain(..) {
                self.apply(Input::Link(event));
            }
            self.look_at_the_clock();
            self.publish();
        }
        self.clock.read();
        self.board.figures.round().ends(None);
        self.apply(Input::Shutdown);
        self.apply(Input::Tick);
        self.board.figures.ends();
        self.publish();
        if !self.last_logins.is_empty() {
            // The writer ends with the last errand.
            let _ = self
                .errands
                .send(Errand::NoteLastLogins(self.last_logins.take()))
                .await;
        }
    }

    fn publish(&self) {
        let reads_accounts = self.cache.follows(self.clock.now_ms);
        self.board
            .publish(&self.core, &self.counters, reads_accounts);
    }

    fn next_deadline(&self) -> u64 {
        match self.last_logins.is_empty() {
            true => self.core.next_deadline(),
            false => self.core.next_deadline().min(self.note_at_ms),
        }
    }

    fn look_at_the_clock(&mut self) {
        let now_ms = self.clock.now_ms;
        if now_ms >= self.core.next_deadline() {
            self.apply(Input::Tick);
        }
        if now_ms >= self.note_at_ms && !self.last_logins.is_empty() {
            self.note_at_ms = now_ms + NOTED_EVERY_MS;
            // While the writer is behind, notes are merged and wait.
            if let Ok(errand) = self.errands.try_reserve() {
                errand.send(Errand::NoteLastLogins(self.last_logins.take()));
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Found { id, account, found } => {
                self.cache.keep(account, found, self.clock.now_ms);
                self.apply(Input::Found { id, found });
            }
            News::Changed(change) => {
                self.cache.forget(&change.name);
                self.apply(Input::Changed(change));
            }
            News::WentBack => {
                tracing::error!(
                    code = Code::DatabaseWentBack.number(),
                    "the database is an older one than it was: all that was known of the accounts is read anew"
                );
                self.cache.forget_all();
                // Of accounts that may be gone, or be others now.
                self.last_logins.take();
                self.apply(Input::WentBack);
            }
            News::InStep => self.cache.in_step(self.clock.now_ms),
            News::Stale { link, revocations } => self.apply(Input::Stale { link, revocations }),
            News::Unchecked { link } => self.close(link, "its accounts cannot be checked"),
            News::Named { id, names } => self.apply(Input::Named { id, names }),
            News::MarkStored(mark) => self.apply(Input::MarkStored(mark)),
        }
    }

    fn apply(&mut self, input: Input) {
        let clock = &self.clock;
        self.core
            .apply(input, clock.now_ms, clock.unix_ms, &mut self.effects);
        while !self.effects.is_empty() {
            let mut effects =
                std::mem::replace(&mut self.effects, std::mem::take(&mut self.further));
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
            self.further = effects;
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Request {
                link,
                id,
                deadline_ms,
                message,
            } => {
                if let Message::Grant(grant) = &message {
                    self.hub.observe(grant.epoch);
                }
                self.hub.request(link, id, deadline_ms, message);
            }
            Effect::Answer { link, id, message } => self.hub.answer(link, id, message),
            Effect::Notice { link, message } => self.hub.notice(link, message),
            Effect::CloseLink { link, why } => self.close(link, why),
            Effect::LookUp { id, account } => self.look_up(id, account),
            Effect::CheckVersions { link, held } => {
                let check = Question::CheckVersions { link, held };
                if self.questions.try_send(check).is_err() {
                    self.close(link, "too many accounts wait to be checked");
                }
            }
            Effect::Names { id, accounts } => {
                let question = Question::Names { id, accounts };
                if self.questions.try_send(question).is_err() {
                    self.more(Input::Named { id, names: None });
                }
            }
            Effect::StoreMark(mark) => {
                if self.errands.try_send(Errand::StoreMark(mark)).is_err() {
                    self.more(Input::MarkStored(None));
                }
            }
            Effect::Explain {
                account,
                source,
                why,
            } => {
                let cause = (account, source, why.name());
                if tracing::enabled!(tracing::Level::DEBUG)
                    && let Some(untold) = self.explained.tell(cause.clone(), self.clock.now_ms)
                {
                    let (account, source, why) = cause;
                    let account = account.map(display);
                    tracing::debug!(account, %source, why, untold, "a device was not let in");
                }
            }
            Effect::Audit { deed, outcome } => log(&deed, outcome),
            Effect::NoteLastLogin(login) => {
                if !self.last_logins.note(login) {
                    self.counters.count(Counter::LastLoginsShed);
                }
            }
        }
    }

    fn look_up(&mut self, id: u64, account: AccountName) {
        if let Some(found) = self.cache.find(&account, self.clock.now_ms) {
            return self.more(Input::Found { id, found });
        }
        let asked = self.questions.try_send(Question::LookUp { id, account });
        if asked.is_err() {
            let found = Found::Failed;
            self.more(Input::Found { id, found });
        }
    }

    /// While effects are carried out: what comes of it is carried out after them.
    fn more(&mut self, input: Input) {
        let clock = &self.clock;
        self.core
            .apply(input, clock.now_ms, clock.unix_ms, &mut self.effects);
    }

    /// A dialled peer is dialled again.
    fn close(&self, link: LinkId, why: &str) {
        tracing::warn!(code = Code::LinkClosed.number(), %link, why, "link closed");
        self.hub.close(link);
    }
}

fn log(deed: &Deed, outcome: &str) {
    let operator = deed.operator.as_ref().map(|(name, _)| display(name));
    let address = deed.operator.as_ref().map(|(_, address)| display(address));
    let (account, node) = (display(&deed.account), deed.node.as_ref().map(display));
    match deed.act {
        Act::Kick => tracing::info!(
            target: AUDIT,
            code = Code::OperatorKicked.number(),
            operator,
            address,
            account,
            node,
            outcome,
            "an operator had a session closed"
        ),
        Act::Command {
            command_id,
            code: number,
        } => tracing::info!(
            target: AUDIT,
            code = Code::OperatorCommanded.number(),
            operator,
            address,
            account,
            node,
            command = number,
            // As text: who reads lines as JSON may keep no integer beyond 2^53.
            command_id = display(command_id),
            outcome,
            "an operator sent a command"
        ),
    }
}
