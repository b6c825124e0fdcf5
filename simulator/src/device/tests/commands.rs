//! Pure. What a device does when it is told to: sections 3 and 4 of the contract.

use protocols::rcu::code::CommandStatus;
use protocols::rcu::command::{CommandReply, cluster_code};

use super::*;

fn attached() -> Bench {
    let mut bench = Bench::new();
    bench.reach_session();
    bench
}

/// The reply that was sent: frame id, status, more, payload.
fn reply(bench: &mut Bench) -> (u16, CommandStatus, bool, Vec<u8>) {
    let sent = bench.take_sent();
    let FromDevice::CommandReply(CommandReply {
        status,
        more,
        payload,
        ..
    }) = sent.message()
    else {
        panic!("{sent:?}");
    };
    (sent.id, status, more, payload.to_vec())
}

fn ok(id: u16, payload: &[u8]) -> (u16, CommandStatus, bool, Vec<u8>) {
    (id, CommandStatus::Ok, false, payload.to_vec())
}

fn refused(id: u16, status: CommandStatus) -> (u16, CommandStatus, bool, Vec<u8>) {
    (id, status, false, vec![])
}

#[test]
fn ping_returns_its_payload() {
    let mut bench = attached();
    bench.command(9, 42, cluster_code::PING, b"hello");
    assert_eq!(reply(&mut bench), ok(9, b"hello"));
}

#[test]
fn set_clock_sets_the_clock() {
    let mut bench = attached();
    let unix_ms = UNIX_MS + 86_400_000;
    bench.command(9, 1, cluster_code::SET_CLOCK, &unix_ms.to_le_bytes());
    assert_eq!(reply(&mut bench), ok(9, b""));
    assert_eq!(bench.device.unix_ms(bench.now_ms), Some(unix_ms));
    bench.command(10, 2, cluster_code::SET_CLOCK, &u64::MAX.to_le_bytes());
    assert_eq!(reply(&mut bench), refused(10, CommandStatus::Failed));
    assert_eq!(bench.device.unix_ms(bench.now_ms), Some(unix_ms));
}

#[test]
fn the_report_interval_is_kept_over_reboots_until_0_restores_the_default() {
    let mut bench = Bench::with(Settings::default());
    bench.reach_session();
    let reports_in_100_s = |bench: &mut Bench| {
        bench.pass(5_000);
        bench.measures = 0;
        bench.pass(100_000);
        bench.measures
    };
    let set = |bench: &mut Bench, id: u64, interval_ms: u32| {
        let payload = interval_ms.to_le_bytes();
        bench.command(9, id, cluster_code::SET_REPORT_INTERVAL, &payload);
        assert_eq!(reply(bench), ok(9, b""));
    };
    set(&mut bench, 1, 1_000);
    assert!((90..=110).contains(&reports_in_100_s(&mut bench)));

    bench.sent.clear();
    bench.command(9, 2, cluster_code::REBOOT, b"");
    bench.sent.clear();
    bench.pass(0);
    bench.back_to_session();
    assert!((90..=110).contains(&reports_in_100_s(&mut bench)));

    bench.sent.clear();
    set(&mut bench, 3, 0);
    assert!((18..=22).contains(&reports_in_100_s(&mut bench)));
}

#[test]
fn read_config_returns_the_devices_own_bytes() {
    let mut bench = attached();
    bench.command(9, 1, cluster_code::READ_CONFIG, b"");
    let (_, status, more, payload) = reply(&mut bench);
    assert_eq!((status, more), (CommandStatus::Ok, false));
    assert!(payload.starts_with(b"firmware=sim-1.0 "));
}

#[test]
fn reboot_is_answered_then_done_and_known_on_the_other_side() {
    let mut bench = Bench::with(Settings {
        report_interval_ms: 0,
        boot_ms: 3_000,
        ..Settings::default()
    });
    bench.apply(Input::PowerOn);
    bench.pass(3_000);
    bench.back_to_session();
    bench.report(&[1]);
    let open = bench.take_sent();
    bench.command(9, 7, cluster_code::REBOOT, b"");
    assert_eq!(reply(&mut bench), ok(9, b""));
    assert_eq!(bench.disconnects.len(), 1);
    assert!(bench.told(Event::Restarted { boot_counter: 4 }));
    bench.pass(2_999);
    assert!(!bench.took_resolve());
    bench.pass(1);
    bench.back_to_session();
    // Records are in non-volatile memory, and so is the id of the command.
    assert_eq!(bench.take_sent().body, open.body);
    bench.command(3, 7, cluster_code::REBOOT, b"");
    assert_eq!(reply(&mut bench), ok(3, b""));
    assert!(bench.device.is_attached());
}

#[test]
fn a_payload_of_the_wrong_length_fails_and_an_unknown_code_is_unsupported() {
    for (code, payload, status) in [
        (
            cluster_code::SET_CLOCK,
            &b"1234567"[..],
            CommandStatus::Failed,
        ),
        (
            cluster_code::SET_REPORT_INTERVAL,
            b"12345",
            CommandStatus::Failed,
        ),
        (cluster_code::READ_CONFIG, b"x", CommandStatus::Failed),
        (cluster_code::REBOOT, b"x", CommandStatus::Failed),
        (WORK, b"", CommandStatus::Failed),
        (6, b"", CommandStatus::Unsupported),
        (0, b"", CommandStatus::Unsupported),
        (0xFFFF, b"", CommandStatus::Unsupported),
    ] {
        let mut bench = attached();
        bench.command(9, 1, code, payload);
        assert_eq!(reply(&mut bench), refused(9, status), "{code}");
        assert!(bench.device.is_attached());
        let begun = |event: &Event| matches!(event, Event::CommandBegun { .. });
        assert!(!bench.events.iter().any(begun));
    }
}

#[test]
fn a_command_that_it_cannot_hold_is_read_past_and_unsupported() {
    let long = [1; 1_013 - 20];
    let mut bench = attached();
    bench.command(9, 1, cluster_code::PING, &long[..992]);
    assert_eq!(reply(&mut bench), ok(9, &long[..992]));
    bench.command(10, 2, cluster_code::PING, &long);
    assert_eq!(reply(&mut bench), refused(10, CommandStatus::Unsupported));
    bench.command(11, 3, cluster_code::PING, &[7; 16_000]);
    assert_eq!(reply(&mut bench), refused(11, CommandStatus::Unsupported));

    // Its checksum is checked all the same.
    let command = Command {
        command_id: CommandId(4),
        deadline_ms: 0,
        code: cluster_code::PING,
        payload: &[7; 5_000],
    };
    let mut bytes = vec![];
    command.encode(12, &mut bytes);
    bytes[3_000] ^= 1;
    bench.events.clear();
    bench.say_bytes(&bytes);
    let why = Fault::WrongFrame;
    assert!(bench.told(Event::Ended { why }));
}

#[test]
fn nothing_is_begun_after_its_deadline() {
    let mut bench = attached();
    let now = bench.device.unix_ms(bench.now_ms).unwrap();
    bench.command_until(9, 1, now, cluster_code::PING, b"");
    assert_eq!(reply(&mut bench), ok(9, b""));
    bench.command_until(10, 2, now - 1, cluster_code::PING, b"");
    assert_eq!(reply(&mut bench), refused(10, CommandStatus::Expired));
    // A repeat gets the one final reply, whatever the deadline is now.
    bench.command_until(11, 2, 0, cluster_code::PING, b"");
    assert_eq!(reply(&mut bench), refused(11, CommandStatus::Expired));
    bench.command_until(12, 1, 1, cluster_code::PING, b"");
    assert_eq!(reply(&mut bench), ok(12, b""));
}

#[test]
fn a_repeat_gets_the_first_64_bytes_of_its_final_reply_under_its_own_id() {
    let mut bench = attached();
    let payload: Vec<u8> = (0..100).collect();
    bench.command(9, 1, cluster_code::PING, &payload);
    bench.sent.clear();
    // On another connection too.
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    bench.back_to_session();
    assert!(bench.sent.is_empty());
    bench.command(77, 1, cluster_code::PING, &payload);
    assert_eq!(reply(&mut bench), ok(77, &payload[..64]));
    let (command_id, status) = (CommandId(1), CommandStatus::Ok);
    assert!(bench.told(Event::CommandAnswered {
        command_id,
        status,
        repeated: true
    }));
}

#[test]
fn the_last_16_commands_are_remembered() {
    let mut bench = attached();
    for id in 1..=17 {
        bench.command(9, id, cluster_code::PING, b"first");
        bench.sent.clear();
    }
    bench.command(9, 2, cluster_code::PING, b"second");
    assert_eq!(reply(&mut bench), ok(9, b"first"));
    bench.command(9, 1, cluster_code::PING, b"second");
    assert_eq!(reply(&mut bench), ok(9, b"second"));
}

#[test]
fn one_command_at_a_time_and_busy_is_not_remembered() {
    let mut bench = attached();
    bench.command(9, 1, WORK, &4_000_u32.to_le_bytes());
    assert!(bench.sent.is_empty());
    bench.command(10, 2, cluster_code::PING, b"");
    assert_eq!(reply(&mut bench), refused(10, CommandStatus::Busy));
    // A repeat of the running one is answered by the running one's replies.
    bench.command(11, 1, WORK, &4_000_u32.to_le_bytes());
    assert!(bench.sent.is_empty());
    bench.pass(2_000);
    assert_eq!(
        reply(&mut bench),
        (9, CommandStatus::Ok, true, b"half-way".to_vec())
    );
    bench.pass(2_000);
    assert_eq!(reply(&mut bench), ok(9, b"done"));
    bench.command(12, 2, cluster_code::PING, b"now");
    assert_eq!(reply(&mut bench), ok(12, b"now"));
}

#[test]
fn a_reply_that_could_not_be_sent_is_fetched_by_the_repeat() {
    let mut bench = attached();
    bench.command(9, 1, WORK, &2_000_u32.to_le_bytes());
    bench.lose();
    let (_, ms) = bench.take_wait();
    bench.pass(ms.max(2_000));
    bench.back_to_session();
    assert!(bench.sent.is_empty());
    bench.command(5, 1, WORK, &2_000_u32.to_le_bytes());
    assert_eq!(reply(&mut bench), ok(5, b"done"));
    let begun = |event: &&Event| matches!(event, Event::CommandBegun { .. });
    assert_eq!(bench.events.iter().filter(begun).count(), 0);
}

#[test]
fn a_reply_is_not_sent_unasked_on_a_new_connection() {
    let mut bench = attached();
    bench.command(9, 1, WORK, &20_000_u32.to_le_bytes());
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    bench.back_to_session();
    bench.pass(20_000);
    let (command_id, status) = (CommandId(1), CommandStatus::Ok);
    assert!(bench.told(Event::CommandAnswered {
        command_id,
        status,
        repeated: false
    }));
    bench
        .sent
        .retain(|sent| sent.message() != FromDevice::Heartbeat);
    assert!(bench.sent.is_empty());
}

#[test]
fn a_repeat_on_a_new_connection_gets_the_running_ones_replies_there() {
    let mut bench = attached();
    bench.command(9, 1, WORK, &600_000_u32.to_le_bytes());
    bench.lose();
    bench.expect_wait(Wait::Backoff, 0);
    bench.back_to_session();
    bench.command(5, 1, WORK, &600_000_u32.to_le_bytes());
    for _ in 0..12 {
        bench.pass(50_000);
        // Whatever is heard keeps the session alive.
        bench.say(999, login_reply(LoginVerdict::Busy, 0));
    }
    bench
        .sent
        .retain(|sent| sent.message() != FromDevice::Heartbeat);
    let replies: Vec<_> = bench.sent.iter().map(|sent| sent.id).collect();
    assert_eq!(replies, [5, 5]);
}
