"""What the contract tests share: a cluster for a module, slow tests side by side, records to send."""

import concurrent.futures
import struct
import sys
import unittest

import records
import rcu1
from client import Connection, check
from cluster import Cluster, check_received_at
from rcu1 import AttachStatus, Kind

T0 = 1_767_225_600_000
"""A recorded time: 2026-01-01, as in the vectors."""


def running_cluster(**tables):
    """A cluster for the tests of one module; that it ends with 0 is judged with them."""
    cluster = Cluster(**tables)
    unittest.addModuleCleanup(cluster.discard)
    return cluster.start()


def side_by_side(test_case):
    """Class decorator for tests that mostly wait: they all run at once.

    The class that the runner sees starts each test in a thread of its own; what
    it runs in its turn waits for that thread and fails as the test did.
    """
    names = unittest.TestLoader().getTestCaseNames(test_case)

    def run(name):
        result = unittest.TestResult()
        test_case(name).run(result)
        return result

    def start(cls):
        pool = concurrent.futures.ThreadPoolExecutor(len(names))
        cls.addClassCleanup(pool.shutdown)
        cls.results = {name: pool.submit(run, name) for name in names}

    def waiting(name):
        def wait(self):
            result = self.results[name].result()
            for _, text in result.failures + result.errors:
                self.fail(text)

        return wait

    waiting_class = type(test_case.__name__, (unittest.TestCase,), {name: waiting(name) for name in names})
    waiting_class.__module__ = test_case.__module__
    waiting_class.setUpClass = classmethod(start)
    return waiting_class


def took(what, seconds, promised_s):
    """Says what a promised time came to. Its deadline in a test is wider: other work shares the machine."""
    print(f"{what}: {seconds:.1f} s (promised {promised_s} s)", file=sys.stderr)


def fuel(used_ml, offset_ms=0):
    """A record that can be told from others by one number."""
    return rcu1.record(records.FUEL, struct.pack("<HIQ", 5_000, 1_200, used_ml), offset_ms)


def custom(payload, offset_ms=0, channel=7):
    return rcu1.record(records.CUSTOM, struct.pack("<H", channel) + payload, offset_ms)


class ContractTest(unittest.TestCase):
    def connect(self, address, source):
        return self.keep(Connection(address, source))

    def keep(self, connection):
        """Closes it with the test."""
        self.addCleanup(connection.close)
        return connection

    def expect_not_admitted(self, connection, id=1):
        """AttachReply `not_admitted` with this id, then the end."""
        answered, reply = connection.receive_kind(Kind.ATTACH_REPLY)
        self.assertEqual((id, AttachStatus.NOT_ADMITTED), (answered, reply["status"]))
        self.assertIsNone(connection.receive())

    def expect_not_admitted_or_end(self, connection):
        """Where the contract does not say whether the source still holds a grant: either form of `not_admitted`."""
        try:
            frame = connection.receive()
        except ConnectionResetError:
            return
        if frame is not None:
            check(frame.kind == Kind.ATTACH_REPLY, f"kind {frame.kind} instead of ATTACH_REPLY")
            reply = rcu1.decode_body(Kind.ATTACH_REPLY, frame.body)
            self.assertEqual(AttachStatus.NOT_ADMITTED, reply["status"])

    def grant_at(self, cluster, address, source):
        """A device that holds a grant for this logic server from this source, and the grant."""
        for _ in range(40):
            device = cluster.device().elsewhere(source=source)
            grant = device.grant()
            if grant.address == address:
                return device, grant
        raise AssertionError(f"no login of 40 was sent to {address}")

    def assert_row(self, row, seq, recorded_at, columns):
        """A row of the database holds this record."""
        self.assertEqual((seq, recorded_at), (row["seq"], row["recorded_at"]))
        check_received_at(row)
        for name, value in columns.items():
            if isinstance(value, float):
                self.assertAlmostEqual(value, row[name], 9, name)
            else:
                self.assertEqual(value, row[name], name)
