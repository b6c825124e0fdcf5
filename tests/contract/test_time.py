"""What takes time: silence, late attaches, tickets that expire, changes of an account. All of it side by side."""

import re
import time

import rcu1
from client import Session, Silence
from rcu1 import CloseReason, LoginStatus
from support import T0, ContractTest, fuel, running_cluster, side_by_side, took

HEARTBEAT_S = 5
"""The least that the contract allows."""
SILENCE_S = 3 * HEARTBEAT_S
ATTACH_TIMEOUT_S = 5
SHORT_TTL_S = 2
CHANGE_S = 5
"""In which a change of an account is in effect everywhere."""
CLOCK_GRAIN_S = 0.1
"""By which a wait may end early: a server reads its clock once for all that it finds to do."""
SLACK = 5
"""A wait ends as a failure at this many times what is promised: the machine has other work."""

cluster = None
brief = None


def setUpModule():
    global cluster, brief
    cluster = running_cluster(logic_server={"heartbeat_s": HEARTBEAT_S})
    brief = running_cluster(conn_server={"grant_ttl_s": SHORT_TTL_S})


@side_by_side
class Time(ContractTest):
    # --- silence ---

    def expect_close_in_time(self, connection, reason, began, promised_s, trickle=b""):
        """Close of this reason, not before `promised_s` have passed since `began`; returns how long it took.

        A byte of `trickle` is sent each half second, and must not put it off.
        """
        deadline = began + SLACK * promised_s
        for byte in trickle:
            connection.send_if_open(bytes([byte]))
            try:
                connection.expect_close(reason, 0.5)
                break
            except Silence:
                self.assertLess(time.monotonic(), deadline, f"no Close({reason.name})")
        else:
            connection.expect_close(reason, deadline - time.monotonic())
        lasted_s = time.monotonic() - began
        self.assertGreaterEqual(lasted_s, promised_s - CLOCK_GRAIN_S)
        return lasted_s

    def expect_idle_close(self, session, heard_at, trickle=b""):
        return self.expect_close_in_time(session, CloseReason.IDLE, heard_at, SILENCE_S, trickle)

    def test_a_silent_session_is_closed_idle(self):
        device = cluster.device()
        grant = device.grant()
        asked_at = time.monotonic()
        session = self.keep(device.attach(grant))
        self.assertEqual(HEARTBEAT_S, session.admission["heartbeat_s"])
        took("Close(idle)", self.expect_idle_close(session, asked_at), SILENCE_S + 1)

    def test_the_silence_counts_from_the_last_frame(self):
        session = self.keep(cluster.device().come_in())
        time.sleep(2)
        heard_at = time.monotonic()
        session.heartbeat()
        self.expect_idle_close(session, heard_at)

    def test_half_a_frame_breaks_no_silence(self):
        device = cluster.device()
        grant = device.grant()
        asked_at = time.monotonic()
        session = self.keep(device.attach(grant))
        self.expect_idle_close(session, asked_at, trickle=rcu1.frame(0x1F, 1, bytes(1_000)))

    def keep_alive(self, speak):
        """Speaks after one and two heartbeat_s; when the first silence would have been over, the session must be there."""
        session = self.keep(cluster.device().come_in())
        for _ in range(2):
            time.sleep(HEARTBEAT_S)
            speak(session)
        time.sleep(SILENCE_S - 2 * HEARTBEAT_S + 2)
        session.heartbeat()

    def test_heartbeats_keep_a_session(self):
        self.keep_alive(Session.heartbeat)

    def test_a_kind_that_nobody_knows_keeps_a_session(self):
        self.keep_alive(lambda session: session.send(rcu1.frame(0x1F, 1)))

    def test_telemetry_keeps_a_session(self):
        self.keep_alive(lambda session: session.report(1, T0, fuel(1)))

    # --- late logins and attaches ---

    def late(self, address, source, first=b"", trickle=b""):
        """A connection that sends `first` at once, then `trickle`, and never a whole frame in time."""
        began = time.monotonic()
        connection = self.connect(address, source)
        connection.send(first)
        return self.expect_close_in_time(connection, CloseReason.ATTACH_TIMEOUT, began, ATTACH_TIMEOUT_S, trickle)

    def test_a_balancer_waits_5_s_for_the_login(self):
        device = cluster.device()
        took("Close(attach_timeout), balancer", self.late(device.balancer, device.source), ATTACH_TIMEOUT_S)

    def test_a_balancer_waits_5_s_for_the_whole_login(self):
        device = cluster.device()
        self.late(device.balancer, device.source, first=device.login_frame()[:-1])

    def test_bytes_that_trickle_do_not_win_time_at_a_balancer(self):
        device = cluster.device()
        self.late(device.balancer, device.source, trickle=device.login_frame())

    def test_a_logic_server_waits_5_s_for_the_attach(self):
        device = cluster.device()
        grant = device.grant()
        took("Close(attach_timeout), logic server", self.late(grant.address, device.source), ATTACH_TIMEOUT_S)

    def test_a_logic_server_waits_5_s_for_the_whole_attach(self):
        device = cluster.device()
        grant = device.grant()
        self.late(grant.address, device.source, first=grant.attach_frame()[:-1])
        self.keep(device.attach(grant)).heartbeat()

    def test_bytes_that_trickle_do_not_win_time_at_a_logic_server(self):
        device = cluster.device()
        grant = device.grant()
        self.late(grant.address, device.source, trickle=grant.attach_frame())

    def test_a_login_and_an_attach_may_take_3_s(self):
        device = cluster.device()
        login = device.login_frame()
        connection = self.connect(device.balancer, device.source)
        connection.send(login[:20])
        time.sleep(3)
        connection.send(login[20:])
        grant = device.grant_of(device.read_login_reply(connection, login), login)
        session = self.keep(Session(grant.address, device.source))
        attach = grant.attach_frame(id=1)
        session.send(attach[:20])
        time.sleep(3)
        session.send(attach[20:])
        session.read_admission(grant)
        session.heartbeat()

    # --- tickets that expire ---

    def test_an_expired_ticket_admits_nobody(self):
        device = brief.device()
        login = device.login_frame()
        grant = device.grant(login)
        self.assertEqual(SHORT_TTL_S, grant.ticket_ttl_s)
        time.sleep(SHORT_TTL_S + 1)
        connection = self.connect(grant.address, device.source)
        connection.send_if_open(grant.attach_frame())
        connection.expect_end_without_frame()
        self.assertEqual(LoginStatus.REFUSED, device.ask(login)["status"], "its nonce was used, its grant is not open")
        self.keep(device.come_in()).heartbeat()

    def test_an_expired_ticket_beside_an_open_one(self):
        device = brief.device()
        grant = device.grant()
        time.sleep(SHORT_TTL_S + 1)
        self.grant_at(brief, grant.address, device.source)
        connection = self.connect(grant.address, device.source)
        connection.send(grant.attach_frame())
        self.expect_not_admitted(connection)

    def test_a_ticket_admits_until_shortly_before_it_expires(self):
        device = cluster.device()
        grant = device.grant()
        time.sleep(15)
        self.keep(device.attach(grant)).heartbeat()

    # --- changes of an account ---

    def change(self, device, session, reason, *command):
        """Runs `rcu device COMMAND` and waits for the session's Close. Returns what the command printed."""
        began = time.monotonic()
        printed = cluster.command(*command)
        session.expect_close(reason, SLACK * CHANGE_S)
        took(f"Close({reason.name.lower()}) after {command[0]}", time.monotonic() - began, CHANGE_S)
        return printed

    def wait_for_status(self, device, status):
        """Logs in until the answer is `status`; until then it may only be `ok`, from before the change."""
        deadline = time.monotonic() + SLACK * CHANGE_S
        while (answer := device.ask(device.login_frame())["status"]) != status:
            self.assertEqual(LoginStatus.OK, answer)
            self.assertLess(time.monotonic(), deadline, f"{status.name} is not in effect")
            time.sleep(0.2)

    def test_disable_ends_session_and_open_grant_and_enable_lets_in_again(self):
        device = cluster.device()
        session = self.keep(device.come_in())
        session.report(1, T0, fuel(1))
        grant = device.grant()
        self.change(device, session, CloseReason.DISABLED, "disable", device.account)
        connection = self.connect(grant.address, device.source)
        connection.send_if_open(grant.attach_frame())
        self.expect_not_admitted_or_end(connection)
        self.wait_for_status(device, LoginStatus.DISABLED)
        cluster.command("enable", device.account)
        deadline = time.monotonic() + SLACK * CHANGE_S
        while (status := device.ask(device.login_frame())["status"]) != LoginStatus.OK:
            self.assertEqual(LoginStatus.DISABLED, status)
            self.assertLess(time.monotonic(), deadline, "enable is not in effect")
            time.sleep(0.2)
        self.keep(device.come_in()).report(2, T0, fuel(2))
        self.assertEqual([(1, T0), (2, T0)], cluster.seqs("telemetry_fuel", device))

    def test_rotate_key_replaces_the_session_and_the_old_key(self):
        device = cluster.device()
        session = self.keep(device.come_in())
        printed = self.change(device, session, CloseReason.REPLACED, "rotate-key", device.account)
        keys = re.findall(r"\b[0-9a-fA-F]{64}\b", printed)
        self.assertEqual(1, len(keys), printed)
        self.wait_for_status(device, LoginStatus.REFUSED)
        renewed = device.elsewhere(key=bytes.fromhex(keys[0]))
        self.keep(renewed.come_in()).heartbeat()

    def test_remove_ends_the_session_and_refuses_the_login(self):
        device = cluster.device()
        session = self.keep(device.come_in())
        self.change(device, session, CloseReason.DISABLED, "remove", device.account)
        self.wait_for_status(device, LoginStatus.REFUSED)

    def test_a_change_of_one_account_leaves_the_others(self):
        device, neighbour = cluster.device(), cluster.device()
        session, untouched = self.keep(device.come_in()), self.keep(neighbour.come_in())
        self.change(device, session, CloseReason.DISABLED, "disable", device.account)
        untouched.heartbeat()
