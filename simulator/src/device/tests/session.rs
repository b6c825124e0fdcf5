//! Pure. The long connection: heartbeats, silence, and what each Close means.

use protocols::rcu::frame;
use protocols::rcu::kind;
use protocols::rcu::message::HeartbeatReply;

use super::*;

fn heartbeat_terms(heartbeat_s: u16) -> Terms<'static> {
    Terms {
        heartbeat_s,
        ..TERMS
    }
}

/// When the heartbeats of a session came, answering each.
fn heartbeats(bench: &mut Bench, count: usize) -> Vec<u64> {
    let mut times = vec![];
    while times.len() < count {
        let deadline_ms = bench.device.next_deadline(bench.now_ms).unwrap();
        bench.pass(deadline_ms - bench.now_ms);
        for sent in std::mem::take(&mut bench.sent) {
            assert_eq!(sent.message(), FromDevice::Heartbeat);
            times.push(bench.now_ms);
            let server_time_ms = bench.cluster_unix_ms();
            let reply = HeartbeatReply { server_time_ms };
            bench.say(sent.id, FromCluster::HeartbeatReply(reply));
        }
    }
    times
}

#[test]
fn heartbeats_begin_at_a_random_time_and_keep_their_pace() {
    let mut firsts = vec![];
    for seed in 0..50 {
        let mut bench = Bench::seeded(Settings::default(), seed);
        bench.apply(Input::StopReporting);
        bench.reach_session_with(heartbeat_terms(60));
        let attached_ms = bench.now_ms;
        let times = heartbeats(&mut bench, 5);
        firsts.push(times[0] - attached_ms);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 60_000));
    }
    firsts.sort_unstable();
    assert!(firsts[0] < 10_000 && firsts[49] > 50_000 && firsts[49] <= 60_000);
}

#[test]
fn a_heartbeat_outside_its_bounds_is_the_nearer_end() {
    for (heartbeat_s, taken_s) in [(0, 5), (4, 5), (5, 5), (3_600, 3_600), (u16::MAX, 3_600)] {
        let mut bench = Bench::new();
        bench.reach_session_with(heartbeat_terms(heartbeat_s));
        let times = heartbeats(&mut bench, 2);
        assert_eq!(times[1] - times[0], 1_000 * taken_s);
    }
}

#[test]
fn three_heartbeats_of_silence_are_a_lost_connection() {
    let mut bench = Bench::new();
    bench.reach_session_with(heartbeat_terms(10));
    let attached_ms = bench.now_ms;
    bench.pass(29_999);
    assert!(bench.device.is_attached());
    bench.pass(1);
    assert_eq!(bench.now_ms - attached_ms, 30_000);
    assert!(bench.events.contains(&Event::Ended { why: Fault::Silent }));
    assert_eq!(bench.disconnects.len(), 1);
    bench.expect_wait(Wait::Backoff, 0);
    assert!(bench.took_resolve());
}

#[test]
fn any_whole_frame_is_heard_and_a_part_of_one_is_not() {
    let mut bench = Bench::new();
    bench.reach_session_with(heartbeat_terms(10));
    let mut unknown = vec![];
    frame::write(0x70, 1, &mut unknown, |out| out.push(1));
    for _ in 0..4 {
        bench.pass(29_000);
        bench.say_bytes(&unknown);
        assert!(bench.told(Event::UnknownKindIgnored { kind: 0x70 }));
    }
    bench.pass(15_000);
    bench.say_bytes(&unknown[..5]);
    bench.pass(15_000);
    assert!(bench.told(Event::Ended { why: Fault::Silent }));
}

#[test]
fn the_clock_follows_heartbeat_replies() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.pass(60_000);
    let id = bench.take_sent().id;
    let server_time_ms = UNIX_MS + 10_000_000;
    let reply = HeartbeatReply { server_time_ms };
    // Not asked for: nobody's clock is set by that.
    bench.say(id + 1, FromCluster::HeartbeatReply(reply));
    assert!(bench.told(Event::AnswerIgnored {
        kind: kind::HEARTBEAT_REPLY
    }));
    bench.say(id, FromCluster::HeartbeatReply(reply));
    assert_eq!(bench.device.unix_ms(bench.now_ms), Some(server_time_ms));
    bench.say(id, FromCluster::HeartbeatReply(reply));
    assert!(bench.told(Event::AnswerIgnored {
        kind: kind::HEARTBEAT_REPLY
    }));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Resumes,
    LogsIn,
}

/// Reason → what the device does, where it holds a resumption and the Close names a wait or not.
#[test]
fn every_close_is_obeyed_as_its_table_says() {
    use CloseReason::*;
    use Then::*;
    let table = [
        (ProtocolError, LogsIn, false),
        (Idle, Resumes, false),
        (Replaced, LogsIn, false),
        (Disabled, LogsIn, true),
        (Shutdown, Resumes, false),
        (SlowReader, Resumes, false),
        (AttachTimeout, LogsIn, false),
        (CloneSuspected, LogsIn, true),
    ];
    assert_eq!(table.len(), CloseReason::ALL.len());
    for (reason, then, longest) in table {
        for retry_after_ms in [0, 7_000] {
            for terms in [TERMS, RESUMABLE] {
                let mut bench = Bench::new();
                bench.reach_session_with(terms);
                let conn = bench.device.conn().unwrap();
                bench.close(reason, retry_after_ms);
                assert_eq!(bench.disconnects, [conn]);
                let wait = match (longest, retry_after_ms) {
                    (true, _) => Wait::Longest,
                    (false, 0) => Wait::Backoff,
                    (false, _) => Wait::Told,
                };
                bench.expect_wait(wait, 7_000);
                if then == Resumes && terms == RESUMABLE {
                    assert_eq!(bench.take_connect(), logic_server(), "{reason}");
                } else {
                    assert!(bench.took_resolve(), "{reason}");
                }
            }
        }
    }
}

#[test]
fn an_unknown_close_is_idle() {
    let mut bench = Bench::new();
    bench.reach_session_with(RESUMABLE);
    let mut bytes = vec![];
    frame::write(kind::CLOSE, 0, &mut bytes, |out| {
        out.extend_from_slice(&[77, 0, 0, 0, 0]);
    });
    bench.say_bytes(&bytes);
    let why = Fault::Closed(CloseReason::Idle);
    assert!(bench.events.contains(&Event::Ended { why }));
    bench.expect_wait(Wait::Backoff, 0);
    assert_eq!(bench.take_connect(), logic_server());
}

#[test]
fn a_wrong_frame_ends_the_connection_without_a_word_and_without_a_resumption() {
    let mut wrong_crc = vec![];
    frame::write(kind::HEARTBEAT_REPLY, 1, &mut wrong_crc, |out| {
        out.extend_from_slice(&[0; 8]);
    });
    wrong_crc[8] ^= 1;
    let mut long_unknown = vec![];
    frame::write(0x70, 1, &mut long_unknown, |out| {
        out.resize(out.len() + 1_013, 0);
    });
    let mut device_kind = vec![];
    frame::write(kind::HEARTBEAT, 1, &mut device_kind, |_| ());
    let mut long_body = vec![];
    frame::write(kind::HEARTBEAT_REPLY, 1, &mut long_body, |out| {
        out.extend_from_slice(&[0; 9]);
    });
    let mut flag_of_two = vec![];
    frame::write(kind::REDIRECT, 0, &mut flag_of_two, |out| {
        out.extend_from_slice(&[1, 0, 0, 0, 0, 2]);
    });
    for bytes in [
        wrong_crc,
        long_unknown,
        device_kind,
        long_body,
        flag_of_two,
        b"RC\x02".to_vec(),
        b"X".to_vec(),
    ] {
        let mut bench = Bench::new();
        bench.reach_session_with(RESUMABLE);
        bench.say_bytes(&bytes);
        let why = Fault::WrongFrame;
        assert!(bench.events.contains(&Event::Ended { why }), "{bytes:?}");
        assert_eq!(bench.disconnects.len(), 1);
        assert!(bench.sent.is_empty());
        bench.expect_wait(Wait::Backoff, 0);
        assert!(bench.took_resolve());
    }
}

#[test]
fn the_longest_frame_to_a_device_is_read() {
    let mut bench = Bench::new();
    bench.reach_session();
    let mut unknown = vec![];
    frame::write(0x70, 1, &mut unknown, |out| {
        out.resize(out.len() + 1_012, 0);
    });
    bench.say_bytes(&unknown);
    assert!(bench.told(Event::UnknownKindIgnored { kind: 0x70 }));
    assert!(bench.device.is_attached());
}

#[test]
fn answers_of_the_beginning_are_ignored_after_it() {
    let mut bench = Bench::new();
    bench.reach_session();
    bench.say(1, attach_reply(AttachVerdict::NotAdmitted, 0));
    bench.say(1, login_reply(LoginVerdict::Busy, 0));
    assert_eq!(bench.events.len(), 2);
    assert!(bench.device.is_attached());
}

#[test]
fn sixty_seconds_on_one_connection_begin_the_backoff_anew() {
    let longest = |attached_ms: u64| {
        (0..200)
            .map(|seed| {
                let mut bench = Bench::seeded(Settings::default(), seed);
                bench.apply(Input::StopReporting);
                bench.power_on();
                for _ in 0..5 {
                    bench.resolve(&[]);
                    let (_, ms) = bench.take_wait();
                    bench.pass(ms);
                }
                bench.back_to_session();
                bench.pass(attached_ms);
                bench.events.clear();
                bench.lose();
                bench.take_wait().1
            })
            .max()
            .unwrap()
    };
    assert!(longest(59_999) > 28_000);
    assert!(longest(60_000) <= 1_000);
}

#[test]
fn bytes_of_a_connection_that_it_left_mean_nothing() {
    let mut bench = Bench::new();
    bench.reach_session();
    let old = bench.device.conn().unwrap();
    bench.close(CloseReason::Replaced, 0);
    let (_, ms) = bench.take_wait();
    bench.pass(ms);
    bench.apply(Input::Received {
        conn: old,
        bytes: b"garbage",
    });
    bench.apply(Input::Disconnected { conn: old });
    bench.apply(Input::Connected { conn: old });
    assert!(bench.events.is_empty() && bench.sent.is_empty());
    bench.back_to_session();
}
