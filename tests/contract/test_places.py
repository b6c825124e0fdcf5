"""`full`: when every logic server is at its limit (0x02)."""

import time

from client import DEADLINE_S, now_ms
from cluster import Cluster
from rcu1 import LoginStatus
from support import ContractTest, side_by_side

MAX_CONNECTIONS = 2
PLACES_MAX = 8
"""More than all logic servers together have."""
GRANT_TTL_S = 5


@side_by_side
class Full(ContractTest):
    def setUp(self):
        self.cluster = Cluster(
            logic_server={"max_connections": MAX_CONNECTIONS},
            conn_server={"grant_ttl_s": GRANT_TTL_S},
        )
        self.addCleanup(self.cluster.discard)
        self.cluster.start()

    def status(self, device, **login):
        return self.device_reply(device, **login)["status"]

    def device_reply(self, device, **login):
        return device.ask(device.login_frame(**login))

    def fill(self, take):
        """`take`s a place for device after device until a login is answered `full`.

        Returns [(device, what it took), …] and the device that was not let in.
        """
        taken = []
        for _ in range(PLACES_MAX + 1):
            device = self.cluster.device()
            login = device.login_frame()
            reply = device.ask(login)
            if reply["status"] == LoginStatus.FULL:
                self.assertGreaterEqual(len(taken), MAX_CONNECTIONS)
                return taken, device
            self.assertEqual(LoginStatus.OK, reply["status"])
            taken.append((device, take(device, device.grant_of(reply, login))))
        raise AssertionError(f"{len(taken)} places taken and not full")

    def attach(self, device, grant):
        return self.keep(device.attach(grant))

    def wait_for_a_place(self, device):
        """Logs in until it is let in; every other answer must be `full`."""
        deadline = time.monotonic() + DEADLINE_S
        while (status := self.status(device)) != LoginStatus.OK:
            self.assertEqual(LoginStatus.FULL, status)
            self.assertLess(time.monotonic(), deadline, "no place became free")
            time.sleep(0.1)

    def test_a_device_takes_over_its_own_place_only(self):
        taken, outside = self.fill(self.attach)
        for device, session in taken:
            newer = self.keep(device.come_in())
            session.expect_replaced()
            newer.heartbeat()
            self.assertEqual(LoginStatus.FULL, self.status(outside))

    def test_everything_else_is_judged_before(self):
        self.fill(self.attach)
        device = self.cluster.device()
        self.assertEqual(LoginStatus.CLOCK_SKEW, self.status(device, sent_at_ms=0))
        self.assertEqual(LoginStatus.REFUSED, self.status(device.elsewhere(key=bytes(32))))
        self.assertEqual(LoginStatus.FULL, self.status(device))
        disabled = self.cluster.device()
        self.cluster.command("disable", disabled.account)
        self.assertEqual(LoginStatus.DISABLED, self.status(disabled, sent_at_ms=now_ms()))

    def test_a_session_that_ends_frees_its_place(self):
        taken, outside = self.fill(self.attach)
        taken[0][1].close()
        self.wait_for_a_place(outside)
        for _, session in taken[1:]:
            session.heartbeat()

    def test_open_grants_hold_places_until_they_expire(self):
        taken, outside = self.fill(lambda device, grant: grant)
        began = time.monotonic()
        device, _ = taken[-1]
        self.assertEqual(LoginStatus.OK, self.status(device), "a second grant of one account takes no second place")
        self.assertEqual(LoginStatus.FULL, self.status(outside))
        self.wait_for_a_place(outside)
        self.assertLess(time.monotonic() - began, GRANT_TTL_S + DEADLINE_S)
