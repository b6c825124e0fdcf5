"""A device on sockets: connections, the login, the session. It checks every proof and every length it is shown.

What the cluster does against the contract is raised as `Broken`, an
AssertionError, so that a test fails by it. Waits end by a deadline.
"""

import dataclasses
import ipaddress
import os
import socket
import struct
import time

import rcu1
from rcu1 import AckStatus, AttachStatus, CloseReason, Kind, LoginStatus

DEADLINE_S = 15
"""How long a test waits for something that should come at once, on a machine that has other work."""

CLOCK_TOLERANCE_MS = 20_000
"""Cluster and client read one clock here; a reply may have waited for its deadline."""


class Broken(AssertionError):
    """The cluster did what the contract does not allow."""


class Silence(Broken):
    """Nothing came before the deadline."""


def now_ms():
    return time.time_ns() // 1_000_000


def check(holds, what):
    if not holds:
        raise Broken(what)


class Connection:
    """One TCP connection of a device, from a source address of its own."""

    def __init__(self, address, source):
        self.opened_at = time.monotonic()
        self.socket = socket.create_connection(address, DEADLINE_S, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._last_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection as a failing link or a crash does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def age_s(self):
        return time.monotonic() - self.opened_at

    def next_id(self):
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id

    def send(self, *frames):
        """All frames in one segment, as far as TCP lets one say so."""
        self.socket.settimeout(DEADLINE_S)
        self.socket.sendall(b"".join(frames))

    def send_if_open(self, *frames):
        """For bytes that the cluster may refuse by ending the connection first."""
        try:
            self.send(*frames)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send_bytewise(self, *frames):
        for byte in b"".join(frames):
            self.send(bytes([byte]))

    def receive(self, deadline_s=DEADLINE_S):
        """The next frame; None when the cluster has ended the connection.

        In order, that is: a reset is raised as ConnectionResetError.
        """
        deadline = time.monotonic() + deadline_s
        while True:
            found = rcu1.cut(self._received)
            if found:
                frame, self._received = found
                check(len(frame.body) <= rcu1.TO_DEVICE_BODY_BYTES_MAX, f"a body of {len(frame.body)} bytes")
                return frame
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Silence(f"nothing came within {deadline_s} s")
            self.socket.settimeout(left_s)
            try:
                piece = self.socket.recv(65_536)
            except TimeoutError:
                continue
            if not piece:
                check(not self._received, f"ended within a frame: {self._received.hex()}")
                return None
            self._received += piece

    def receive_kind(self, kind, deadline_s=DEADLINE_S):
        """The next frame, which must be of this kind: (id, fields)."""
        frame = self.receive(deadline_s)
        check(frame is not None, f"ended without {kind.name}")
        check(frame.kind == kind, f"{describe(frame)} instead of {kind.name}")
        return frame.id, rcu1.decode_body(kind, frame.body)

    def expect_close(self, reason, deadline_s=DEADLINE_S):
        """Close of this reason is next, then the orderly end. Returns its retry_after_ms."""
        before, retry_after_ms = self.expect_close_after_frames(reason, deadline_s)
        check(not before, f"before the Close: {[describe(frame) for frame in before]}")
        return retry_after_ms

    def expect_close_after_frames(self, reason, deadline_s=DEADLINE_S):
        """Like expect_close, where other frames may come first: (those frames, retry_after_ms)."""
        deadline = time.monotonic() + deadline_s
        before = []
        while True:
            frame = self.receive(max(0.0, deadline - time.monotonic()))
            check(frame is not None, f"ended without Close({reason.name}), after {len(before)} other frames")
            if frame.kind == Kind.CLOSE:
                break
            before.append(frame)
        close = rcu1.decode_body(Kind.CLOSE, frame.body)
        check(close["reason"] == reason, f"Close({close['reason']}) instead of {reason.name}")
        check(frame.id == 0, f"Close bears id {frame.id}")
        try:
            check(self.receive() is None, "a frame after Close")
        except ConnectionResetError:
            raise Broken("a reset follows the Close: on a real network it destroys it") from None
        return before, close["retry_after_ms"]

    def expect_still_read(self):
        """After the end of what the cluster sends it reads on for a moment: more bytes do not cause a reset at once."""
        try:
            for _ in range(4):
                self.send(b"more")
                time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            raise Broken("the cluster does not read on after its Close") from None

    def expect_end_without_frame(self, deadline_s=DEADLINE_S):
        try:
            frame = self.receive(deadline_s)
        except ConnectionResetError:
            return
        check(frame is None, f"{frame and describe(frame)} instead of an end without a frame")


def describe(frame):
    """One line about a frame, for a failure's text."""
    try:
        name = Kind(frame.kind).name
    except ValueError:
        name = f"kind {frame.kind:#04x}"
    return f"{name} id {frame.id} body {frame.body.hex()}"


@dataclasses.dataclass(frozen=True)
class Grant:
    """What an `ok` gives: where to go, and with what."""

    address: tuple
    ticket: bytes
    ticket_ttl_s: int
    session_key: bytes

    def attach_frame(self, id=1, proof=None):
        body = self.ticket + (proof or rcu1.proof(self.session_key, "attach", self.ticket))
        return rcu1.frame(Kind.ATTACH, id, body)


@dataclasses.dataclass(frozen=True)
class Device:
    account: str
    key: bytes
    balancer: tuple
    source: str

    def elsewhere(self, **changes):
        """The same device with something else about it: another source, key or account."""
        return dataclasses.replace(self, **changes)

    def login_frame(self, id=1, *, nonce=None, sent_at_ms=None, firmware="1.4.2"):
        fields = {
            "account": self.account,
            "firmware": firmware,
            "sent_at_ms": now_ms() if sent_at_ms is None else sent_at_ms,
            "nonce": nonce or os.urandom(16),
        }
        body = rcu1.encode_signed(Kind.LOGIN, fields, lambda unsigned: rcu1.proof(self.key, "login", unsigned))
        return rcu1.frame(Kind.LOGIN, id, body)

    def ask(self, login_frame):
        """One short connection with this Login: the fields of the LoginReply, its proof checked where it has one."""
        with Connection(self.balancer, self.source) as connection:
            connection.send(login_frame)
            return self.read_login_reply(connection, login_frame)

    def read_login_reply(self, connection, login_frame):
        asked, _ = rcu1.cut(login_frame)
        frame = connection.receive()
        check(frame is not None, "the balancer ended the connection without LoginReply")
        check(frame.kind == Kind.LOGIN_REPLY, f"{describe(frame)} instead of LOGIN_REPLY")
        check(frame.id == asked.id, f"LoginReply bears id {frame.id}, the Login {asked.id}")
        reply = rcu1.decode_body(Kind.LOGIN_REPLY, frame.body)
        check_server_time(reply)
        if "proof" in reply:
            nonce = rcu1.decode_body(Kind.LOGIN, asked.body)["nonce"]
            purpose = "grant" if reply["status"] == LoginStatus.OK else "told"
            right = rcu1.proof(self.key, purpose, nonce, frame.body[:-32])
            check(reply["proof"] == right, f"wrong proof in LoginReply {reply['status']}")
        return reply

    def grant(self, login_frame=None):
        """Logs in and must be let in."""
        login_frame = login_frame or self.login_frame()
        reply = self.ask(login_frame)
        check(reply["status"] == LoginStatus.OK, f"login of {self.account} answered {reply['status']}")
        return self.grant_of(reply, login_frame)

    def grant_of(self, reply, login_frame):
        ipaddress.ip_address(reply["host"])
        check("%" not in reply["host"], "host has a zone")
        nonce = rcu1.decode_body(Kind.LOGIN, rcu1.cut(login_frame)[0].body)["nonce"]
        return Grant(
            address=(reply["host"], reply["port"]),
            ticket=reply["ticket"],
            ticket_ttl_s=reply["ticket_ttl_s"],
            session_key=rcu1.session_key(self.key, nonce, reply["ticket"]),
        )

    def attach(self, grant):
        """The session of this grant, which must admit."""
        session = Session(grant.address, self.source)
        session.send(grant.attach_frame(id=session.next_id()))
        session.read_admission(grant)
        return session

    def come_in(self):
        """Login and Attach: an attached session."""
        return self.attach(self.grant())


def check_server_time(fields):
    skew_ms = fields["server_time_ms"] - now_ms()
    check(abs(skew_ms) < CLOCK_TOLERANCE_MS, f"server_time_ms is {skew_ms} ms off")


class Session(Connection):
    """The long connection, attached once read_admission has returned."""

    def read_admission(self, grant, id=1):
        frame = self.receive()
        check(frame is not None, "ended instead of AttachReply")
        check(frame.kind == Kind.ATTACH_REPLY, f"{describe(frame)} instead of ATTACH_REPLY")
        check(frame.id == id, f"AttachReply bears id {frame.id}, the Attach {id}")
        reply = rcu1.decode_body(Kind.ATTACH_REPLY, frame.body)
        check(reply["status"] == AttachStatus.OK, f"Attach answered {AttachStatus(reply['status']).name}")
        right = rcu1.proof(grant.session_key, "admit", grant.ticket, frame.body[:-32])
        check(reply["proof"] == right, "wrong proof in AttachReply")
        check_server_time(reply)
        self.admission = reply

    def heartbeat(self, deadline_s=DEADLINE_S):
        """Asks and must be answered with the same id, and nothing else first. Returns server_time_ms."""
        asked = self.next_id()
        self.send(rcu1.frame(Kind.HEARTBEAT, asked))
        id, reply = self.receive_kind(Kind.HEARTBEAT_REPLY, deadline_s)
        check(id == asked, f"HeartbeatReply bears id {id}, the Heartbeat {asked}")
        check_server_time(reply)
        return reply["server_time_ms"]

    def report(self, base_seq, base_time_ms, *records):
        """Sends records (made by rcu1.record) in one Telemetry; they must be answered `stored`."""
        ack = self.ask_telemetry(rcu1.telemetry(base_seq, base_time_ms, *records))
        check(ack["status"] == AckStatus.STORED, f"Telemetry answered {AckStatus(ack['status']).name}")

    def ask_telemetry(self, body):
        """Sends one Telemetry with this body: the fields of its answer."""
        asked = self.next_id()
        self.send(rcu1.frame(Kind.TELEMETRY, asked, body))
        acks = self.read_acks({asked: body})
        return acks[asked]

    def read_acks(self, asked):
        """The answers to all of `asked` ({id: Telemetry body}), which may come in any order, by id."""
        acks = {}
        while len(acks) < len(asked):
            id, ack = self.receive_kind(Kind.TELEMETRY_ACK)
            check(id in asked and id not in acks, f"an answer to no open question: id {id}")
            base_seq, count = struct.unpack_from("<Q8xB", asked[id])
            check((ack["base_seq"], ack["count"]) == (base_seq, count), f"an answer to another frame: {ack}")
            acks[id] = ack
        return acks

    def expect_replaced(self):
        self.expect_close(CloseReason.REPLACED)
        self.close()
