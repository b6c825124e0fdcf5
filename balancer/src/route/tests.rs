use common::epoch::Epoch;
use common::ids::Nonce;
use common::link::message::ConnLoad;
use common::secret::Secret;
use proptest::prelude::*;
use protocols::rcu::frame::Parsed;

use super::*;

const A: LinkId = LinkId(1);
const B: LinkId = LinkId(2);
const UNIX_MS: u64 = 1_767_225_600_000;
/// What the contract and DESIGN.md promise.
const ANSWERED_WITHIN_MS: u64 = 6_000;

struct Door {
    core: Core,
    now: u64,
    connections: u64,
    /// Why devices were not let in.
    explained: Vec<&'static str>,
}

fn settings() -> RouteSettings {
    RouteSettings {
        conn_servers: vec!["a:1".into(), "b:1".into()],
        policy: Policy::Fill,
        connections_max: 1_000,
        connections_per_source_max: 1_000,
        logins_open_max: 1_000,
        logins_at_full_max: 2,
        in_all: Rate::UNLIMITED,
        per_source: Rate::UNLIMITED,
        sources_max: 100,
    }
}

fn source() -> IpAddr {
    "::ffff:10.0.0.1".parse().expect("an address")
}

fn body() -> Vec<u8> {
    let account = "a-1".parse().expect("a name");
    let mut frame = Vec::new();
    Login::sign(
        &account,
        "1.0",
        UNIX_MS,
        Nonce([1; 16]),
        &Secret::new([2; 32]),
    )
    .encode(1, &mut frame);
    frame.split_off(frame::HEADER_BYTES)
}

/// The body of a reply as a conn server makes it.
fn answer(verdict: LoginVerdict<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    let reply = LoginReply {
        retry_after_ms: 7,
        server_time_ms: 8,
        verdict,
    };
    reply.encode(1, &mut frame);
    frame.split_off(frame::HEADER_BYTES)
}

impl Door {
    fn new(settings: RouteSettings) -> Self {
        Self {
            core: Core::new(settings, 1),
            now: 10_000,
            connections: 0,
            explained: Vec::new(),
        }
    }

    /// With both conn servers linked, A before B.
    fn with(settings: RouteSettings, free_a: u32, free_b: u32) -> Self {
        let mut door = Self::new(settings);
        for (link, target, places_free) in [(A, "a:1", free_a), (B, "b:1", free_b)] {
            door.up(link, target);
            door.report(link, places_free);
        }
        door
    }

    fn apply(&mut self, input: Input) -> Vec<Effect> {
        let now = Now {
            ms: self.now,
            unix_ms: UNIX_MS,
        };
        let mut effects = Vec::new();
        self.core.apply(input, now, &mut effects);
        let explains = |it: &mut Effect| matches!(it, Effect::Explain { .. });
        for explained in effects.extract_if(.., explains) {
            if let Effect::Explain { source: from, why } = explained {
                assert_eq!(from, source().to_canonical());
                self.explained.push(why);
            }
        }
        effects
    }

    fn up(&mut self, link: LinkId, target: &str) {
        let peer = Peer {
            role: Role::Conn,
            node: "conn".parse().expect("a name"),
            version: 1,
            address: "127.0.0.1:1".parse().expect("an address"),
            target: Some(target.into()),
        };
        assert_eq!(self.apply(Input::Link(LinkEvent::Up { link, peer })), []);
    }

    fn down(&mut self, link: LinkId) -> Vec<Effect> {
        let why = String::new();
        self.apply(Input::Link(LinkEvent::Down { link, why }))
    }

    fn report(&mut self, link: LinkId, places_free: u32) {
        let load = ConnLoad {
            places_free,
            places_max: 100,
            logins_open: 0,
        };
        let notice = LinkEvent::Notice {
            link,
            message: load.into(),
            epoch: Epoch::ZERO,
        };
        assert_eq!(self.apply(Input::Link(notice)), []);
    }

    fn answered(&mut self, link: LinkId, id: u64, body: Vec<u8>) -> Vec<Effect> {
        self.apply(Input::Link(LinkEvent::Answer {
            link,
            id,
            message: LoginAnswer { body }.into(),
            epoch: Epoch::ZERO,
        }))
    }

    fn accept(&mut self) -> (ConnectionId, Vec<Effect>) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let source = source();
        let effects = self.apply(Input::Accepted { connection, source });
        (connection, effects)
    }

    fn say(&mut self, connection: ConnectionId, body: Vec<u8>) -> Vec<Effect> {
        self.apply(Input::Login {
            connection,
            source: source(),
            frame_id: 300,
            body,
        })
    }

    /// A new device says its Login.
    fn login(&mut self) -> Vec<Effect> {
        let (connection, effects) = self.accept();
        assert_eq!(effects, []);
        self.say(connection, body())
    }

    fn tick_after(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        self.apply(Input::Tick)
    }

    fn count(&self, counter: Counter) -> u64 {
        self.core.counters().of(counter)
    }
}

/// The one request among the effects, which must be all.
fn requested(effects: &[Effect]) -> (LinkId, u64) {
    match effects {
        [
            Effect::Request {
                link,
                id,
                deadline_ms,
                login,
            },
        ] => {
            assert_eq!(*deadline_ms, TRY_MS);
            assert_eq!(login.body, body());
            assert_eq!(login.source, source().to_canonical());
            (*link, *id)
        }
        other => panic!("{other:?} instead of a request"),
    }
}

/// Status and retry_after_ms of the one reply among the effects, which must be all.
fn replied(effects: &[Effect]) -> (LoginStatus, u32) {
    let [Effect::Reply { frame, .. }] = effects else {
        panic!("{effects:?} instead of a reply");
    };
    let Ok(Parsed::Frame { frame, .. }) = frame::parse(frame, 512) else {
        panic!("no frame");
    };
    assert_eq!((frame.kind, frame.id), (kind::LOGIN_REPLY, 300));
    let reply = LoginReply::decode_body(frame.body).expect("a reply");
    (reply.status(), reply.retry_after_ms)
}

fn assert_busy(effects: &[Effect]) {
    let (status, retry_after_ms) = replied(effects);
    assert_eq!(status, LoginStatus::Busy);
    assert!(retry_after_ms >= 1_000, "{retry_after_ms}");
}

#[test]
fn an_answer_is_relayed_as_it_is() {
    let mut door = Door::with(settings(), 9, 9);
    let (link, id) = requested(&door.login());
    assert_eq!(link, A);
    let effects = door.answered(A, id, answer(LoginVerdict::Refused));
    assert_eq!(replied(&effects), (LoginStatus::Refused, 7));
    assert_eq!(door.core.next_deadline(), None);
    assert_eq!(door.count(Counter::Refused), 1);
}

#[test]
fn a_conn_server_that_does_not_answer_is_left_for_another_and_its_late_answer_ignored() {
    let mut door = Door::with(settings(), 9, 9);
    let (_, first) = requested(&door.login());
    assert_eq!(door.core.next_deadline(), Some(door.now + 2_500));
    assert_eq!(door.tick_after(2_499), []);
    let (link, second) = requested(&door.tick_after(1));
    assert_eq!(link, B);
    assert_eq!(requested(&door.login()).0, B, "A is passed over");

    assert_eq!(door.answered(A, first, answer(LoginVerdict::Refused)), []);
    assert_eq!(requested(&door.login()).0, A, "A is there again");
    let effects = door.answered(B, second, answer(LoginVerdict::Refused));
    assert_eq!(replied(&effects).0, LoginStatus::Refused);
    assert_eq!(door.count(Counter::AnswersIgnored), 1);
}

#[test]
fn two_silent_conn_servers_make_a_busy_within_6_s() {
    let mut door = Door::with(settings(), 9, 9);
    let asked_at = door.now;
    requested(&door.login());
    requested(&door.tick_after(2_600));
    assert_busy(&door.tick_after(2_600));
    assert!(door.now - asked_at <= ANSWERED_WITHIN_MS);
    assert_eq!(door.count(Counter::NoAnswer), 1);
}

#[test]
fn a_broken_link_gives_its_logins_to_the_other_at_once() {
    let mut door = Door::with(settings(), 9, 9);
    (0..3).for_each(|_| assert_eq!(requested(&door.login()).0, A));
    let effects = door.down(A);
    let retried = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Request { link: B, .. }));
    assert_eq!(retried.count(), 3);
    assert_eq!(door.count(Counter::TriesLinkLost), 3);
    let busy = door.down(B);
    assert_eq!(busy.len(), 3);
    busy.iter()
        .for_each(|effect| assert_busy(std::slice::from_ref(effect)));
}

#[test]
fn with_nobody_behind_the_door_it_is_busy_at_once() {
    let mut door = Door::new(settings());
    assert_busy(&door.login());
    door.up(A, "a:1");
    requested(&door.login());
    assert_busy(&door.down(A));
    assert_eq!(door.count(Counter::NoConnServer), 1);
    assert_eq!(door.count(Counter::NoAnswer), 1);
}

#[test]
fn full_is_asked_again_where_there_is_room_and_relayed_where_there_is_none() {
    let mut door = Door::with(settings(), 9, 9);
    let (_, first) = requested(&door.login());
    let (link, second) = requested(&door.answered(A, first, answer(LoginVerdict::Full)));
    assert_eq!(link, B);
    let effects = door.answered(B, second, answer(LoginVerdict::Full));
    assert_eq!(replied(&effects), (LoginStatus::Full, 7));

    // Both answered full: the next one is tried at one of them and believed.
    let (link, id) = requested(&door.login());
    let effects = door.answered(link, id, answer(LoginVerdict::Full));
    assert_eq!(replied(&effects).0, LoginStatus::Full);
}

#[test]
fn when_all_are_full_a_bounded_number_still_tries() {
    let mut door = Door::with(settings(), 0, 0);
    let (_, first) = requested(&door.login());
    requested(&door.login());
    assert_busy(&door.login());
    assert_eq!(door.count(Counter::TooManyAtFull), 1);
    let full = answer(LoginVerdict::Full);
    assert_eq!(replied(&door.answered(A, first, full)).0, LoginStatus::Full);
    requested(&door.login());
    door.report(B, 1);
    assert_eq!(requested(&door.login()).0, B, "room again");
}

#[test]
fn what_cannot_be_parsed_goes_no_further() {
    let mut door = Door::with(settings(), 9, 9);
    let (connection, _) = door.accept();
    let effects = door.say(connection, b"\x03a b\0".to_vec());
    assert_eq!(replied(&effects), (LoginStatus::Malformed, 0));
    assert_eq!(door.count(Counter::Malformed), 1);
    assert_eq!(door.explained, ["malformed"]);
}

#[test]
fn more_than_the_rate_is_told_when_to_come_back() {
    let rate = Rate { per_s: 1, burst: 2 };
    let mut door = Door::with(
        RouteSettings {
            in_all: rate,
            ..settings()
        },
        9,
        9,
    );
    requested(&door.login());
    requested(&door.login());
    let waits: Vec<u32> = (0..3).map(|_| replied(&door.login()).1).collect();
    for (wait_ms, place_ms) in waits.into_iter().zip([1_000, 2_000, 3_000]) {
        assert!(
            (place_ms..=place_ms * 5 / 4).contains(&wait_ms),
            "{wait_ms}"
        );
    }
    assert_eq!(door.count(Counter::PacedInAll), 3);
    assert_eq!(door.explained, ["paced_in_all"; 3]);
}

#[test]
fn no_more_logins_are_open_than_may_be() {
    let mut door = Door::with(
        RouteSettings {
            logins_open_max: 2,
            ..settings()
        },
        9,
        9,
    );
    requested(&door.login());
    requested(&door.login());
    assert_busy(&door.login());
    assert_eq!(door.core.logins_open(), 2);
}

#[test]
fn the_login_of_a_connection_that_had_to_go_is_nobodys() {
    let mut door = Door::with(
        RouteSettings {
            connections_max: 1,
            ..settings()
        },
        9,
        9,
    );
    let (first, _) = door.accept();
    let (second, effects) = door.accept();
    assert_eq!(effects, [Effect::Drop { connection: first }]);
    assert_eq!(door.say(first, body()), []);
    requested(&door.say(second, body()));
    let (third, effects) = door.accept();
    assert_eq!(effects, [Effect::Drop { connection: third }]);
    door.apply(Input::Ended {
        connection: second,
        how: End::Replied,
    });
    assert_eq!(door.accept().1, []);
    assert_eq!(door.explained, ["dropped_in_all", "turned_away_in_all"]);
}

#[test]
fn why_a_device_was_not_let_in_is_told_whoever_decided_it() {
    let mut door = Door::with(settings(), 9, 9);
    let (_, id) = requested(&door.login());
    door.answered(A, id, answer(LoginVerdict::Refused));
    let (connection, _) = door.accept();
    door.apply(Input::Ended {
        connection,
        how: End::ProtocolError(Breach::Crc),
    });
    let (connection, _) = door.accept();
    door.apply(Input::Ended {
        connection,
        how: End::AttachTimeout,
    });
    door.down(A);
    door.down(B);
    assert_busy(&door.login());
    assert_eq!(
        door.explained,
        ["refused", "frame_crc", "attach_timeout", "no_conn_server"]
    );
}

#[test]
fn an_answer_on_another_link_or_that_is_no_reply_is_not_relayed() {
    let mut door = Door::with(settings(), 9, 9);
    let (_, id) = requested(&door.login());
    assert_eq!(door.answered(B, id, answer(LoginVerdict::Refused)), []);
    let (link, _) = requested(&door.answered(A, id, vec![0, 1, 2]));
    assert_eq!(link, B, "tried again elsewhere");
    assert_eq!(door.count(Counter::AnswersIgnored), 2);
}

#[test]
fn at_shutdown_who_waits_is_answered_and_who_is_silent_dropped() {
    let mut door = Door::with(settings(), 9, 9);
    requested(&door.login());
    let (silent, _) = door.accept();
    let effects = door.apply(Input::Shutdown);
    assert_eq!(effects[0], Effect::Drop { connection: silent });
    assert_busy(&effects[1..]);
    let (late, effects) = door.accept();
    assert_eq!(effects, [Effect::Drop { connection: late }]);
    assert_eq!(door.core.next_deadline(), None);
}

proptest! {
    /// Whatever conn servers do, every Login is answered once, and in time.
    #[test]
    fn every_login_is_answered_once_and_within_6_s(
        steps in prop::collection::vec((0u8..9, 0u64..40, 0u64..300), 1..300),
    ) {
        let mut door = Door::with(settings(), 9, 9);
        let mut asked_at = BTreeMap::new();
        let mut links = [Some(A), Some(B)];
        let mut next_link = 3;
        let collect = |door: &Door, effects: Vec<Effect>, asked_at: &mut BTreeMap<ConnectionId, u64>| {
            for effect in effects {
                if let Effect::Reply { connection, .. } = effect {
                    let at = asked_at.remove(&connection).expect("answered once");
                    prop_assert!(door.now - at <= ANSWERED_WITHIN_MS);
                }
            }
            Ok(())
        };
        for (step, pick, gap_ms) in steps {
            door.now += gap_ms;
            let side = usize::from(pick % 2 == 1);
            let id = door.core.last_id.saturating_sub(pick / 2);
            let effects = match (step, links[side]) {
                (0..=3, _) => {
                    let (connection, _) = door.accept();
                    asked_at.insert(connection, door.now);
                    door.say(connection, body())
                }
                (4, Some(link)) => door.answered(link, id, answer(LoginVerdict::Refused)),
                (5, Some(link)) => door.answered(link, id, answer(LoginVerdict::Full)),
                (6, Some(link)) => {
                    door.report(link, u32::from(pick > 9));
                    vec![]
                }
                (7, Some(link)) => {
                    links[side] = None;
                    door.down(link)
                }
                (_, None) => {
                    let link = LinkId(next_link);
                    next_link += 1;
                    links[side] = Some(link);
                    door.up(link, ["a:1", "b:1"][side]);
                    vec![]
                }
                _ => vec![],
            };
            collect(&door, effects, &mut asked_at)?;
            let effects = door.apply(Input::Tick);
            collect(&door, effects, &mut asked_at)?;
        }
        while let Some(due_at) = door.core.next_deadline() {
            door.now = door.now.max(due_at);
            let effects = door.apply(Input::Tick);
            collect(&door, effects, &mut asked_at)?;
        }
        prop_assert!(asked_at.is_empty(), "never answered: {asked_at:?}");
        prop_assert_eq!(door.core.tries_at_full, 0);
    }
}
