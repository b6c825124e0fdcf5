//! The conn servers of the simulated cluster.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use common::config::Policy;
use common::epoch::{Epoch, NodeNumber};
use common::ids::AccountName;
use common::link::message::Message;
use common::link::{LinkEvent, LinkId, Peer, Role};
use conn_server::account::Found;
use conn_server::accounts::freshness::Freshness;
use conn_server::accounts::inquiries::{ChangeRow, FOLLOWED_EVERY_MS, Inquiries, News, Question};
use conn_server::accounts::last_logins::LastLogins;
use conn_server::core::{Core as Decisions, Effect, Input};
use conn_server::counters::Counters;
use conn_server::desk::{Desk, Rules};
use conn_server::directory::Directory;
use conn_server::epochs::Epochs;
use conn_server::nonces::Nonces;
use conn_server::pool::NodePool;
use conn_server::throttle::{Limits, Throttle};
use protocols::rcu::code::LoginStatus;
use protocols::rcu::login::{Login, LoginReply};
use rand::rngs::{SmallRng, StdRng};
use rand::{RngExt, SeedableRng};

use crate::accounts::{Reply, Request};
use crate::limits::pace;
use crate::links::{LinkMail, Part};
use crate::marks::Marks;
use crate::model::{Broken, Keeper};
use crate::operator::OPERATOR;
use crate::plan::Plan;
use crate::process::{Mail, Process, Thread, Tier};
use crate::timer::Timer;
use crate::world::{Event, World, balancer_address, logic_address};

/// To the tasks of a conn server.
#[derive(Debug)]
pub enum ConnMail {
    /// From the database.
    Reply(Reply),
    /// The half second of the one that follows the changes.
    Follow,
    /// The second of the one that notes last logins.
    Note,
}

/// What a conn server keeps at most.
pub const NONCES_MAX: usize = 100_000;

/// Errands that may wait for the task that writes; notes that find no room wait and are merged.
const ERRANDS_MAX: usize = 2;

const NOTED_EVERY_MS: u64 = 1_000;

/// From a failed start to the next, by whoever watches over the process.
const STARTED_AGAIN_MS: u64 = 1_000;

/// A database that is away lets some wait before it fails them.
const HANGS_MS: RangeInclusive<u64> = 0..=5_000;

/// An account is not remembered longer than this, whatever happens to the database, and a login that
/// has it is decided: 5 s and 2.3 s, and the time of a look-up.
const ALONE_MS_MAX: u64 = 5_000 + 2_300 + 500;
/// Of a conn server that was not stopped meanwhile.
const STEADY_MS: u64 = 10_000;

/// How far a device's clock may be off.
const SKEW_MS_MAX: u64 = 300_000;

#[derive(Debug)]
pub struct ConnNode {
    core: Decisions,
    timer: Timer,
    /// What was looked up, and when.
    cache: BTreeMap<AccountName, (Found, u64)>,
    freshness: Freshness,
    inquiries: Inquiries,
    last_logins: LastLogins,
    /// For the task that writes, and whether it is at one.
    errands: VecDeque<Request>,
    is_writing: bool,
    /// Of each Login that is not answered, when it was sent by its clock, and when it came by ours.
    asked: BTreeMap<(LinkId, u64), (u64, u64)>,
}

impl ConnNode {
    /// `mark` is what the database holds of it, `newest` the last change there.
    pub fn start(
        plan: &Plan,
        index: usize,
        mark: Epoch,
        newest: Option<ChangeRow>,
        seed: u64,
    ) -> Self {
        let limits = Limits {
            in_all: pace(plan.limits.conn_per_s),
            per_source: pace(plan.limits.conn_per_source_per_s),
            sources_max: plan.limits.sources_max,
            guesses_max: plan.limits.guesses_max,
        };
        let desk = Desk {
            rules: Rules {
                grant_ttl_ms: u32::from(plan.grant_ttl_s) * 1_000,
                clock_skew_max_ms: SKEW_MS_MAX,
                source_exact: plan.source_exact,
                heartbeat_s: None,
            },
            throttle: Throttle::new(limits, seed),
            nonces: Nonces::new(NONCES_MAX),
            pool: NodePool::new(Policy::LeastLoaded),
            directory: Directory::default(),
            epochs: Epochs::new(NodeNumber::new(node_number(index)).expect("small"), mark),
            counters: Counters::default(),
            tickets: StdRng::seed_from_u64(seed),
            waits: SmallRng::seed_from_u64(!seed),
        };
        let logic_servers = (0..plan.logic_servers.into())
            .map(|node| logic_address(node).to_string())
            .collect();
        Self {
            core: Decisions::new(desk, logic_servers, plan.limits.logins_open_max),
            timer: Timer::default(),
            cache: BTreeMap::new(),
            freshness: Freshness::default(),
            inquiries: Inquiries::new(newest),
            last_logins: LastLogins::default(),
            errands: VecDeque::new(),
            is_writing: false,
            asked: BTreeMap::new(),
        }
    }

    /// Adds what this process counted.
    pub fn count_into(&self, marks: &mut Marks) {
        let counted = self.core.counters().iter();
        marks.counted(Tier::Conn, counted.map(|(it, n)| (it.name(), n)));
    }

    /// Its clock was set: how far a device's is off was judged by another one.
    pub fn forget_skews(&mut self) {
        self.asked.clear();
    }
}

/// Tells conn servers apart in an epoch and in the database.
pub fn node_number(conn: usize) -> u16 {
    conn as u16 + 1
}

impl World {
    /// Begins to serve once its first mark is stored. False where the database is away.
    pub fn start_conn(&mut self, index: usize, seed: u64) -> Result<bool, Broken> {
        let me = Process::conn(index);
        if self.accounts.is_away_for(index) {
            self.schedule(self.now_ms + STARTED_AGAIN_MS, Event::Restart(me));
            return Ok(false);
        }
        let mark = self.accounts.mark(node_number(index));
        let newest = self.accounts.newest();
        let mut conn = ConnNode::start(&self.plan, index, mark, newest, seed);
        let now = self.now(me);
        let mut effects = vec![];
        conn.core
            .apply(Input::Tick, now.ms, now.unix_ms, &mut effects);
        for effect in effects {
            if let Effect::StoreMark(mark) = effect {
                self.accounts.store_mark(node_number(index), mark);
                conn.inquiries.mark_stored(mark);
                let stored = Input::MarkStored(Some(mark));
                conn.core.apply(stored, now.ms, now.unix_ms, &mut vec![]);
            }
        }
        self.conns[index] = conn;
        self.mail(me, self.now_ms, Mail::Conn(Box::new(ConnMail::Follow)));
        self.conn_apply(index, Input::Tick)?;
        Ok(true)
    }

    pub fn conn_shuts_down(&mut self, index: usize) -> Result<(), Broken> {
        self.conn_apply(index, Input::Shutdown)?;
        self.conn_apply(index, Input::Tick)?;
        self.note_last_logins(index);
        Ok(())
    }

    pub fn conn_link(&mut self, index: usize, link: LinkId, mail: LinkMail) -> Result<(), Broken> {
        let event = match mail {
            LinkMail::Up => {
                let Some(peer) = self.peer(index, link) else {
                    return Ok(());
                };
                LinkEvent::Up { link, peer }
            }
            LinkMail::Down => LinkEvent::Down {
                link,
                why: "simulated".into(),
            },
            LinkMail::Said {
                part,
                message,
                epoch,
            } => match part {
                Part::Request { id, deadline_ms } => LinkEvent::Request {
                    // The judge notes how far the device's clock is off.
                    link: self.note_skew(index, link, id, &message),
                    id,
                    deadline_ms,
                    message,
                    epoch,
                },
                Part::Answer { id } => LinkEvent::Answer {
                    link,
                    id,
                    message,
                    epoch,
                },
                Part::Notice => LinkEvent::Notice {
                    link,
                    message,
                    epoch,
                },
            },
        };
        self.conn_apply(index, Input::Link(event))
    }

    /// A request comes on a link that is not of the simulated ones.
    pub fn conn_asked(
        &mut self,
        index: usize,
        link: LinkId,
        id: u64,
        deadline_ms: u32,
        message: Message,
    ) -> Result<(), Broken> {
        let event = LinkEvent::Request {
            link,
            id,
            deadline_ms,
            message,
            epoch: Epoch::ZERO,
        };
        self.conn_apply(index, Input::Link(event))
    }

    /// Who is at the other end of a link of a conn server.
    fn peer(&self, index: usize, link: LinkId) -> Option<Peer> {
        let other = self.links.other_end(link, Process::conn(index))?;
        let (role, address, target) = match other.tier {
            Tier::Balancer => (Role::Balancer, balancer_address(other.index), None),
            Tier::Logic => {
                let address = logic_address(other.index);
                (Role::Logic, address, Some(address.to_string()))
            }
            Tier::Conn => return None,
        };
        Some(Peer {
            role,
            node: other.to_string().parse().ok()?,
            version: self.links.version(Process::conn(index), other),
            address,
            target,
        })
    }

    pub fn conn_mail(&mut self, index: usize, mail: ConnMail) -> Result<(), Broken> {
        let me = Process::conn(index);
        match mail {
            ConnMail::Follow => {
                self.conns[index].inquiries.follow();
                self.inquire(index);
                let at_ms = self.now_ms + FOLLOWED_EVERY_MS;
                self.mail(me, at_ms, Mail::Conn(Box::new(ConnMail::Follow)));
            }
            ConnMail::Note => self.note_last_logins(index),
            ConnMail::Reply(Reply::Read(answer)) => {
                let mut news = vec![];
                self.conns[index].inquiries.answered(answer, &mut news);
                for news in news {
                    self.conn_hears(index, news)?;
                }
                self.inquire(index);
            }
            ConnMail::Reply(Reply::MarkStored(mark)) => {
                self.written_errand(index);
                if let Some(mark) = mark {
                    self.conns[index].inquiries.mark_stored(mark);
                }
                self.conn_apply(index, Input::MarkStored(mark))?;
            }
            ConnMail::Reply(Reply::LastLoginsNoted) => self.written_errand(index),
        }
        Ok(())
    }

    /// As the task that owns the core takes what the others tell it.
    fn conn_hears(&mut self, index: usize, news: News) -> Result<(), Broken> {
        let now_ms = self.now(Process::conn(index)).ms;
        let conn = &mut self.conns[index];
        let input = match news {
            News::Found { id, account, found } => {
                if found != Found::Failed {
                    conn.cache.insert(account, (found, now_ms));
                }
                Input::Found { id, found }
            }
            News::Changed(change) => {
                conn.cache.remove(&change.name);
                Input::Changed(change)
            }
            News::WentBack => {
                conn.cache.clear();
                conn.freshness = Freshness::default();
                conn.last_logins.take();
                Input::WentBack
            }
            News::InStep => {
                conn.freshness.in_step(now_ms);
                return Ok(());
            }
            News::Named { id, names } => Input::Named { id, names },
            News::Stale { link, revocations } => Input::Stale { link, revocations },
            News::Unchecked { .. } | News::MarkStored(_) => return Ok(()),
        };
        self.conn_apply(index, input)
    }

    /// The task that reads asks the next query.
    fn inquire(&mut self, index: usize) {
        if let Some(query) = self.conns[index].inquiries.next_query() {
            self.ask_accounts(index, Request::Read(query));
        }
    }

    fn look_up(&mut self, index: usize, id: u64, account: AccountName) -> Result<(), Broken> {
        let now_ms = self.now(Process::conn(index)).ms;
        let conn = &mut self.conns[index];
        if let Some((found, at_ms)) = conn.cache.get(&account)
            && conn.freshness.vouches_for(*at_ms, now_ms)
        {
            let found = *found;
            return self.conn_apply(index, Input::Found { id, found });
        }
        conn.inquiries.ask(Question::LookUp { id, account });
        self.inquire(index);
        Ok(())
    }

    fn note_last_logins(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if conn.last_logins.is_empty() {
            return;
        }
        if conn.errands.len() < ERRANDS_MAX {
            let notes = conn.last_logins.take();
            conn.errands.push_back(Request::NoteLastLogins(notes));
            self.write_errand(index);
        } else {
            let at_ms = self.now_ms + NOTED_EVERY_MS;
            self.mail(
                Process::conn(index),
                at_ms,
                Mail::Conn(Box::new(ConnMail::Note)),
            );
        }
    }

    fn write_errand(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !conn.is_writing
            && let Some(errand) = conn.errands.pop_front()
        {
            conn.is_writing = true;
            self.ask_accounts(index, errand);
        }
    }

    fn written_errand(&mut self, index: usize) {
        self.conns[index].is_writing = false;
        self.write_errand(index);
    }

    // ---- clocks of devices --------------------------------------------------------------------

    fn note_skew(&mut self, index: usize, link: LinkId, id: u64, message: &Message) -> LinkId {
        if let Message::Login(login) = message
            && let Ok(login) = Login::decode_body(&login.body)
        {
            let came_unix_ms = self.now(Process::conn(index)).unix_ms;
            let asked = (login.sent_at_ms, came_unix_ms);
            self.conns[index].asked.insert((link, id), asked);
        }
        if let Message::Login(_) = message {
            self.model.decision_asked(index, link, id, self.now_ms);
        }
        link
    }

    /// Who is more than 300 s off is told so and gets no grant, and nobody else is told so.
    fn judge_reply(
        &mut self,
        index: usize,
        link: LinkId,
        id: u64,
        body: &[u8],
    ) -> Result<(), Broken> {
        let Some((sent_at_ms, came_unix_ms)) = self.conns[index].asked.remove(&(link, id)) else {
            return Ok(());
        };
        let Ok(reply) = LoginReply::decode_body(body) else {
            return Err(Broken("the cluster sent a wrong LoginReply".into()));
        };
        // It is judged when the account was found, some time after it came, and before now.
        let unix_ms = self.now(Process::conn(index)).unix_ms;
        let skews_ms = [came_unix_ms, unix_ms].map(|at_ms| at_ms.abs_diff(sent_at_ms));
        let is_wrong = match reply.status() {
            LoginStatus::Ok => skews_ms.iter().all(|skew_ms| *skew_ms > SKEW_MS_MAX),
            LoginStatus::ClockSkew => skews_ms.iter().all(|skew_ms| *skew_ms <= SKEW_MS_MAX),
            _ => false,
        };
        match is_wrong {
            true => Err(Broken(format!(
                "contract: a clock that was {} and is {} ms off is answered {:?}",
                skews_ms[0],
                skews_ms[1],
                reply.status()
            ))),
            false => Ok(()),
        }
    }

    pub fn conn_timer(&mut self, index: usize) -> Result<(), Broken> {
        if self.conns[index].timer.fires(self.now_ms) {
            self.conn_apply(index, Input::Tick)?;
        }
        Ok(())
    }

    fn conn_apply(&mut self, index: usize, input: Input) -> Result<(), Broken> {
        let me = Process::conn(index);
        let now = self.now(me);
        let mut effects = vec![];
        let core = &mut self.conns[index].core;
        core.apply(input, now.ms, now.unix_ms, &mut effects);
        for effect in effects {
            self.conn_effect(index, effect)?;
        }
        self.model
            .holds(Keeper::Conn, &self.conns[index].core.held())?;
        let clock = self.life(me).clock;
        let conn = &mut self.conns[index];
        let deadline_ms = Some(clock.world_ms(conn.core.next_deadline()));
        if let Some(at_ms) = conn.timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Main));
        }
        Ok(())
    }

    fn conn_effect(&mut self, index: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Request {
                link,
                id,
                deadline_ms,
                message,
            } => {
                if let Message::Grant(grant) = &message {
                    self.links.observe(Process::conn(index), grant.epoch);
                    let now_ms = self.now_ms;
                    self.model
                        .published(index, grant, now_ms, self.healed_at_ms)?;
                    if self
                        .life(Process::conn(index))
                        .runs_since(STEADY_MS, now_ms)
                    {
                        self.model.check_version(grant, ALONE_MS_MAX, now_ms)?;
                    }
                    self.model
                        .grant_asked(index, self.links.broke_at_ms(link), now_ms)?;
                }
                self.says(
                    link,
                    Process::conn(index),
                    Part::Request { id, deadline_ms },
                    message,
                );
            }
            Effect::Answer {
                link: OPERATOR,
                id,
                message,
            } => self.operator_hears(id, &message)?,
            Effect::Answer { link, id, message } => {
                if let Message::LoginAnswer(answer) = &message {
                    self.judge_reply(index, link, id, &answer.body)?;
                }
                self.model.decided(index, link, id);
                self.says(link, Process::conn(index), Part::Answer { id }, message);
            }
            Effect::Notice { link, message } => {
                if let Message::End(end) = &message {
                    self.model.ends_below(end.account_id, end.below)?;
                }
                self.says(link, Process::conn(index), Part::Notice, message);
            }
            Effect::CloseLink { link, why } => panic!("a conn server closes {link}: {why}"),
            Effect::LookUp { id, account } => self.look_up(index, id, account)?,
            Effect::StoreMark(mark) => {
                let node_number = node_number(index);
                let errand = Request::StoreMark { node_number, mark };
                let conn = &mut self.conns[index];
                if conn.errands.len() < ERRANDS_MAX {
                    conn.errands.push_back(errand);
                    self.write_errand(index);
                } else {
                    self.conn_apply(index, Input::MarkStored(None))?;
                }
            }
            Effect::CheckVersions { link, held } => {
                let conn = &mut self.conns[index];
                conn.inquiries.ask(Question::CheckVersions { link, held });
                self.inquire(index);
            }
            Effect::Names { id, accounts } => {
                let conn = &mut self.conns[index];
                conn.inquiries.ask(Question::Names { id, accounts });
                self.inquire(index);
            }
            Effect::Explain { .. } | Effect::Audit { .. } => {}
            Effect::NoteLastLogin(login) => {
                let conn = &mut self.conns[index];
                let is_first = conn.last_logins.is_empty();
                conn.last_logins.note(login);
                if is_first {
                    let at_ms = self.now_ms + NOTED_EVERY_MS;
                    self.mail(
                        Process::conn(index),
                        at_ms,
                        Mail::Conn(Box::new(ConnMail::Note)),
                    );
                }
            }
        }
        Ok(())
    }

    fn ask_accounts(&mut self, index: usize, request: Request) {
        let to = Process::conn(index);
        let generation = self.life(to).generation;
        let mut took_ms = self.rng.random_range(self.plan.store_ms.clone());
        if self.accounts.is_away_for(index) && self.rng.random_ratio(1, 2) {
            took_ms += self.rng.random_range(HANGS_MS);
        }
        self.schedule(
            self.now_ms + took_ms,
            Event::Asked {
                to,
                generation,
                request,
            },
        );
    }
}
