"""The gate of the long connection: whom a ticket admits, from where, and how often."""

import os

import rcu1
from client import DEADLINE_S, Session
from cluster import new_source
from rcu1 import CloseReason, Kind
from support import T0, ContractTest, custom, fuel, running_cluster

HEARTBEAT_S = 17
WINDOW = 5
AT_ONCE_S = 4
"""Earlier than the 5 s of attach_timeout, which would also end the connection."""

cluster = None
anywhere = None


def setUpModule():
    global cluster, anywhere
    cluster = running_cluster(logic_server={"heartbeat_s": HEARTBEAT_S, "window": WINDOW})
    anywhere = running_cluster(conn_server={"source_check": "off"})


class Admitted(ContractTest):
    def test_attach_reply_says_how_the_session_goes(self):
        session = self.keep(cluster.device().come_in())
        self.assertEqual(HEARTBEAT_S, session.admission["heartbeat_s"])
        self.assertEqual(WINDOW, session.admission["window"])
        self.assertEqual(0, session.admission["resume_ttl_s"])
        self.assertEqual(b"", session.admission["resumption"])

    def test_attach_and_telemetry_in_one_segment(self):
        device = cluster.device()
        grant = device.grant()
        session = self.keep(Session(grant.address, device.source))
        bodies = {id: rcu1.telemetry(id, T0, fuel(id)) for id in (2, 3)}
        frames = [rcu1.frame(Kind.TELEMETRY, id, body) for id, body in bodies.items()]
        session.send(grant.attach_frame(id=1), *frames)
        session.read_admission(grant)
        acks = session.read_acks(bodies)
        self.assertEqual([0, 0], [ack["status"] for ack in acks.values()])
        self.assertEqual([(2, T0), (3, T0)], cluster.seqs("telemetry_fuel", device))

    def pipelined(self, grant, bytes_in_all):
        """Attach and one Telemetry behind it, together of this length; and the Telemetry's body."""
        attach = grant.attach_frame(id=1)
        fixed = len(attach) + len(rcu1.frame(Kind.TELEMETRY, 2, rcu1.telemetry(1, T0, custom(b""), custom(b""))))
        fill = bytes_in_all - fixed
        body = rcu1.telemetry(1, T0, custom(bytes(fill // 2)), custom(bytes(fill - fill // 2)))
        frames = attach + rcu1.frame(Kind.TELEMETRY, 2, body)
        self.assertEqual(bytes_in_all, len(frames))
        return frames, body

    def test_512_bytes_are_kept_behind_attach(self):
        device = cluster.device()
        grant = device.grant()
        session = self.keep(Session(grant.address, device.source))
        frames, body = self.pipelined(grant, rcu1.BEFORE_ATTACH_BYTES_MAX)
        session.send(frames)
        session.read_admission(grant)
        self.assertEqual(0, session.read_acks({2: body})[2]["status"])
        self.assertEqual(2, len(cluster.rows("telemetry_custom", device)))

    def test_a_long_frame_may_begin_behind_attach(self):
        """The limit is on the bytes that come without waiting, not on the frame that they begin."""
        device = cluster.device()
        grant = device.grant()
        session = self.keep(Session(grant.address, device.source))
        frames, body = self.pipelined(grant, rcu1.BEFORE_ATTACH_BYTES_MAX + 50)
        session.send(frames[: rcu1.BEFORE_ATTACH_BYTES_MAX])
        session.read_admission(grant)
        session.send(frames[rcu1.BEFORE_ATTACH_BYTES_MAX :])
        self.assertEqual(0, session.read_acks({2: body})[2]["status"])

    def test_more_than_512_bytes_behind_attach(self):
        device = cluster.device()
        grant = device.grant()
        session = self.keep(Session(grant.address, device.source))
        frames, _ = self.pipelined(grant, rcu1.BEFORE_ATTACH_BYTES_MAX + 1)
        session.send(frames)
        before, _ = session.expect_close_after_frames(CloseReason.PROTOCOL_ERROR)
        self.assertIn([frame.kind for frame in before], ([], [Kind.ATTACH_REPLY]))

    def test_the_ticket_fits_one_logic_server(self):
        device = cluster.device()
        grant = device.grant()
        for address in cluster.devices_at:
            if address != grant.address:
                self.connect(address, device.source).expect_end_without_frame(AT_ONCE_S)
        self.keep(device.attach(grant)).heartbeat()


class NotAdmitted(ContractTest):
    def test_a_wrong_proof_does_not_use_the_ticket_up(self):
        device = cluster.device()
        grant = device.grant()
        for _ in range(3):
            connection = self.connect(grant.address, device.source)
            connection.send(grant.attach_frame(id=9, proof=os.urandom(32)))
            self.expect_not_admitted(connection, id=9)
        self.keep(device.attach(grant)).heartbeat()

    def test_a_ticket_admits_once(self):
        device = cluster.device()
        grant = device.grant()
        session = self.keep(device.attach(grant))
        # Another open grant of this source: without one the connection would be closed before the Attach.
        other, other_grant = self.grant_at(cluster, grant.address, device.source)
        connection = self.connect(grant.address, device.source)
        connection.send(grant.attach_frame())
        self.expect_not_admitted(connection)
        session.heartbeat()
        self.keep(other.attach(other_grant)).heartbeat()

    def test_after_its_ticket_was_used_a_source_holds_no_grant(self):
        device = cluster.device()
        grant = device.grant()
        self.keep(device.attach(grant))
        self.connect(grant.address, device.source).expect_end_without_frame(AT_ONCE_S)

    def test_a_ticket_that_nobody_gave(self):
        device = cluster.device()
        grant = device.grant()
        connection = self.connect(grant.address, device.source)
        ticket = os.urandom(16)
        body = ticket + rcu1.proof(grant.session_key, "attach", ticket)
        connection.send(rcu1.frame(Kind.ATTACH, 1, body))
        self.expect_not_admitted(connection)
        self.keep(device.attach(grant)).heartbeat()

    def test_what_follows_an_attach_that_is_not_admitted_is_dropped(self):
        device = cluster.device()
        grant = device.grant()
        connection = self.connect(grant.address, device.source)
        telemetry = rcu1.frame(Kind.TELEMETRY, 2, rcu1.telemetry(1, T0, fuel(1)))
        connection.send(grant.attach_frame(proof=bytes(32)), telemetry)
        self.expect_not_admitted(connection)
        session = self.keep(device.attach(grant))
        session.report(2, T0, fuel(2))
        self.assertEqual([(2, T0)], cluster.seqs("telemetry_fuel", device))

    def test_resume_is_answered_not_admitted_where_there_is_no_resumption(self):
        device = cluster.device()
        grant = device.grant()
        for resumption in (b"", os.urandom(48)):
            connection = self.connect(grant.address, device.source)
            body = rcu1.encode_body(Kind.RESUME, {"resumption": resumption})
            connection.send(rcu1.frame(Kind.RESUME, 31, body))
            self.expect_not_admitted(connection, id=31)
        self.keep(device.attach(grant)).heartbeat()


class AnotherAddress(ContractTest):
    def test_a_source_without_a_grant_is_closed_without_a_frame(self):
        for address in cluster.devices_at:
            source = new_source()
            self.connect(address, source).expect_end_without_frame(AT_ONCE_S)

    def test_a_right_attach_from_a_source_without_a_grant_changes_nothing(self):
        device = cluster.device()
        grant = device.grant()
        for _ in range(5):
            connection = self.connect(grant.address, new_source())
            connection.send_if_open(grant.attach_frame())
            connection.expect_end_without_frame(DEADLINE_S)
        self.keep(device.attach(grant)).heartbeat()

    def test_a_right_attach_from_the_source_of_another_grant_changes_nothing(self):
        device = cluster.device()
        grant = device.grant()
        thief, thief_grant = self.grant_at(cluster, grant.address, new_source())
        for proof in (None, bytes(32)):
            connection = self.connect(grant.address, thief.source)
            connection.send(grant.attach_frame(proof=proof))
            self.expect_not_admitted(connection)
        self.keep(device.attach(grant)).heartbeat()
        self.keep(thief.attach(thief_grant)).heartbeat()

    def test_it_may_be_another_address_where_the_operator_says_so(self):
        device = anywhere.device()
        grant = device.grant()
        roaming = device.elsewhere(source=new_source())
        session = self.keep(roaming.attach(grant))
        session.report(1, T0, fuel(1))
        self.assertEqual([(1, T0)], anywhere.seqs("telemetry_fuel", device))
