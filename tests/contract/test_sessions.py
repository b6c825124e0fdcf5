"""One account, several connections: the newer session ends the older one (0x04)."""

import threading

from client import Session
from cluster import new_source
from rcu1 import AttachStatus, CloseReason, Kind, decode_body
from support import T0, ContractTest, fuel, running_cluster

ROUNDS = 6
"""Grants of one account may go to one logic server or to two: enough rounds to see both."""

cluster = None


def setUpModule():
    global cluster
    cluster = running_cluster()


class Takeover(ContractTest):
    def test_the_older_connection_is_closed_replaced(self):
        device = cluster.device()
        older = self.keep(device.come_in())
        older.report(1, T0, fuel(1))
        newer = self.keep(device.come_in())
        older.expect_replaced()
        newer.heartbeat()
        newer.report(2, T0, fuel(2))
        self.assertEqual([(1, T0), (2, T0)], cluster.seqs("telemetry_fuel", device))

    def test_from_another_source_too(self):
        device = cluster.device()
        older = self.keep(device.come_in())
        moved = device.elsewhere(source=new_source())
        newer = self.keep(moved.come_in())
        older.expect_replaced()
        newer.heartbeat()

    def test_a_login_alone_ends_nothing(self):
        device = cluster.device()
        session = self.keep(device.come_in())
        grants = [device.grant() for _ in range(2)]
        session.heartbeat()
        newer = self.keep(device.attach(grants[-1]))
        session.expect_replaced()
        newer.heartbeat()

    def test_a_chain_of_takeovers_leaves_the_last(self):
        device = cluster.device()
        sessions = [self.keep(device.come_in()) for _ in range(8)]
        for session in sessions[:-1]:
            session.expect_replaced()
        sessions[-1].heartbeat()

    def test_other_accounts_are_not_touched(self):
        device = cluster.device()
        neighbour_device = cluster.device().elsewhere(source=device.source)
        neighbour = self.keep(neighbour_device.come_in())
        for _ in range(3):
            self.keep(device.come_in())
        neighbour.heartbeat()

    def test_after_a_connection_that_broke_a_device_comes_back_at_once(self):
        device = cluster.device()
        for seq in range(5):
            session = device.come_in()
            session.report(seq, T0, fuel(seq))
            session.reset()
        self.keep(device.come_in()).heartbeat()
        self.assertEqual(5, len(cluster.rows("telemetry_fuel", device)))


class TwoLoginsBeforeEitherAttaches(ContractTest):
    def test_attached_in_the_order_of_the_logins(self):
        for _ in range(ROUNDS):
            device = cluster.device()
            first, second = device.grant(), device.grant()
            older = self.keep(device.attach(first))
            older.heartbeat()
            newer = self.keep(device.attach(second))
            older.expect_replaced()
            newer.heartbeat()

    def test_attached_in_the_other_order_the_newer_login_stays(self):
        """The contract leaves open whether the older login is not admitted or admitted and replaced."""
        for _ in range(ROUNDS):
            device = cluster.device()
            first, second = device.grant(), device.grant()
            newer = self.keep(device.attach(second))
            late = self.keep(Session(first.address, device.source))
            late.send_if_open(first.attach_frame())
            self.expect_turned_away(late)
            newer.heartbeat()
            newer.report(1, T0, fuel(1))

    def expect_turned_away(self, late):
        try:
            frame = late.receive()
        except ConnectionResetError:
            return
        if frame is None:
            return
        self.assertEqual(Kind.ATTACH_REPLY, frame.kind)
        if decode_body(Kind.ATTACH_REPLY, frame.body)["status"] == AttachStatus.OK:
            late.expect_close(CloseReason.REPLACED)

    def test_attached_at_the_same_moment_one_stays(self):
        for _ in range(ROUNDS):
            device = cluster.device()
            grants = [device.grant(), device.grant()]
            starts = threading.Barrier(len(grants))
            sessions = [self.keep(Session(grant.address, device.source)) for grant in grants]

            def attach(session, grant):
                starts.wait()
                session.send_if_open(grant.attach_frame())

            threads = [threading.Thread(target=attach, args=pair) for pair in zip(sessions, grants)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.expect_turned_away(sessions[0])
            sessions[1].read_admission(grants[1])
            sessions[1].heartbeat()
