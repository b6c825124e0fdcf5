//! The judge. It knows the contract and what devices and store show, and asks no core.
//!
//! | promise | where it is checked |
//! | --- | --- |
//! | P1 no acknowledged loss | `records`: when `stored` leaves a server, every record of the frame is in the store |
//! | P2 no duplicate | `records`: no record has two rows |
//! | P3 no mix-up | `records`: a row equals what the device of that account sent |
//! | P4 gate | `grants`: an AttachReply `ok` follows a right Attach with a ticket granted for that node, unexpired, unused |
//! | P5 one current session | `sessions`: of two sessions of an account the older is closed within 1 s, 5 s after a heal; the newest is never closed for another |
//! | F23 revocation | `accounts`: within 5 s, from the heal where it was cut off, no session and no grant is left of what a change of an account ends |
//! | L5 shutdown | a logic server that was told to end grants nothing more and leaves no device untold |
//! | P6 bounded | `memory`: what a core says that it keeps is within what its settings promise |
//! | P9 capacity | `places`: sessions and open grants of a node, by account, never exceed its places; a `full` says when to come back |
//! | L1 silence | `silence`: a session whose device says nothing is closed in time, and not before |
//! | L2 recovery | `recovery`: after the heal each device attaches within its bound, and rests a minute later |
//! | L3 dead nodes | `waits`: a login is answered in 6 s, waits for no logic server longer than 3 s, and none goes to a node whose link is gone |

mod accounts;
mod grants;
mod memory;
mod places;
mod records;
mod recovery;
mod sessions;
mod silence;
mod stillness;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::epoch::Epoch;
use common::ids::AccountId;
use common::link::LinkId;
use common::link::message::Grant;
use protocols::rcu::attach::Attach;
use protocols::rcu::code::{CloseReason, LoginStatus};
use simulator::device::{Event, SentRecord};

use crate::network::Stream;
use crate::plan::Plan;
use crate::process::{Process, Tier};
use crate::store::{Key, Store, Stored};
use accounts::{Accounts, REVOKED_MS};
use grants::Grants;
pub use memory::Keeper;
use memory::Memory;
use places::Places;
use records::Records;
use recovery::Recovery;
pub use recovery::{Situation, Standing};
pub use sessions::OLDER_SESSION_AFTER_HEAL_MS;
use sessions::{Session, Sessions};
use silence::Silence;
use stillness::Stillness;
use waits::Waits;

/// From the last byte of a Login to its reply.
const LOGIN_ANSWERED_WITHIN_MS: u64 = 6_000;
/// No login waits longer for a logic server, dead or alive.
const LOGIN_DECIDED_WITHIN_MS: u64 = 3_000;
/// A conn server asks nothing of a node any more whose link broke so long ago.
const LINK_KNOWN_LOST_WITHIN_MS: u64 = 3_000;

/// A promise that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    pub fn new(promise: &str, what: impl std::fmt::Display) -> Self {
        Self(format!("{promise}: {what}"))
    }
}

/// A connection that a gate lets in.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    pub stream: Stream,
    pub node: usize,
    pub account_id: AccountId,
    pub source: IpAddr,
    /// Under which the gate lets it in.
    pub epoch: Epoch,
}

/// What the judge remembers.
#[derive(Debug)]
pub struct Model {
    records: Records,
    memory: Memory,
    accounts: Accounts,
    grants: Grants,
    places: Places,
    sessions: Sessions,
    /// Logic servers that were told to end.
    closing: BTreeSet<usize>,
    silence: Silence,
    recovery: Recovery,
    stillness: Stillness,
    /// Balancers and conn servers that stand still, or have not read yet what came meanwhile.
    stopped: BTreeSet<Process>,
    /// When one last went on after it had stood still.
    went_on_ms: BTreeMap<Process, u64>,
    /// Logins at a balancer, by their connection.
    logins: Waits<(usize, Stream)>,
    /// Logins at a conn server, by link and request.
    decisions: Waits<(usize, LinkId, u64)>,
    /// Broken where nobody could be told at once.
    broken: Option<Broken>,
    pub attaches: u64,
    pub acks: u64,
}

impl Model {
    /// `devices` are also those that share their account with another.
    pub fn new(plan: &Plan, devices: usize) -> Self {
        Self {
            records: Records::default(),
            memory: Memory::new(plan),
            accounts: Accounts::default(),
            grants: Grants::default(),
            places: Places::new(plan.places_max),
            sessions: Sessions::default(),
            closing: BTreeSet::new(),
            silence: Silence::default(),
            recovery: Recovery::new(devices),
            stillness: Stillness::default(),
            stopped: BTreeSet::new(),
            went_on_ms: BTreeMap::new(),
            logins: Waits::new(LOGIN_ANSWERED_WITHIN_MS),
            decisions: Waits::new(LOGIN_DECIDED_WITHIN_MS),
            broken: None,
            attaches: 0,
            acks: 0,
        }
    }

    // ---- records ------------------------------------------------------------------------------

    /// A device sends a record for the first time.
    pub fn record_sent(&mut self, account_id: AccountId, record: SentRecord) {
        self.records.sent(account_id, record, false);
    }

    /// The same of a device that may be gone, or sent away, before its record is acknowledged: if
    /// it is stored it is what was sent, and nobody waits for it.
    pub fn record_sent_in_vain(&mut self, account_id: AccountId, record: SentRecord) {
        self.records.sent(account_id, record, true);
    }

    /// A row is new in the store.
    ///
    /// # Errors
    /// P2 or P3 is broken.
    pub fn row_stored(&mut self, key: Key, stored: Stored, store: &Store) -> Result<(), Broken> {
        self.records.row_stored(key, stored, store)
    }

    /// A server says `stored` for `count` records from `base_seq` on.
    ///
    /// # Errors
    /// P1 is broken.
    pub fn ack_leaves(
        &mut self,
        account_id: AccountId,
        base_seq: u64,
        count: u8,
        store: &Store,
    ) -> Result<(), Broken> {
        self.acks += 1;
        self.records
            .acknowledged(account_id, base_seq, count, store)
    }

    /// At the end of a quiet run every record that was sent is acknowledged and stored.
    ///
    /// # Errors
    /// One that is not.
    pub fn check_at_rest(&self, store: &Store) -> Result<(), Broken> {
        self.records.check_at_rest(self.accounts.removed(), store)
    }

    /// Whether the table `sessions` shows as present what is attached, of the accounts up to this
    /// one, and nothing else.
    ///
    /// # Errors
    /// Where they differ.
    pub fn check_presence(&self, last: AccountId, store: &Store) -> Result<(), Broken> {
        let attached: BTreeSet<_> = self
            .sessions
            .attached()
            .map(|session| (session.account_id, session.epoch, session.node))
            .filter(|(account_id, ..)| *account_id <= last)
            .collect();
        let present: BTreeSet<_> = store
            .present()
            .filter(|(account_id, ..)| *account_id <= last)
            .collect();
        if attached == present {
            return Ok(());
        }
        let differ: Vec<_> = attached.symmetric_difference(&present).collect();
        Err(Broken::new(
            "presence",
            format_args!("attached and table differ in {differ:?}"),
        ))
    }

    /// Records that were sent in all.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    // ---- memory -------------------------------------------------------------------------------

    /// What a core keeps.
    ///
    /// # Errors
    /// P6 is broken.
    pub fn holds(&self, keeper: Keeper, held: &[(&'static str, usize)]) -> Result<(), Broken> {
        self.memory.check(keeper, held)
    }

    /// The same where nobody can be told at once.
    pub fn note_held(&mut self, keeper: Keeper, held: &[(&'static str, usize)]) {
        if let Err(broken) = self.memory.check(keeper, held) {
            self.broken.get_or_insert(broken);
        }
    }

    // ---- grants and sessions ------------------------------------------------------------------

    /// A conn server asks for a grant of this epoch.
    ///
    /// # Errors
    /// P5 or F23 is broken.
    pub fn published(
        &mut self,
        conn: usize,
        grant: &Grant,
        now_ms: u64,
        healed_at_ms: Option<u64>,
    ) -> Result<(), Broken> {
        let (account_id, epoch) = (grant.account_id, grant.epoch);
        self.sessions
            .published(conn, account_id, epoch, now_ms, healed_at_ms)?;
        match healed_at_ms {
            Some(healed_at_ms) if now_ms > healed_at_ms + REVOKED_MS => {
                self.check_version(grant, REVOKED_MS, now_ms)
            }
            _ => Ok(()),
        }
    }

    /// A logic server acknowledged a grant.
    ///
    /// # Errors
    /// P9 or L5 is broken.
    pub fn granted(&mut self, node: usize, grant: &Grant, now_ms: u64) -> Result<(), Broken> {
        if self.closing.contains(&node) {
            let what = format_args!("node {node} grants after it was told to end");
            return Err(Broken::new("L5", what));
        }
        self.grants.expire(now_ms, &mut self.places);
        self.grants.open(node, grant, now_ms, &mut self.places);
        self.places.check(node)
    }

    /// A gate lets a connection in; `attach` is what it had read of it.
    ///
    /// # Errors
    /// P4, P5 or P9 is broken.
    pub fn admitted(
        &mut self,
        who: Admission,
        attach: Option<&Attach>,
        now_ms: u64,
    ) -> Result<(), Broken> {
        let Admission {
            stream,
            node,
            account_id,
            ..
        } = who;
        let admitted = self
            .grants
            .admit(who, attach, now_ms, &mut self.places)
            .map_err(|what| {
                Broken::new(
                    "P4",
                    format_args!("{stream:?} of {account_id} was admitted {what}"),
                )
            })?;
        self.places.session_began(node, account_id);
        let session = Session {
            account_id,
            node,
            epoch: admitted.epoch,
            account_version: admitted.account_version,
            is_told: false,
        };
        self.sessions.began(stream, session, now_ms)?;
        self.grants.expire(now_ms, &mut self.places);
        self.places.check(node)
    }

    /// A stream is told `ok`.
    ///
    /// # Errors
    /// P4 is broken.
    pub fn attached(
        &mut self,
        stream: Stream,
        heartbeat_s: u16,
        now_ms: u64,
    ) -> Result<(), Broken> {
        let Some(session) = self.sessions.told(stream) else {
            return Err(Broken::new(
                "P4",
                format_args!("{stream:?} is told ok and was not admitted"),
            ));
        };
        self.attaches += 1;
        self.silence
            .began(stream, session.node, heartbeat_s, now_ms);
        Ok(())
    }

    /// A session's server reads what its device sent.
    pub fn session_reads(&mut self, stream: Stream, bytes: &[u8], now_ms: u64) {
        self.silence.read(stream, bytes, now_ms);
    }

    /// An operator closes the session of this epoch.
    pub fn kicked(&mut self, epoch: Epoch) {
        self.sessions.kicked(epoch);
    }

    /// Whether anybody was ever granted this epoch.
    pub fn is_published(&self, epoch: Epoch) -> bool {
        self.sessions.is_published(epoch)
    }

    /// A Close leaves for a session.
    ///
    /// # Errors
    /// P5 or L1 is broken.
    pub fn closes(&self, stream: Stream, reason: CloseReason, now_ms: u64) -> Result<(), Broken> {
        match reason {
            CloseReason::Idle => self.silence.closes_idle(stream, now_ms),
            CloseReason::Replaced if self.is_revoked(stream) => Ok(()),
            CloseReason::Replaced => self.sessions.closes_replaced(stream),
            _ => Ok(()),
        }
    }

    /// Whether what let it in is over: its key was rotated.
    fn is_revoked(&self, stream: Stream) -> bool {
        let session = self.sessions.get(stream);
        session.is_some_and(|it| self.accounts.is_revoked(it.account_id, it.account_version))
    }

    /// Whether a node holds an open grant that admits from there.
    pub fn admits_from(&self, node: usize, source: IpAddr, now_ms: u64) -> bool {
        self.grants.admits_from(node, source, now_ms)
    }

    /// A stream is told `not_admitted` for this Attach.
    ///
    /// # Errors
    /// It was right in every part: somebody else used its ticket up.
    pub fn turned_away(
        &self,
        node: usize,
        source: IpAddr,
        attach: &Attach,
        now_ms: u64,
    ) -> Result<(), Broken> {
        // The gate has used a newer grant up already when its shard says so.
        match self.grants.is_right(node, source, attach, now_ms) {
            Some((account_id, epoch)) if epoch >= self.sessions.newest(account_id) => {
                Err(Broken::new(
                    "P4",
                    format_args!("{account_id} is not admitted with its own unused ticket"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// A conn server has sessions of an account ended that are older than this epoch.
    ///
    /// # Errors
    /// P5 is broken.
    pub fn ends_below(&self, account_id: AccountId, below: Epoch) -> Result<(), Broken> {
        self.sessions.ends_below(account_id, below)
    }

    /// The server let go of a stream: it closed it, or heard that it ended.
    pub fn ended(&mut self, stream: Stream) {
        self.silence.ended(stream);
        if let Some(session) = self.sessions.ended(stream) {
            self.places.session_ended(session.node, session.account_id);
        }
    }

    /// A logic server was told to end.
    pub fn closing(&mut self, node: usize) {
        self.closing.insert(node);
    }

    /// A logic server that was told to end has ended.
    ///
    /// # Errors
    /// L5 is broken: a device was not told.
    pub fn left(&mut self, node: usize) -> Result<(), Broken> {
        if let Some(session) = self
            .sessions
            .attached()
            .find(|session| session.node == node)
        {
            let what = format_args!("{session:?} was not told that its node ends");
            return Err(Broken::new("L5", what));
        }
        self.node_died(node);
        Ok(())
    }

    /// A logic server died: with its sessions and its grants.
    pub fn node_died(&mut self, node: usize) {
        self.closing.remove(&node);
        self.silence.node_died(node);
        self.sessions.node_died(node);
        self.grants.node_died(node);
        self.places.node_died(node);
    }

    /// A process stands still. Whoever waits for it, and not for those behind it, waits as long.
    pub fn stopped(&mut self, process: Process) {
        match process.tier {
            Tier::Logic => self.stillness.stopped(process.index),
            Tier::Conn | Tier::Balancer => drop(self.stopped.insert(process)),
        }
        self.forget_waits(process);
    }

    /// It goes on, and has read what waited for it.
    pub fn went_on(&mut self, process: Process, now_ms: u64) {
        match process.tier {
            Tier::Logic => self.stillness.went_on(process.index, now_ms),
            Tier::Conn | Tier::Balancer => {
                self.stopped.remove(&process);
                self.went_on_ms.insert(process, now_ms);
            }
        }
        self.forget_waits(process);
    }

    /// A process is gone, with whoever waited for it.
    pub fn died(&mut self, process: Process) {
        match process.tier {
            Tier::Logic => self.stillness.died(process.index),
            Tier::Conn | Tier::Balancer => drop(self.stopped.remove(&process)),
        }
        self.forget_waits(process);
    }

    fn forget_waits(&mut self, process: Process) {
        match process.tier {
            Tier::Balancer => self.logins.forget(|(index, _)| *index == process.index),
            Tier::Conn => self.decisions.forget(|(index, ..)| *index == process.index),
            Tier::Logic => {}
        }
    }

    /// Whether a conn server and a logic server can speak with one another: called again and again,
    /// or when it changes.
    pub fn linked(&mut self, conn: usize, node: usize, stands: bool, now_ms: u64) {
        self.sessions.linked(conn, node, stands, now_ms);
    }

    // ---- accounts -----------------------------------------------------------------------------

    /// An account was switched off, given a new key, or removed (`u32::MAX`).
    pub fn account_changed(&mut self, account_id: AccountId, below_version: u32, now_ms: u64) {
        self.accounts.changed(account_id, below_version, now_ms);
    }

    /// Until when a change of an account may still come into effect somewhere, from this heal.
    pub fn in_doubt_until_ms(&self, account_id: AccountId, healed_at_ms: u64) -> Option<u64> {
        let is_in_doubt = self.accounts.is_in_doubt(account_id);
        is_in_doubt.then_some(healed_at_ms + REVOKED_MS)
    }

    /// Accounts that are gone for good.
    pub fn removed(&self) -> usize {
        self.accounts.removed().len()
    }

    /// A node was told: the grants are gone.
    pub fn grants_revoked(&mut self, node: usize, account_id: AccountId, below_version: u32) {
        self.grants
            .revoked(node, account_id, below_version, &mut self.places);
    }

    /// No grant is asked for under a version that was over so long ago.
    ///
    /// # Errors
    /// F23 is broken.
    pub fn check_version(&self, grant: &Grant, within_ms: u64, now_ms: u64) -> Result<(), Broken> {
        self.accounts.check_version(grant, within_ms, now_ms)
    }

    // ---- logins -------------------------------------------------------------------------------

    /// A balancer has read a whole Login.
    pub fn login_read(&mut self, balancer: usize, stream: Stream, now_ms: u64) {
        self.logins.asked((balancer, stream), now_ms);
    }

    /// A balancer answers.
    pub fn login_answered(
        &mut self,
        balancer: usize,
        stream: Stream,
        status: LoginStatus,
        retry_after_ms: u32,
    ) {
        self.logins.over((balancer, stream));
        if status == LoginStatus::Full && retry_after_ms == 0 {
            self.broken.get_or_insert(Broken::new(
                "P9",
                format_args!("{stream:?} is told full and not when to come back"),
            ));
        }
    }

    /// Whoever logged in is not there any more.
    pub fn login_gone(&mut self, balancer: usize, stream: Stream) {
        self.logins.over((balancer, stream));
    }

    /// A conn server was given a login to decide.
    pub fn decision_asked(&mut self, conn: usize, link: LinkId, request: u64, now_ms: u64) {
        self.decisions.asked((conn, link, request), now_ms);
    }

    pub fn decided(&mut self, conn: usize, link: LinkId, request: u64) {
        self.decisions.over((conn, link, request));
    }

    /// A link broke, or one of its ends died: nobody waits for an answer by it.
    pub fn link_gone(&mut self, link: LinkId) {
        self.decisions.forget(|(_, asked_by, _)| *asked_by == link);
    }

    /// A balancer gives a login to a conn server: as [`Self::grant_asked`].
    pub fn login_given(&mut self, balancer: usize, broke_at_ms: Option<u64>, now_ms: u64) {
        let by = Process::balancer(balancer);
        if let Err(broken) = self.asked_by_link(by, broke_at_ms, now_ms) {
            self.broken.get_or_insert(broken);
        }
    }

    /// A conn server asks a logic server for a grant. `broke_at_ms`: when the link between them
    /// broke, if it did.
    ///
    /// # Errors
    /// L3 is broken.
    pub fn grant_asked(
        &self,
        conn: usize,
        broke_at_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), Broken> {
        self.asked_by_link(Process::conn(conn), broke_at_ms, now_ms)
    }

    fn asked_by_link(
        &self,
        by: Process,
        broke_at_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), Broken> {
        if self.stopped.contains(&by) {
            // It has still to read that the link broke.
            return Ok(());
        }
        let went_on_ms = self.went_on_ms.get(&by).copied();
        let broke_at_ms = broke_at_ms.map(|it| it.max(went_on_ms.unwrap_or_default()));
        if broke_at_ms.is_some_and(|at_ms| now_ms > at_ms + LINK_KNOWN_LOST_WITHIN_MS) {
            return Err(Broken::new(
                "L3",
                format_args!("{by} gives a login to a link that broke: {broke_at_ms:?} ms"),
            ));
        }
        Ok(())
    }

    // ---- devices ------------------------------------------------------------------------------

    /// A device tells what happened to it.
    ///
    /// # Errors
    /// L2 is broken, or it waits longer than the contract lets it.
    pub fn device_told(&mut self, index: usize, told: &Event, now_ms: u64) -> Result<(), Broken> {
        self.recovery.told(index, told, now_ms)
    }

    /// Whether a device is attached and waits for no acknowledgement.
    pub fn device_rests(&mut self, index: usize, is_at_rest: bool) {
        self.recovery.rests(index, is_at_rest);
    }

    /// The store refused a write for what is in it.
    pub fn store_refused(&mut self, now_ms: u64) {
        self.recovery.refused(now_ms);
    }

    /// Faults are over, and every process and every link stands.
    pub fn healed(&mut self, now_ms: u64, situation: impl Fn(usize) -> Situation) {
        self.recovery.healed(now_ms, situation);
    }

    /// Every device has come back and is at rest.
    pub fn is_recovered(&self) -> bool {
        self.recovery.is_over()
    }

    /// Whether its server has a session on this stream.
    pub fn has_session(&self, stream: Stream) -> bool {
        self.sessions.get(stream).is_some()
    }

    /// Checks what time alone can break. `healed_at_ms`: since when every process and every link
    /// between them stands.
    ///
    /// # Errors
    /// P5, P6, P9, F23, L1, L2 or L3 is broken.
    pub fn check(&mut self, now_ms: u64, healed_at_ms: Option<u64>) -> Result<(), Broken> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        if let Some(healed_at_ms) = healed_at_ms {
            self.accounts.check(now_ms, healed_at_ms, &self.sessions)?;
        }
        self.sessions.check(now_ms, &self.stillness)?;
        self.silence.check(now_ms, &self.stillness)?;
        self.recovery.check(now_ms)?;
        if let Some((_, stream)) = self.logins.overdue(now_ms) {
            return Err(Broken::new(
                "L3",
                format_args!("the login of {stream:?} is not answered in 6 s"),
            ));
        }
        if let Some(asked) = self.decisions.overdue(now_ms) {
            return Err(Broken::new(
                "L3",
                format_args!("the login {asked:?} is not decided in 3 s"),
            ));
        }
        Ok(())
    }
}
