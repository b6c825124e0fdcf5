"""A peer that takes what it can get: beside it the others come in, are answered and stored (limits of section 1)."""

import socket
import threading

import rcu1
from client import Connection
from cluster import new_source
from rcu1 import Kind
from support import T0, ContractTest, fuel, running_cluster

PENDING_MAX = 16
OTHERS = 8

cluster = None


def setUpModule():
    global cluster
    cluster = running_cluster(logic_server={"pending_max": PENDING_MAX})


class Isolation(ContractTest):
    def others_fare_well(self, address):
        """Others at this logic server, while something goes on there."""
        for number in range(OTHERS):
            device, grant = self.grant_at(cluster, address, new_source())
            session = self.keep(device.attach(grant))
            session.heartbeat()
            session.report(1, T0, fuel(number))
            self.assertEqual([1], [seq for seq, _ in cluster.seqs("telemetry_fuel", device)])

    def test_a_session_that_floods_takes_nothing_from_the_others(self):
        device = cluster.device()
        grant = device.grant()
        flooder = self.keep(device.attach(grant))
        flood = rcu1.frame(Kind.HEARTBEAT, 1) * 4_096
        over = threading.Event()
        answered = []

        def write():
            while not over.is_set():
                flooder.send(flood)
            flooder.socket.shutdown(socket.SHUT_WR)

        def read():
            while piece := flooder.socket.recv(1 << 20):
                answered.append(len(piece))

        threads = [threading.Thread(target=each) for each in (write, read)]
        for thread in threads:
            thread.start()
        try:
            self.others_fare_well(grant.address)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        # It keeps the contract, so it stays until it goes, and is answered.
        self.assertGreater(sum(answered), len(flood))

    def test_an_address_that_opens_connections_pushes_out_its_own(self):
        device = cluster.device()
        grant = device.grant()
        first = self.keep(Connection(grant.address, device.source))
        for _ in range(4 * PENDING_MAX):
            self.connect(grant.address, device.source)
        first.expect_end_without_frame()
        self.others_fare_well(grant.address)
        # Its own grant is still good.
        self.keep(device.attach(grant)).heartbeat()
