//! Pure. The conn server: everything that can happen to it, and what it does then.
//!
//! The core routes. What a login goes through is told in `login.rs`, which node takes a grant in
//! `pool.rs`, who is where in `directory.rs`. Here are the conversations: which request of ours is
//! open on which link, what its answer leads to, and what happens when none comes.

mod census;
mod commands;
mod logins;
mod nodes;
mod overview;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use common::epoch::Epoch;
use common::histogram::Histogram;
use common::ids::{AccountId, AccountName};
use common::link::message::{ConnLoad, Message, Revoke};
use common::link::{Asker, LinkEvent, LinkId, Role};
use common::time::Now;

use crate::account::{Change, Found};
use crate::counters::Counters;
use crate::desk::Desk;
pub use crate::effect::Effect;
use crate::load::Bulletin;
use crate::login::Login;

use self::census::Census;
use self::commands::Commands;
use self::logins::Asked;
use self::overview::{Linked, Overviews};

/// How often what has no event of its own is looked after: the mark of the epochs.
const ROUND_MS: u64 = 1_000;

/// Timers of what is over that are not worth a sweep.
const TIMERS_SPARE: usize = 1_000;

/// Everything that can happen to a conn server.
#[derive(Debug)]
pub enum Input {
    Link(LinkEvent),
    /// Answer to [`Effect::LookUp`]. What was read before a change of the account comes before
    /// [`Input::Changed`] of it.
    Found {
        id: u64,
        found: Found,
    },
    /// An account changed; what was remembered of it is dropped.
    Changed(Change),
    /// The database is an older one than it was: nothing that was read of it holds.
    WentBack,
    /// Answer to [`Effect::CheckVersions`]: what the node of this link has to end.
    Stale {
        link: LinkId,
        revocations: Vec<Revoke>,
    },
    /// Answer to [`Effect::Names`]: of those that there are; `None`: the accounts could not be read.
    Named {
        id: u64,
        names: Option<HashMap<AccountId, AccountName>>,
    },
    /// Answer to [`Effect::StoreMark`]; `None`: it could not be stored.
    MarkStored(Option<Epoch>),
    /// Those that are being decided are answered `busy`, and so is whoever comes after.
    Shutdown,
    /// [`Core::next_deadline`] has come.
    Tick,
}

/// The decisions of a conn server.
///
/// How it is called: [`Core::apply`] with each thing that happens, in the order in which it happened, then all its
/// effects are carried out, in order; what comes of one at once (an account that is known) is applied after them.
/// [`Input::Tick`] once [`Core::next_deadline`] has passed, which every input may have moved. Whoever is asked by an
/// effect answers once, late or never: what comes too late changes nothing. What the accounts table tells comes in
/// the table's own order. [`Input::Shutdown`] answers those that wait; the next [`Input::Tick`] tells the balancers.
#[derive(Debug)]
pub struct Core {
    desk: Desk,
    /// What the links to logic servers are dialled with, by their index.
    logic_servers: Vec<String>,
    logins_open_max: usize,
    logins: HashMap<u64, Login>,
    asked: HashMap<u64, Asked>,
    commands: Commands,
    census: Census,
    overviews: Overviews,
    linked: Linked,
    bulletin: Bulletin,
    timers: Timers,
    round_at_ms: u64,
    /// Until then what attaches is compared with the accounts.
    doubted_until_ms: u64,
    /// From a balancer's asking to the answer.
    login_ms: Histogram,
    /// Ids of logins, commands and requests are of one count.
    last_id: u64,
    shutting_down: bool,
}

/// The earliest first. A timer of something that is over finds nothing to do.
type Timers = BinaryHeap<Reverse<(u64, Timer)>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    LookUp(u64),
    Asked(u64),
    Command(u64),
    Sessions(u64),
    Nodes(u64),
}

impl Core {
    pub fn new(desk: Desk, logic_servers: Vec<String>, logins_open_max: usize) -> Self {
        Self {
            desk,
            logic_servers,
            logins_open_max,
            logins: HashMap::new(),
            asked: HashMap::new(),
            commands: Commands::default(),
            census: Census::default(),
            overviews: Overviews::default(),
            linked: Linked::default(),
            bulletin: Bulletin::default(),
            timers: Timers::new(),
            round_at_ms: 0,
            doubted_until_ms: 0,
            login_ms: Histogram::default(),
            last_id: 0,
            shutting_down: false,
        }
    }

    pub fn apply(&mut self, input: Input, now_ms: u64, unix_ms: u64, effects: &mut Vec<Effect>) {
        let now = Now {
            ms: now_ms,
            unix_ms,
        };
        match input {
            Input::Link(event) => self.link(event, now, effects),
            Input::Found { id, found } => self.found(id, found, now, effects),
            Input::Changed(change) => self.changed(&change, now, effects),
            Input::WentBack => self.went_back(now, effects),
            Input::Stale { link, revocations } => {
                for revoke in revocations {
                    self.revoke_on(link, revoke, effects);
                }
            }
            Input::Named { id, names } => self.sessions_named(id, names.as_ref(), effects),
            Input::MarkStored(mark) => self.desk.epochs.mark_stored(mark),
            Input::Shutdown => self.shut_down(now, effects),
            Input::Tick => self.tick(now, effects),
        }
    }

    /// When [`Input::Tick`] is due, in monotonic milliseconds.
    pub fn next_deadline(&self) -> u64 {
        let timer = self.timers.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        timer.min(self.bulletin.due_ms()).min(self.round_at_ms)
    }

    /// What it knows, for whoever watches.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// What it keeps, by name: for metrics, and for whoever checks that all of it is bounded.
    pub fn held(&self) -> [(&'static str, usize); 12] {
        let (sources, guesses) = self.desk.throttle.remembered();
        [
            ("logins", self.logins.len()),
            ("grants_asked", self.asked.len()),
            ("commands", self.commands.len()),
            ("pages", self.census.len()),
            ("overviews", self.overviews.len()),
            ("timers", self.timers.len()),
            ("balancers", self.bulletin.readers()),
            ("links", self.linked.len()),
            ("accounts", self.desk.directory.accounts()),
            ("nonces", self.desk.nonces.len()),
            ("sources", sources),
            ("guesses", guesses),
        ]
    }

    pub fn counters(&self) -> &Counters {
        &self.desk.counters
    }

    /// Milliseconds from a balancer's asking to the answer.
    pub fn login_ms(&self) -> &Histogram {
        &self.login_ms
    }

    /// What balancers are told: nothing is free where nobody is let in any more.
    pub fn load(&self) -> ConnLoad {
        if self.shutting_down {
            return ConnLoad::default();
        }
        let (places_free, places_max) = self.desk.pool.places();
        ConnLoad {
            places_free,
            places_max,
            logins_open: u32::try_from(self.logins.len()).unwrap_or(u32::MAX),
        }
    }

    fn link(&mut self, event: LinkEvent, now: Now, effects: &mut Vec<Effect>) {
        self.bulletin.something_happened();
        match event {
            LinkEvent::Up { link, peer } => {
                self.linked.up(link, peer.clone());
                match peer.role {
                    Role::Balancer => self.bulletin.join(link, self.load(), effects),
                    Role::Logic => self.node_up(link, peer, now, effects),
                    Role::Conn | Role::Operator => {}
                }
            }
            LinkEvent::Down { link, .. } => {
                self.linked.down(link);
                self.bulletin.leave(link);
                self.node_down(link, now, effects);
            }
            LinkEvent::Request {
                link,
                id,
                deadline_ms,
                message,
                epoch,
            } => {
                self.desk.epochs.observe(epoch);
                let asker = Asker::new(link, id, deadline_ms, now.ms);
                match message {
                    Message::Login(login) => self.login(asker, &login, now, effects),
                    Message::AccountCommand(command) => {
                        self.command(asker, command, now, effects);
                    }
                    Message::SessionAsk(ask) => self.session_asked(asker, ask, now, effects),
                    Message::KickAsk(ask) => self.kick_asked(asker, ask, now, effects),
                    Message::SessionsAsk(ask) => self.sessions_asked(asker, &ask, now, effects),
                    Message::NodesAsk(_) => self.nodes_asked(asker, now, effects),
                    _ => {} // No other request passes the link.
                }
            }
            LinkEvent::Answer {
                link,
                id,
                message,
                epoch,
            } => {
                self.desk.epochs.observe(epoch);
                match message {
                    Message::GrantAnswer(answer) => {
                        self.grant_answered(link, id, answer, now, effects);
                    }
                    Message::GrantCheckAnswer(answer) => {
                        self.grant_checked(link, id, answer, now, effects);
                    }
                    Message::CommandAnswer(answer) => {
                        self.command_answered(link, id, answer, effects)
                    }
                    Message::SessionLooked(answer) => {
                        self.session_checked(link, id, answer, effects);
                    }
                    Message::Kicked(kicked) => self.kicked(link, id, kicked, effects),
                    Message::SessionPage(page) => {
                        self.sessions_listed(link, id, page, now, effects);
                    }
                    Message::Figures(figures) => self.figures_told(id, figures, effects),
                    _ => {}
                }
            }
            LinkEvent::Notice {
                link,
                message,
                epoch,
            } => {
                self.desk.epochs.observe(epoch);
                self.node_says(link, message, now, effects);
            }
            LinkEvent::Refused { .. } => {}
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(Reverse((at_ms, timer))) = self.timers.peek().copied()
            && at_ms <= now.ms
        {
            self.timers.pop();
            match timer {
                Timer::LookUp(id) => self.look_up_expired(id, now, effects),
                Timer::Asked(id) => self.asked_expired(id, now, effects),
                Timer::Command(id) => self.command_expired(id, effects),
                Timer::Sessions(id) => self.page_expired(id, now, effects),
                Timer::Nodes(id) => self.overview_ends(id, effects),
            }
        }
        if now.ms >= self.round_at_ms {
            self.round_at_ms = now.ms + ROUND_MS;
            let mark = self.desk.epochs.mark_to_store(now.unix_ms);
            effects.extend(mark.map(Effect::StoreMark));
        }
        self.bulletin.publish(self.load(), now.ms, effects);
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn set_timer(&mut self, at_ms: u64, timer: Timer) {
        if self.timers.len() >= self.timers_max() {
            let mut timers = std::mem::take(&mut self.timers);
            timers.retain(|Reverse((_, timer))| self.is_awaited(*timer));
            self.timers = timers;
        }
        self.timers.push(Reverse((at_ms, timer)));
    }

    /// A command may set a timer of ten minutes and be answered at once: timers of what is over
    /// would gather without end. Beyond twice what is open they are swept out.
    fn timers_max(&self) -> usize {
        let questions = self.commands.len() + self.census.len() + self.overviews.len();
        TIMERS_SPARE + 2 * (self.logins.len() + self.asked.len() + questions)
    }

    fn is_awaited(&self, timer: Timer) -> bool {
        match timer {
            Timer::LookUp(id) => self.logins.contains_key(&id),
            Timer::Asked(id) => self.asked.contains_key(&id),
            Timer::Command(id) => self.commands.is_open(id),
            Timer::Sessions(id) => self.census.is_open(id),
            Timer::Nodes(id) => self.overviews.is_open(id),
        }
    }
}

#[cfg(test)]
mod tests;
