"""A cluster for tests, spoken to only as an operator and a device would. How it runs, runs.py knows."""

import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path

import rcu1
import runs
import said
from client import Device, now_ms

FLEET_COUNT = 50
"""Accounts made by one `rcu device add --fleet`: a process for each would take longer than most tests."""

_source_numbers = itertools.count(1)


def new_source():
    """A loopback address that no other test uses: limits and grants go by source address."""
    high, low = divmod(next(_source_numbers), 250)
    return f"127.77.{high}.{low + 1}"


class Cluster:
    """One directory and what runs in it. Keywords are tables of the configuration."""

    def __init__(self, **tables):
        self._directory = Path(tempfile.mkdtemp(prefix="rcu-contract-"))
        self._runs = runs.run_in(self._directory, tables)
        self._fleet_key = os.urandom(32)
        self._fleet = []
        self._fleets = 0
        self._lock = threading.Lock()

    # --- what runs ---

    def start(self):
        """Returns when the cluster has said where it listens."""
        balancer, devices_at = self._runs.start()
        self.balancer = _address(balancer)
        self.devices_at = [_address(address) for address in devices_at]
        return self

    def terminate(self):
        """SIGTERM, without waiting."""
        self._runs.terminate()

    def wait_stopped(self):
        """It must end in order."""
        self._runs.wait_stopped()

    def stop(self):
        self.terminate()
        self.wait_stopped()

    def discard(self):
        """Stops the cluster and forgets its data."""
        try:
            if self._runs.runs():
                self.stop()
        finally:
            self._runs.database.discard()
            said.keep(self._directory)
            shutil.rmtree(self._directory)

    # --- accounts ---

    def command(self, *arguments):
        """What `rcu device ARGUMENTS` prints; it must succeed."""
        return self._runs.device_command(*arguments)

    def add(self, account):
        """A device with this very name, added alone."""
        key = os.urandom(32)
        self.command("add", account, "--key", key.hex())
        return self._device(account, key)

    def device(self):
        """A device of a new account, at a new source address."""
        with self._lock:
            if not self._fleet:
                self._add_fleet()
            account = self._fleet.pop()
        # The CLI's rule for keys of a fleet; not a part of the contract, so not in rcu1.py.
        return self._device(account, rcu1.proof(self._fleet_key, "fleet", account.encode("ascii")))

    def _add_fleet(self):
        self._fleets += 1
        prefix = f"fleet{self._fleets}"
        key = self._fleet_key.hex()
        said.secret("device", key)
        self.command("add", "--fleet", prefix, "--count", str(FLEET_COUNT), "--fleet-key", key)
        self._fleet = [f"{prefix}-{number:06}" for number in range(1, FLEET_COUNT + 1)]

    def _device(self, account, key):
        said.secret("device", key.hex())
        return Device(account=account, key=key, balancer=self.balancer, source=new_source())

    # --- what is stored ---

    def rows(self, table, device):
        """The rows of a device in a table as dicts, without account_id, in order of seq and recorded_at."""
        found = self._runs.database.rows(table, device.account)
        for row in found:
            del row["account_id"]
        return found

    def seqs(self, table, device):
        """(seq, recorded_at) of every row of a device in a table."""
        return [(row["seq"], row["recorded_at"]) for row in self.rows(table, device)]


def _address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def check_received_at(row):
    """received_at is the cluster's own clock, in Unix milliseconds."""
    age_ms = now_ms() - row["received_at"]
    if not -2_000 < age_ms < 120_000:
        raise AssertionError(f"received_at is {age_ms} ms ago")
