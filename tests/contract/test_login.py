"""The short connection: every LoginReply but `busy` and `full` (test_places.py), their order, repeats and guesses."""

import os
import string
import struct

import rcu1
from client import Connection, now_ms
from cluster import new_source
from rcu1 import CloseReason, Kind, LoginStatus
from support import ContractTest, running_cluster

GRANT_TTL_S = 30
SKEW_MS = 300_000

cluster = None


def setUpModule():
    global cluster
    cluster = running_cluster(conn_server={"grant_ttl_s": GRANT_TTL_S})


def login_body(device, *, account=None, firmware=b"1.4.2", counted=None):
    """A Login body with a right proof whatever its strings are; `counted` lies about the account's length."""
    account = device.account.encode("ascii") if account is None else account
    length = len(account) if counted is None else counted
    unsigned = bytes([length]) + account + bytes([len(firmware)]) + firmware
    unsigned += struct.pack("<Q", now_ms()) + os.urandom(16)
    return unsigned + rcu1.proof(device.key, "login", unsigned)


class Ok(ContractTest):
    def test_ok_names_a_logic_server_and_how_long_the_ticket_lasts(self):
        device = cluster.device()
        reply = device.ask(device.login_frame(id=0xBEEF))
        self.assertEqual(LoginStatus.OK, reply["status"])
        self.assertIn((reply["host"], reply["port"]), cluster.devices_at)
        self.assertEqual(GRANT_TTL_S, reply["ticket_ttl_s"])

    def test_every_login_gets_a_ticket_of_its_own(self):
        device = cluster.device()
        self.assertEqual(3, len({device.grant().ticket for _ in range(3)}))

    def test_an_account_may_have_every_character_of_the_contract(self):
        letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "._:-"
        for start in range(0, len(letters), 32):
            device = cluster.add(f"x{letters[start : start + 31]}")
            with self.subTest(device.account):
                device.grant()

    def test_an_account_may_have_one_character(self):
        cluster.add("q").grant()

    def test_case_matters(self):
        device = cluster.add("Unit-A")
        other = device.elsewhere(account="unit-a")
        self.assertEqual(LoginStatus.REFUSED, other.ask(other.login_frame())["status"])
        device.grant()

    def test_firmware_is_0_to_32_printable_characters(self):
        device = cluster.device()
        for firmware in ("", "v", "~!@#$%^&*()_+{}|:<>?`-=[];',./\"\\"[:32], "1.4.2 rc 1"):
            with self.subTest(firmware):
                device.grant(device.login_frame(firmware=firmware))

    def test_the_clock_may_be_almost_300_s_off(self):
        device = cluster.device()
        for skew_ms in (-SKEW_MS + 20_000, SKEW_MS - 20_000):
            with self.subTest(skew_ms):
                device.grant(device.login_frame(sent_at_ms=now_ms() + skew_ms))

    def test_a_login_in_one_byte_pieces(self):
        device = cluster.device()
        login = device.login_frame()
        connection = self.connect(device.balancer, device.source)
        connection.send_bytewise(login)
        self.assertEqual(LoginStatus.OK, device.read_login_reply(connection, login)["status"])

    def test_bytes_behind_the_login_do_not_destroy_the_answer(self):
        """The balancer may take them for a breach or not have read them: one whole frame comes either way."""
        device = cluster.device()
        for extra in (b"\0", rcu1.frame(Kind.HEARTBEAT, 2), bytes(20_000)):
            with self.subTest(f"{len(extra)} bytes"):
                connection = self.connect(device.balancer, device.source)
                connection.send(device.login_frame(), extra)
                frame = connection.receive()
                self.assertIsNotNone(frame)
                if frame.kind == Kind.CLOSE:
                    close = rcu1.decode_body(Kind.CLOSE, frame.body)
                    self.assertEqual((0, CloseReason.PROTOCOL_ERROR), (frame.id, close["reason"]))
                else:
                    self.assertEqual(Kind.LOGIN_REPLY, frame.kind)
                self.assertIsNone(connection.receive())


class Malformed(ContractTest):
    def expect(self, device, body):
        connection = self.connect(device.balancer, device.source)
        connection.send(rcu1.frame(Kind.LOGIN, 77, body))
        id, reply = connection.receive_kind(Kind.LOGIN_REPLY)
        self.assertEqual((77, LoginStatus.MALFORMED), (id, reply["status"]))

    def test_a_body_has_exactly_its_fields(self):
        device = cluster.device()
        right = login_body(device)
        cases = {
            "one byte more": right + b"\0",
            "one byte less": right[:-1],
            "empty": b"",
            "account runs past the body": login_body(device, counted=255),
            "512 bytes in all": right + bytes(rcu1.BEFORE_ATTACH_BYTES_MAX - rcu1.HEADER_BYTES - len(right)),
        }
        for name, body in cases.items():
            with self.subTest(name):
                self.expect(device, body)

    def test_an_account_outside_the_contract(self):
        device = cluster.device()
        for account in (b"", b"a" * 33, b"a b", b"a/b", b"a@b", b"a\0", b"a\n", b"\xc3\xa9"):
            with self.subTest(account):
                self.expect(device, login_body(device, account=account))

    def test_firmware_outside_the_contract(self):
        device = cluster.device()
        for firmware in (b"1" * 33, b"1\x1f", b"1\x7f", b"1\x80", b"\0"):
            with self.subTest(firmware):
                self.expect(device, login_body(device, firmware=firmware))


class Refused(ContractTest):
    def test_unknown_account_and_wrong_proof_are_not_told_apart(self):
        device = cluster.device()
        unknown = device.elsewhere(account="nobody-of-that-name")
        liar = device.elsewhere(key=bytes(32))
        replies = [one.ask(one.login_frame()) for one in (unknown, liar)]
        for reply in replies:
            self.assertEqual(LoginStatus.REFUSED, reply["status"])
        self.assertEqual(*(reply.keys() for reply in replies))
        self.assertEqual(*(reply["retry_after_ms"] == 0 for reply in replies))

    def test_each_signed_byte_counts(self):
        device = cluster.device()
        login = device.login_frame()
        _, _, _, id, _, _ = struct.unpack("<2sBBHHI", login[: rcu1.HEADER_BYTES])
        fields = rcu1.decode_body(Kind.LOGIN, login[rcu1.HEADER_BYTES :])
        changes = {
            "firmware": "1.4.3",
            "sent_at_ms": fields["sent_at_ms"] + 1,
            "nonce": os.urandom(16),
            "proof": fields["proof"][:-1] + bytes([fields["proof"][-1] ^ 1]),
        }
        for name, value in changes.items():
            with self.subTest(name):
                body = rcu1.encode_body(Kind.LOGIN, {**fields, name: value})
                reply = device.ask(rcu1.frame(Kind.LOGIN, id, body))
                self.assertEqual(LoginStatus.REFUSED, reply["status"])


class ToldWithProof(ContractTest):
    """`disabled` and `clock_skew` carry a proof, which Device.ask checks."""

    def test_clock_skew(self):
        device = cluster.device()
        for sent_at_ms in (0, now_ms() - SKEW_MS - 20_000, now_ms() + SKEW_MS + 20_000, 2**64 - 1):
            with self.subTest(sent_at_ms):
                reply = device.ask(device.login_frame(sent_at_ms=sent_at_ms))
                self.assertEqual(LoginStatus.CLOCK_SKEW, reply["status"])
                self.assertIn("proof", reply)
        device.grant(device.login_frame(sent_at_ms=reply["server_time_ms"]))

    def test_disabled_before_the_clock_is_looked_at(self):
        device = cluster.device()
        cluster.command("disable", device.account)
        for sent_at_ms in (now_ms(), 0):
            reply = device.ask(device.login_frame(sent_at_ms=sent_at_ms))
            self.assertEqual(LoginStatus.DISABLED, reply["status"])
            self.assertIn("proof", reply)

    def test_a_wrong_proof_is_judged_first(self):
        device = cluster.device()
        cluster.command("disable", device.account)
        liar = device.elsewhere(key=bytes(32))
        for sent_at_ms in (now_ms(), 0):
            reply = liar.ask(liar.login_frame(sent_at_ms=sent_at_ms))
            self.assertEqual(LoginStatus.REFUSED, reply["status"])


class Replayed(ContractTest):
    def test_while_its_grant_is_open_a_login_gets_the_same_ticket(self):
        device = cluster.device()
        login = device.login_frame()
        first, second = device.grant(login), device.grant(login)
        self.assertEqual(first.ticket, second.ticket)
        self.assertEqual(first.address, second.address)
        self.assertLessEqual(second.ticket_ttl_s, first.ticket_ttl_s)
        self.keep(device.attach(second)).heartbeat()

    def test_after_its_grant_was_used_it_is_refused(self):
        device = cluster.device()
        login = device.login_frame()
        grant = device.grant(login)
        session = self.keep(device.attach(grant))
        for _ in range(2):
            self.assertEqual(LoginStatus.REFUSED, device.ask(login)["status"])
        session.heartbeat()
        self.keep(device.come_in()).heartbeat()

    def test_it_is_the_nonce_that_counts(self):
        device = cluster.device()
        nonce = os.urandom(16)
        first = device.grant(device.login_frame(nonce=nonce, firmware="1.0"))
        again = device.grant(device.login_frame(nonce=nonce, firmware="2.0"))
        self.assertEqual(first.ticket, again.ticket)
        self.keep(device.attach(first))
        third = device.ask(device.login_frame(nonce=nonce, firmware="3.0"))
        self.assertEqual(LoginStatus.REFUSED, third["status"])

    def test_a_nonce_belongs_to_an_account(self):
        nonce = os.urandom(16)
        grants = [device.grant(device.login_frame(nonce=nonce)) for device in (cluster.device(), cluster.device())]
        self.assertNotEqual(grants[0].ticket, grants[1].ticket)

    def test_from_another_source_it_does_not_take_the_device_s_place(self):
        device = cluster.device()
        thief = device.elsewhere(source=new_source())
        login = device.login_frame()
        grant = device.grant(login)
        reply = thief.ask(login)
        if reply["status"] == LoginStatus.OK:
            self.assertEqual(grant.ticket, reply["ticket"])
        else:
            self.assertEqual(LoginStatus.REFUSED, reply["status"])
        self.keep(device.attach(grant)).heartbeat()


class Guessed(ContractTest):
    def test_guesses_from_another_source_do_not_lock_a_device_out(self):
        device = cluster.device()
        guesser = device.elsewhere(source=new_source())
        for _ in range(40):
            guesser = guesser.elsewhere(key=os.urandom(32))
            reply = guesser.ask(guesser.login_frame())
            self.assertIn(reply["status"], (LoginStatus.REFUSED, LoginStatus.BUSY))
        self.keep(device.come_in()).heartbeat()

    def test_guesses_do_not_end_a_session(self):
        device = cluster.device()
        session = self.keep(device.come_in())
        guesser = device.elsewhere(source=new_source(), key=bytes(32))
        for _ in range(5):
            guesser.ask(guesser.login_frame())
        session.heartbeat()


class Connections(ContractTest):
    def test_connections_that_come_and_go_harm_nobody(self):
        device = cluster.device()
        passer_by = new_source()
        for _ in range(50):
            Connection(device.balancer, passer_by).reset()
        device.grant()
