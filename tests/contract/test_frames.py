"""What the cluster does with wrong frames, and with right ones in odd pieces (section 1)."""

import rcu1
from client import Session
from rcu1 import AckStatus, BODY_BYTES_MAX, CloseReason, Kind
from support import T0, ContractTest, custom, fuel, running_cluster
from test_vectors import VECTORS

cluster = None

UNKNOWN_KINDS = (0x00, 0x0C, 0x1F, 0x20, 0x2E, 0x40, 0xFF)
FROM_CLUSTER = (
    Kind.LOGIN_REPLY,
    Kind.ATTACH_REPLY,
    Kind.HEARTBEAT_REPLY,
    Kind.TELEMETRY_ACK,
    Kind.RESUME_CHALLENGE,
    Kind.COMMAND,
    Kind.REDIRECT,
    Kind.CLOSE,
)

# A body of each message that is right in itself; what is wrong is its time or direction.
BODIES = {
    Kind.LOGIN: VECTORS["login"],
    Kind.LOGIN_REPLY: VECTORS["login reply, full"],
    Kind.ATTACH: VECTORS["attach"],
    Kind.ATTACH_REPLY: VECTORS["attach reply, not admitted"],
    Kind.HEARTBEAT: VECTORS["heartbeat"],
    Kind.HEARTBEAT_REPLY: VECTORS["heartbeat reply"],
    Kind.TELEMETRY: VECTORS["telemetry of an unknown record kind"],
    Kind.TELEMETRY_ACK: VECTORS["telemetry ack, stored"],
    Kind.RESUME: VECTORS["resume"],
    Kind.RESUME_CHALLENGE: VECTORS["resume challenge"],
    Kind.RESUME_PROOF: VECTORS["resume proof"],
    Kind.COMMAND: VECTORS["command ping"],
    Kind.COMMAND_REPLY: VECTORS["command reply"],
    Kind.REDIRECT: VECTORS["redirect without a target"],
    Kind.CLOSE: VECTORS["close, replaced"],
}


def setUpModule():
    global cluster
    cluster = running_cluster()


def right(kind):
    return bytes.fromhex(BODIES[kind]["frame"])


def no_frames():
    """Bytes that are no frame, whoever reads them and whenever."""
    heartbeat = rcu1.frame(Kind.HEARTBEAT, 3)
    return {
        "first byte of magic": rcu1.frame(Kind.HEARTBEAT, 3, magic=b"rC"),
        "second byte of magic": rcu1.frame(Kind.HEARTBEAT, 3, magic=b"RD"),
        "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "version 0": rcu1.frame(Kind.HEARTBEAT, 3, version=0),
        "version 2": bytes.fromhex(VECTORS["heartbeat of version 2"]["frame"]),
        "version 255": rcu1.frame(Kind.HEARTBEAT, 3, version=255),
        "a body of 16,385 bytes, said": rcu1.frame(Kind.TELEMETRY, 3, length=BODY_BYTES_MAX + 1),
        "a body of 16,385 bytes, sent": rcu1.frame(Kind.TELEMETRY, 3, bytes(BODY_BYTES_MAX + 1)),
        "a body of 65,535 bytes, said": rcu1.frame(0x1F, 3, length=0xFFFF),
        "crc": bytes.fromhex(VECTORS["heartbeat with a wrong crc"]["frame"]),
        "crc 0": rcu1.frame(Kind.HEARTBEAT, 3, crc=0),
        "crc in another byte order": heartbeat[:8] + heartbeat[:7:-1],
        "crc without the body": rcu1.frame(0x1F, 3, b"abc", crc=rcu1.crc32c(rcu1.frame(0x1F, 3, b"abc")[:8])),
    }


def before_attach(awaited):
    """Frames that only `awaited` may come in place of."""
    wrong = {f"kind {kind.name}": right(kind) for kind in Kind if kind not in awaited}
    wrong |= {f"unknown kind {kind:#04x}": rcu1.frame(kind, 1, b"ab") for kind in UNKNOWN_KINDS}
    for kind in awaited:
        wrong[f"{kind.name} of 513 bytes"] = rcu1.frame(kind, 1, bytes(501))
        wrong[f"{kind.name} of 513 bytes, said"] = rcu1.frame(kind, 1, length=501)
    return wrong


class AtTheBalancer(ContractTest):
    def test_wrong_frames_are_answered_with_close(self):
        device = cluster.device()
        for name, frame in {**no_frames(), **before_attach([Kind.LOGIN])}.items():
            with self.subTest(name):
                connection = self.connect(device.balancer, device.source)
                connection.send_if_open(frame)
                connection.expect_close(CloseReason.PROTOCOL_ERROR)
        device.grant()

    def test_the_answer_of_the_vectors_byte_for_byte(self):
        device = cluster.device()
        for name in ("heartbeat with a wrong crc", "heartbeat of version 2"):
            vector = VECTORS[name]
            with self.subTest(name):
                connection = self.connect(device.balancer, device.source)
                connection.send(bytes.fromhex(vector["frame"]))
                answer = connection.receive()
                answer = rcu1.frame(answer.kind, answer.id, answer.body)
                self.assertEqual(vector["fields"]["answer"], answer.hex())

    def test_a_reset_does_not_destroy_the_close(self):
        device = cluster.device()
        connection = self.connect(device.balancer, device.source)
        connection.send_if_open(right(Kind.HEARTBEAT), bytes(20_000))
        connection.expect_close(CloseReason.PROTOCOL_ERROR)
        connection.expect_still_read()


class AtTheGate(ContractTest):
    """At a logic server, before AttachReply. Nothing here uses the ticket up."""

    def setUp(self):
        self.device = cluster.device()
        self.grant = self.device.grant()

    def test_wrong_frames_are_answered_with_close(self):
        # A Resume begins something; alone it is no breach.
        for name, frame in {**no_frames(), **before_attach([Kind.ATTACH, Kind.RESUME])}.items():
            with self.subTest(name):
                connection = self.connect(self.grant.address, self.device.source)
                connection.send_if_open(frame)
                connection.expect_close(CloseReason.PROTOCOL_ERROR)
        self.keep(self.device.attach(self.grant)).heartbeat()

    def test_an_attach_has_exactly_its_fields(self):
        body = rcu1.cut(self.grant.attach_frame())[0].body
        for name, wrong in {"more": body + b"\0", "less": body[:-1], "none": b""}.items():
            with self.subTest(name):
                connection = self.connect(self.grant.address, self.device.source)
                connection.send(rcu1.frame(Kind.ATTACH, 1, wrong))
                connection.expect_close(CloseReason.PROTOCOL_ERROR)
        self.keep(self.device.attach(self.grant)).heartbeat()

    def test_a_reset_does_not_destroy_the_close(self):
        connection = self.connect(self.grant.address, self.device.source)
        connection.send_if_open(right(Kind.HEARTBEAT), bytes(20_000))
        connection.expect_close(CloseReason.PROTOCOL_ERROR)
        connection.expect_still_read()

    def test_an_attach_in_one_byte_pieces(self):
        session = self.keep(Session(self.grant.address, self.device.source))
        session.send_bytewise(self.grant.attach_frame(id=1))
        session.read_admission(self.grant)
        session.heartbeat()

    def test_half_an_attach_and_gone(self):
        for size in (1, 12, 59):
            connection = self.connect(self.grant.address, self.device.source)
            connection.send(self.grant.attach_frame()[:size])
            connection.reset()
        self.keep(self.device.attach(self.grant)).heartbeat()


class Attached(ContractTest):
    def setUp(self):
        self.device = cluster.device()

    def session(self):
        return self.keep(self.device.come_in())

    def expect_protocol_error(self, cases):
        for name, frame in cases.items():
            with self.subTest(name):
                session = self.session()
                session.send_if_open(frame)
                session.expect_close(CloseReason.PROTOCOL_ERROR)

    def test_bytes_that_are_no_frame(self):
        self.expect_protocol_error(no_frames())

    def test_a_known_kind_in_the_wrong_direction(self):
        self.expect_protocol_error({kind.name: right(kind) for kind in FROM_CLUSTER})

    def test_a_known_kind_in_the_wrong_state(self):
        kinds = (Kind.LOGIN, Kind.ATTACH, Kind.RESUME, Kind.RESUME_PROOF)
        self.expect_protocol_error({kind.name: right(kind) for kind in kinds})

    def test_its_own_attach_once_more_in_the_same_segment(self):
        grant = self.device.grant()
        session = self.keep(Session(grant.address, self.device.source))
        session.send(grant.attach_frame(id=1), grant.attach_frame(id=2))
        session.read_admission(grant)
        session.expect_close(CloseReason.PROTOCOL_ERROR)

    def test_a_body_has_exactly_its_fields(self):
        reply = rcu1.cut(right(Kind.COMMAND_REPLY))[0].body
        flag = {"command_id": 1, "status": 0, "more": 2, "payload": b""}
        self.expect_protocol_error(
            {
                "heartbeat with a byte": bytes.fromhex(VECTORS["heartbeat with a byte left over"]["frame"]),
                "command reply with a byte more": rcu1.frame(Kind.COMMAND_REPLY, 3, reply + b"\0"),
                "command reply with a byte less": rcu1.frame(Kind.COMMAND_REPLY, 3, reply[:-1]),
                "command reply without a body": rcu1.frame(Kind.COMMAND_REPLY, 3),
                "a flag of 2": rcu1.frame(Kind.COMMAND_REPLY, 3, rcu1.encode_body(Kind.COMMAND_REPLY, flag)),
                "telemetry of 16 bytes": rcu1.frame(Kind.TELEMETRY, 3, bytes(16)),
                "telemetry without a body": rcu1.frame(Kind.TELEMETRY, 3),
            }
        )

    def test_a_kind_that_nobody_knows_is_ignored(self):
        session = self.session()
        session.send(bytes.fromhex(VECTORS["a kind nobody knows"]["frame"]))
        for kind in UNKNOWN_KINDS:
            for size in (0, 1, BODY_BYTES_MAX):
                session.send(rcu1.frame(kind, session.next_id(), bytes(size)))
        session.heartbeat()

    def test_a_reply_to_no_pending_command_is_ignored(self):
        session = self.session()
        session.send(right(Kind.COMMAND_REPLY), bytes.fromhex(VECTORS["command reply, more to come"]["frame"]))
        session.heartbeat()

    def test_many_frames_in_one_segment(self):
        session = self.session()
        frames, asked = [], {}
        for seq in range(4):
            id = session.next_id()
            asked[id] = rcu1.telemetry(seq, T0, fuel(seq))
            frames.append(rcu1.frame(Kind.TELEMETRY, id, asked[id]))
            frames.append(rcu1.frame(0x1F, session.next_id(), b"skip me"))
        heartbeats = [session.next_id() for _ in range(20)]
        frames += [rcu1.frame(Kind.HEARTBEAT, id) for id in heartbeats]
        session.send(*frames)
        beaten, acked = [], {}
        while len(beaten) + len(acked) < len(heartbeats) + len(asked):
            frame = session.receive()
            if frame.kind == Kind.HEARTBEAT_REPLY:
                beaten.append(frame.id)
            else:
                self.assertEqual(Kind.TELEMETRY_ACK, frame.kind)
                acked[frame.id] = rcu1.decode_body(Kind.TELEMETRY_ACK, frame.body)["status"]
        self.assertEqual(heartbeats, sorted(beaten))
        self.assertEqual({id: AckStatus.STORED for id in asked}, acked)
        self.assertEqual([(seq, T0) for seq in range(4)], cluster.seqs("telemetry_fuel", self.device))

    def test_a_session_in_one_byte_pieces(self):
        session = self.session()
        id = session.next_id()
        body = rcu1.telemetry(9, T0, fuel(9), custom(b"piece by piece"))
        session.send_bytewise(rcu1.frame(Kind.TELEMETRY, id, body), rcu1.frame(0x1F, 200, b"?"))
        self.assertEqual(AckStatus.STORED, session.read_acks({id: body})[id]["status"])
        id = session.next_id()
        session.send_bytewise(rcu1.frame(Kind.HEARTBEAT, id))
        self.assertEqual(id, session.receive_kind(Kind.HEARTBEAT_REPLY)[0])

    def test_every_cut_of_two_frames(self):
        session = self.session()
        for size in range(1, 24):
            ids = [session.next_id(), session.next_id()]
            stream = b"".join(rcu1.frame(Kind.HEARTBEAT, id) for id in ids)
            session.send(stream[:size])
            session.send(stream[size:])
            self.assertEqual(ids, [session.receive_kind(Kind.HEARTBEAT_REPLY)[0] for _ in ids])

    def test_ids_up_to_the_last_are_repeated(self):
        session = self.session()
        for id in (1, 0x00FF, 0x0100, 0x8000, 0xFFFF):
            session.send(rcu1.frame(Kind.HEARTBEAT, id))
            self.assertEqual(id, session.receive_kind(Kind.HEARTBEAT_REPLY)[0])

    def test_a_reset_does_not_destroy_the_close(self):
        session = self.session()
        session.send_if_open(right(Kind.LOGIN), bytes(20_000))
        session.expect_close(CloseReason.PROTOCOL_ERROR)
        session.expect_still_read()

    def test_what_was_right_before_a_wrong_frame_is_still_stored_once_acknowledged(self):
        session = self.session()
        session.report(1, T0, fuel(1))
        session.send(bytes.fromhex(VECTORS["heartbeat with a wrong crc"]["frame"]))
        session.expect_close(CloseReason.PROTOCOL_ERROR)
        self.assertEqual([(1, T0)], cluster.seqs("telemetry_fuel", self.device))
