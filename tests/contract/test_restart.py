"""SIGTERM and a second life on the same data: nothing that was acknowledged is lost."""

import threading

import rcu1
from client import Broken
from cluster import Cluster
from rcu1 import AckStatus, CloseReason, Kind, LoginStatus
from support import T0, ContractTest, fuel, side_by_side

DEVICES = 8


class Life:
    """A device that reports without a pause until it is sent away."""

    def __init__(self, device):
        self.device = device
        self.session = device.come_in()
        self.session.report(0, T0, fuel(0))
        self.acknowledged = [0]
        self.retry_after_ms = None
        self.failure = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            seq = 0
            while self.retry_after_ms is None:
                seq += 1
                self._report(seq)
        except Exception as failure:
            self.failure = failure
        finally:
            self.session.close()

    def _report(self, seq):
        body = rcu1.telemetry(seq, T0, fuel(seq))
        self.session.send_if_open(rcu1.frame(Kind.TELEMETRY, self.session.next_id(), body))
        frame = self.session.receive()
        if frame is None:
            raise Broken("ended without Close(shutdown)")
        if frame.kind == Kind.CLOSE:
            close = rcu1.decode_body(Kind.CLOSE, frame.body)
            if close["reason"] != CloseReason.SHUTDOWN:
                raise Broken(f"Close({close['reason']}) instead of SHUTDOWN")
            self.retry_after_ms = close["retry_after_ms"]
            return
        ack = rcu1.decode_body(Kind.TELEMETRY_ACK, frame.body)
        if ack["status"] == AckStatus.STORED:
            self.acknowledged.append(ack["base_seq"])


@side_by_side
class Restart(ContractTest):
    def setUp(self):
        self.cluster = Cluster()
        self.addCleanup(self.cluster.discard)
        self.cluster.start()

    def test_sigterm_sends_every_device_away_and_keeps_every_acknowledged_record(self):
        lives = [Life(self.cluster.device()) for _ in range(DEVICES)]
        quiet = self.keep(self.cluster.device().come_in())
        self.cluster.terminate()
        quiet_ms = quiet.expect_close(CloseReason.SHUTDOWN)
        for life in lives:
            life.thread.join()
            if life.failure:
                raise life.failure
        waits = [quiet_ms, *(life.retry_after_ms for life in lives)]
        self.assertGreater(min(waits), 0)
        self.assertLessEqual(max(waits), 3_600_000)
        self.assertGreater(len(set(waits)), 1, "all devices are told to come back at once")
        self.cluster.wait_stopped()
        for life in lives:
            stored = {seq for seq, _ in self.cluster.seqs("telemetry_fuel", life.device)}
            self.assertLessEqual(set(life.acknowledged), stored)

    def test_accounts_and_rows_outlive_a_restart(self):
        device, disabled = self.cluster.device(), self.cluster.device()
        session = self.keep(device.come_in())
        session.report(1, T0, fuel(1), fuel(2))
        self.cluster.command("disable", disabled.account)
        self.cluster.terminate()
        session.expect_close(CloseReason.SHUTDOWN)
        self.cluster.wait_stopped()
        self.assertEqual([(1, T0), (2, T0)], self.cluster.seqs("telemetry_fuel", device))

        self.cluster.start()
        device = device.elsewhere(balancer=self.cluster.balancer)
        disabled = disabled.elsewhere(balancer=self.cluster.balancer)
        again = self.keep(device.come_in())
        again.report(2, T0, fuel(2), fuel(3))
        self.assertEqual([(1, T0), (2, T0), (3, T0)], self.cluster.seqs("telemetry_fuel", device))
        self.assertEqual(LoginStatus.DISABLED, disabled.ask(disabled.login_frame())["status"])

    def test_accounts_may_be_added_before_the_first_start(self):
        cluster = Cluster()
        self.addCleanup(cluster.discard)
        key = bytes(range(32))
        cluster.command("add", "early-bird", "--key", key.hex())
        cluster.start()
        early = cluster.device().elsewhere(account="early-bird", key=key)
        self.keep(early.come_in()).heartbeat()
