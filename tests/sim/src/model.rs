//! The judge. It knows the contract and what devices and store show, and asks no core.
//!
//! | promise | where it is checked |
//! | --- | --- |
//! | P1 no acknowledged loss | when `stored` leaves a server, every record of the frame is in the store |
//! | P2 no duplicate | no record has two rows |
//! | P3 no mix-up | a row equals what the device of that account sent |
//! | P4 gate | an AttachReply `ok` follows a right Attach with a ticket granted for that node, unexpired, unused |
//! | P5 one current session | of two sessions of an account the older is closed within 1 s, 5 s after a heal, and never the newest; epochs only grow |
//! | F23 revocation | within 5 s, from the heal where it was cut off, no session and no grant is left of what a change of an account ends |
//! | L5 shutdown | a logic server that was told to end grants nothing more and leaves no device untold |
//! | P9 capacity | sessions and open grants of a node, by account, never exceed its places |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use common::device::attach::Attach;
use common::epoch::Epoch;
use common::ids::{AccountId, Ticket};
use common::link::message::Grant;
use common::secret::SessionKey;
use simulator::device::SentRecord;

use crate::network::Stream;
use crate::store::{Key, Store, Stored};

/// A promise that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    fn new(promise: &str, what: impl std::fmt::Display) -> Self {
        Self(format!("{promise}: {what}"))
    }
}

/// An older session may live so long beside a newer one whose node can be reached.
const OLDER_SESSION_MS: u64 = 1_000;
/// The same, from the heal of a cut.
const OLDER_SESSION_AFTER_HEAL_MS: u64 = 5_000;

/// A change of an account is in effect everywhere within this, from the heal where it was cut off.
const REVOKED_MS: u64 = 5_000;

#[derive(Debug)]
struct GrantSeen {
    node: usize,
    account_id: AccountId,
    session_key: SessionKey,
    /// `None`: it admits from anywhere.
    source: Option<IpAddr>,
    epoch: Epoch,
    account_version: u32,
    /// Counts grants in the order in which nodes acknowledged them.
    order: u64,
    expires_at_ms: u64,
    /// When the gate took an Attach with it; its shard tells the device later.
    proven_at_ms: Option<u64>,
    is_used: bool,
}

#[derive(Clone, Copy, Debug)]
struct SessionSeen {
    account_id: AccountId,
    node: usize,
    epoch: Epoch,
    account_version: u32,
}

/// What was granted to an account under a version below this one is over since then.
#[derive(Clone, Copy, Debug)]
struct Revoked {
    below_version: u32,
    since_ms: u64,
}

/// Open grants of one account on one node.
const GRANTS_PER_ACCOUNT_MAX: usize = 4;

/// What the judge remembers.
#[derive(Debug, Default)]
pub struct Model {
    places_max: usize,
    /// Per account: every record that was ever sent, by sequence number.
    sent: HashMap<AccountId, BTreeMap<u64, SentRecord>>,
    /// Records of devices that may be gone before they are acknowledged.
    uncertain: BTreeSet<(AccountId, u64)>,
    /// Per account: sequence numbers that the device was told are stored.
    acknowledged: HashMap<AccountId, BTreeSet<u64>>,
    grants: HashMap<[u8; 16], GrantSeen>,
    /// Sessions as their streams show: from AttachReply `ok` until the server lets go.
    sessions: BTreeMap<Stream, SessionSeen>,
    /// Since when an account has more than one session.
    contested: HashMap<AccountId, u64>,
    granted: u64,
    /// The highest epoch that each conn server ever published, over all its lives.
    highest: BTreeMap<usize, Epoch>,
    published: HashSet<Epoch>,
    /// The newest epoch of each account that took effect, and when.
    newest: HashMap<AccountId, (Epoch, u64)>,
    /// By account, the oldest first.
    revoked: BTreeMap<AccountId, Vec<Revoked>>,
    /// Of them, those that are not known to be in effect everywhere.
    in_doubt: BTreeMap<AccountId, Revoked>,
    removed: BTreeSet<AccountId>,
    /// Logic servers that were told to end.
    closing: BTreeSet<usize>,
    pub attaches: u64,
    pub acks: u64,
}

impl Model {
    pub fn new(places_max: u32) -> Self {
        Self {
            places_max: places_max as usize,
            ..Self::default()
        }
    }

    // ---- records ------------------------------------------------------------------------------

    /// A device sends a record for the first time.
    pub fn record_sent(&mut self, account_id: AccountId, record: SentRecord) {
        let before = self
            .sent
            .entry(account_id)
            .or_default()
            .insert(record.seq, record);
        assert!(
            before.is_none(),
            "the simulated device used a sequence number twice"
        );
    }

    /// The same of a device that may be gone, or sent away, before its record is acknowledged: if
    /// it is stored it is what was sent, and nobody waits for it.
    pub fn record_sent_in_vain(&mut self, account_id: AccountId, record: SentRecord) {
        self.uncertain.insert((account_id, record.seq));
        self.record_sent(account_id, record);
    }

    /// A row is new in the store.
    ///
    /// # Errors
    /// P2 or P3 is broken.
    pub fn row_stored(&self, key: Key, stored: Stored, store: &Store) -> Result<(), Broken> {
        let sent = self
            .sent
            .get(&key.account_id)
            .and_then(|sent| sent.get(&key.seq));
        let Some(sent) = sent else {
            return Err(Broken::new("P3", format_args!("{key:?} was never sent")));
        };
        if sent.recorded_at_ms != key.recorded_at_ms || sent.digest != stored.digest {
            return Err(Broken::new(
                "P3",
                format_args!("{key:?} is not what was sent: {sent:?}"),
            ));
        }
        if store.rows_of(key.account_id, key.seq).count() != 1 {
            return Err(Broken::new("P2", format_args!("{key:?} has two rows")));
        }
        Ok(())
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
        for seq in base_seq..base_seq + u64::from(count) {
            let sent = self.sent.get(&account_id).and_then(|sent| sent.get(&seq));
            let Some(sent) = sent else {
                return Err(Broken::new(
                    "P1",
                    format_args!("{account_id} {seq} is acknowledged and was never sent"),
                ));
            };
            let key = Key {
                account_id,
                seq,
                recorded_at_ms: sent.recorded_at_ms,
            };
            if store.row(&key).is_none() {
                return Err(Broken::new(
                    "P1",
                    format_args!("{key:?} is acknowledged and not stored"),
                ));
            }
            self.acknowledged.entry(account_id).or_default().insert(seq);
        }
        Ok(())
    }

    // ---- grants and sessions ------------------------------------------------------------------

    /// A conn server asks for a grant of this epoch.
    ///
    /// # Errors
    /// P5 is broken: what a conn server publishes only grows, over restarts and clocks that are set
    /// back; no epoch is published twice; and where everybody can reach everybody, whatever their
    /// clocks show, a grant is newer than every session of the account that others know of.
    pub fn published(
        &mut self,
        conn: usize,
        grant: &Grant,
        now_ms: u64,
        healed_at_ms: Option<u64>,
    ) -> Result<(), Broken> {
        let (account_id, epoch) = (grant.account_id, grant.epoch);
        let broken = |what: &str, than: Epoch| {
            let what = format_args!("conn server {conn} publishes {epoch} {what} {than}");
            Err(Broken::new("P5", what))
        };
        let highest = self.highest.entry(conn).or_default();
        if epoch <= *highest {
            return broken("after", *highest);
        }
        *highest = epoch;
        if !self.published.insert(epoch) {
            return broken("a second time:", epoch);
        }
        if let Some((newest, at_ms)) = self.newest.get(&account_id)
            && epoch <= *newest
            && healed_at_ms.is_some_and(|healed_at_ms| healed_at_ms <= *at_ms)
            && now_ms > at_ms + OLDER_SESSION_MS
        {
            return broken("though everybody knows the attached", *newest);
        }
        let healed_ms = healed_at_ms.map(|healed_at_ms| now_ms - healed_at_ms);
        match healed_ms {
            Some(healed_ms) if healed_ms > REVOKED_MS => {
                self.check_version(grant, REVOKED_MS, now_ms)
            }
            _ => Ok(()),
        }
    }

    /// A logic server acknowledged a grant.
    ///
    /// # Errors
    /// P9 is broken.
    pub fn granted(&mut self, node: usize, grant: &Grant, now_ms: u64) -> Result<(), Broken> {
        if self.closing.contains(&node) {
            let what = format_args!("node {node} grants after it was told to end");
            return Err(Broken::new("L5", what));
        }
        self.granted += 1;
        self.grants.insert(
            *grant.ticket.expose(),
            GrantSeen {
                node,
                account_id: grant.account_id,
                session_key: grant.session_key,
                source: grant.source,
                epoch: grant.epoch,
                account_version: grant.account_version,
                order: self.granted,
                expires_at_ms: now_ms + u64::from(grant.ttl_ms),
                proven_at_ms: None,
                is_used: false,
            },
        );
        // A fifth open grant of an account drops its oldest.
        let mut open: Vec<_> = self
            .grants
            .iter()
            .filter(|(_, open)| {
                open.node == node && open.account_id == grant.account_id && !open.is_used
            })
            .filter(|(_, open)| now_ms < open.expires_at_ms)
            .map(|(ticket, open)| (open.order, *ticket))
            .collect();
        open.sort_unstable();
        for (_, ticket) in open.iter().rev().skip(GRANTS_PER_ACCOUNT_MAX) {
            self.grants.remove(ticket);
        }
        self.check_places(node, now_ms)
    }

    /// An Attach was proven: now its epoch takes effect, before its device is told so.
    pub fn proven(&mut self, ticket: &Ticket, account_id: AccountId, epoch: Epoch, now_ms: u64) {
        if let Some(grant) = self.grants.get_mut(ticket_bytes(ticket)) {
            grant.proven_at_ms.get_or_insert(now_ms);
        }
        let newest = self.newest.entry(account_id).or_default();
        if epoch > newest.0 {
            *newest = (epoch, now_ms);
        }
    }

    /// Whether a node holds an open grant that admits from there.
    pub fn admits_from(&self, node: usize, source: IpAddr, now_ms: u64) -> bool {
        let is_open = |grant: &GrantSeen| {
            grant.node == node && !grant.is_used && now_ms < grant.expires_at_ms
        };
        let admits = |grant: &GrantSeen| grant.source.is_none_or(|it| it == source);
        self.grants
            .values()
            .any(|grant| is_open(grant) && admits(grant))
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
        let Some(grant) = self.grants.get(ticket_bytes(&attach.ticket)) else {
            return Ok(());
        };
        // The gate has used a newer grant up already when its shard says so.
        let newest = self.newest.get(&grant.account_id);
        let is_newest = newest.is_none_or(|(epoch, _)| *epoch <= grant.epoch);
        let is_right = grant.node == node
            && !grant.is_used
            && now_ms < grant.expires_at_ms
            && grant.source.is_none_or(|it| it == source)
            && attach.verify(&grant.session_key);
        if is_right && is_newest {
            return Err(Broken::new(
                "P4",
                format_args!(
                    "{} is not admitted with its own unused ticket",
                    grant.account_id
                ),
            ));
        }
        Ok(())
    }

    /// A stream is told `ok`; `attach` is what the server had read of it.
    ///
    /// # Errors
    /// P4 is broken.
    pub fn attached(
        &mut self,
        (stream, source): (Stream, IpAddr),
        node: usize,
        account_id: AccountId,
        attach: Option<&Attach>,
        now_ms: u64,
    ) -> Result<(), Broken> {
        let broken = |what: &str| {
            Err(Broken::new(
                "P4",
                format_args!("{stream:?} of {account_id} was admitted {what}"),
            ))
        };
        let Some(attach) = attach else {
            return broken("without an Attach");
        };
        let Some(grant) = self.grants.get_mut(ticket_bytes(&attach.ticket)) else {
            return broken("with a ticket that nobody granted");
        };
        if grant.node != node {
            return broken("with the ticket of another node");
        }
        if grant.account_id != account_id {
            return broken("with another account's ticket");
        }
        if grant.source.is_some_and(|granted| granted != source) {
            return broken("from another address");
        }
        if grant.is_used {
            return broken("with a used ticket");
        }
        if grant.proven_at_ms.unwrap_or(now_ms) > grant.expires_at_ms {
            return broken("with an expired ticket");
        }
        if !attach.verify(&grant.session_key) {
            return broken("with a wrong proof");
        }
        grant.is_used = true;
        let (epoch, account_version) = (grant.epoch, grant.account_version);
        // An older grant on the same node cannot be used any more.
        self.grants.retain(|_, grant| {
            (grant.node, grant.account_id) != (node, account_id) || grant.epoch >= epoch
        });
        self.attaches += 1;
        let older = |session: &SessionSeen| session.node == node && session.epoch >= epoch;
        if let Some((_, newer)) = self.sessions_of(account_id).find(|(_, it)| older(it)) {
            let what = format_args!("{account_id} attached with {epoch} beside its {newer:?}");
            return Err(Broken::new("P5", what));
        }
        self.sessions.insert(
            stream,
            SessionSeen {
                account_id,
                node,
                epoch,
                account_version,
            },
        );
        if self.sessions_of(account_id).count() > 1 {
            self.contested.entry(account_id).or_insert(now_ms);
        }
        self.check_places(node, now_ms)
    }

    /// A stream is told `Close(replaced)`.
    ///
    /// # Errors
    /// P5 is broken: nothing ends the current session but a newer one.
    pub fn replaced(&self, stream: Stream) -> Result<(), Broken> {
        let Some(session) = self.sessions.get(&stream) else {
            return Ok(());
        };
        if let Some(revoked) = self.revoked.get(&session.account_id)
            && revoked
                .iter()
                .any(|it| session.account_version < it.below_version)
        {
            // Its key was rotated.
            return Ok(());
        }
        let newest = self.newest.get(&session.account_id);
        if newest.is_none_or(|(newest, _)| *newest <= session.epoch) {
            let what = format_args!("{session:?} is replaced, and none is newer");
            return Err(Broken::new("P5", what));
        }
        Ok(())
    }

    /// The server let go of a stream: it closed it, or heard that it ended.
    pub fn ended(&mut self, stream: Stream) {
        if let Some(session) = self.sessions.remove(&stream)
            && self.sessions_of(session.account_id).count() < 2
        {
            self.contested.remove(&session.account_id);
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
        let mut sessions = self.sessions.values();
        if let Some(session) = sessions.find(|session| session.node == node) {
            let what = format_args!("{session:?} was not told that its node ends");
            return Err(Broken::new("L5", what));
        }
        self.node_died(node);
        Ok(())
    }

    /// A logic server died: with its sessions and its grants.
    pub fn node_died(&mut self, node: usize) {
        self.closing.remove(&node);
        self.grants.retain(|_, grant| grant.node != node);
        let gone: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.node == node)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in gone {
            self.ended(stream);
        }
    }

    /// Checks what time alone can break. `healed_at_ms`: since when every process and every link
    /// between them stands.
    ///
    /// # Errors
    /// P5 is broken.
    pub fn check(&mut self, now_ms: u64, healed_at_ms: Option<u64>) -> Result<(), Broken> {
        let Some(healed_at_ms) = healed_at_ms else {
            return Ok(());
        };
        self.check_revoked(now_ms, healed_at_ms)?;
        for (account_id, since_ms) in &self.contested {
            let due_ms =
                (since_ms + OLDER_SESSION_MS).max(healed_at_ms + OLDER_SESSION_AFTER_HEAL_MS);
            if now_ms > due_ms {
                let sessions: Vec<_> = self.sessions_of(*account_id).collect();
                return Err(Broken::new(
                    "P5",
                    format_args!("two sessions since {since_ms} ms: {sessions:?}"),
                ));
            }
        }
        Ok(())
    }

    // ---- accounts -----------------------------------------------------------------------------

    /// An account was switched off, given a new key, or removed (`u32::MAX`).
    pub fn account_changed(&mut self, account_id: AccountId, below_version: u32, now_ms: u64) {
        let revoked = Revoked {
            below_version,
            since_ms: now_ms,
        };
        self.revoked.entry(account_id).or_default().push(revoked);
        // Of two changes within the time both must be in effect when the later one is.
        self.in_doubt.insert(account_id, revoked);
        if below_version == u32::MAX {
            self.removed.insert(account_id);
        }
    }

    /// Accounts that are gone for good.
    pub fn removed(&self) -> usize {
        self.removed.len()
    }

    /// A node was told: the grants are gone. A session that it has admitted begins and ends.
    pub fn grants_revoked(&mut self, node: usize, account_id: AccountId, below_version: u32) {
        self.grants.retain(|_, grant| {
            (grant.node, grant.account_id) != (node, account_id)
                || grant.account_version >= below_version
                || grant.proven_at_ms.is_some()
        });
    }

    /// No grant is asked for under a version that was over so long ago.
    ///
    /// # Errors
    /// F23 is broken.
    pub fn check_version(&self, grant: &Grant, within_ms: u64, now_ms: u64) -> Result<(), Broken> {
        let version = grant.account_version;
        let is_over =
            |it: &&Revoked| version < it.below_version && now_ms > it.since_ms + within_ms;
        let mut revoked = self.revoked.get(&grant.account_id).into_iter().flatten();
        match revoked.find(is_over) {
            Some(it) => {
                let account_id = grant.account_id;
                let what =
                    format_args!("a grant to {account_id} of version {version} after {it:?}");
                Err(Broken::new("F23", what))
            }
            None => Ok(()),
        }
    }

    /// What has to be in effect everywhere by now is.
    fn check_revoked(&mut self, now_ms: u64, healed_at_ms: u64) -> Result<(), Broken> {
        let is_due = |it: &Revoked| now_ms > it.since_ms.max(healed_at_ms) + REVOKED_MS;
        let due: Vec<_> = self
            .in_doubt
            .extract_if(.., |_, revoked| is_due(revoked))
            .collect();
        for (account_id, revoked) in due {
            let mut sessions = self.sessions_of(account_id);
            let stale = sessions.find(|(_, it)| it.account_version < revoked.below_version);
            if let Some((stream, session)) = stale {
                let what = format_args!("{stream:?} {session:?} lives, {revoked:?}");
                return Err(Broken::new("F23", what));
            }
        }
        Ok(())
    }

    /// Accounts with a session or an open grant on the node, each once.
    fn check_places(&self, node: usize, now_ms: u64) -> Result<(), Broken> {
        let sessions = self
            .sessions
            .values()
            .filter(|session| session.node == node);
        let grants = self
            .grants
            .values()
            .filter(|grant| grant.node == node && !grant.is_used && now_ms < grant.expires_at_ms);
        let accounts: BTreeSet<_> = sessions
            .map(|session| session.account_id)
            .chain(grants.map(|grant| grant.account_id))
            .collect();
        if accounts.len() > self.places_max {
            return Err(Broken::new(
                "P9",
                format_args!(
                    "node {node} has {} of {} places in use",
                    accounts.len(),
                    self.places_max
                ),
            ));
        }
        Ok(())
    }

    fn sessions_of(&self, account_id: AccountId) -> impl Iterator<Item = (&Stream, &SessionSeen)> {
        self.sessions
            .iter()
            .filter(move |(_, session)| session.account_id == account_id)
    }

    /// At the end of a quiet run every record that was sent is acknowledged and stored.
    ///
    /// # Errors
    /// One that is not.
    pub fn check_at_rest(&self, store: &Store) -> Result<(), Broken> {
        let mut rows = 0;
        for (account_id, sent) in &self.sent {
            let acknowledged = self.acknowledged.get(account_id);
            for (seq, record) in sent {
                let key = Key {
                    account_id: *account_id,
                    seq: *seq,
                    recorded_at_ms: record.recorded_at_ms,
                };
                if self.uncertain.contains(&(*account_id, *seq)) {
                    rows += usize::from(store.row(&key).is_some());
                    continue;
                }
                if self.removed.contains(account_id) {
                    // It was not let in any more to send the rest.
                    rows += usize::from(store.row(&key).is_some());
                    continue;
                }
                if store.row(&key).is_none() {
                    return Err(Broken::new(
                        "L2",
                        format_args!("{key:?} was sent and is not stored at the end"),
                    ));
                }
                if !acknowledged.is_some_and(|acknowledged| acknowledged.contains(seq)) {
                    return Err(Broken::new(
                        "L2",
                        format_args!("{key:?} was never acknowledged"),
                    ));
                }
                rows += 1;
            }
        }
        if rows != store.len() {
            return Err(Broken::new(
                "P2",
                format_args!("{rows} records were sent, {} rows are stored", store.len()),
            ));
        }
        Ok(())
    }

    /// Whether the table `sessions` shows as present what is attached, of the accounts up to this
    /// one, and nothing else.
    ///
    /// # Errors
    /// Where they differ.
    pub fn check_presence(&self, last: AccountId, store: &Store) -> Result<(), Broken> {
        let attached: BTreeSet<_> = self
            .sessions
            .values()
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
        self.sent.values().map(BTreeMap::len).sum()
    }
}

fn ticket_bytes(ticket: &Ticket) -> &[u8; 16] {
    ticket.expose()
}
