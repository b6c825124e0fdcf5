"""A cluster for tests: `rcu up` as a process of its own, spoken to only as an operator and a device would.

The binary is $RCU_BIN, else target/debug/rcu; it is never built here.
"""

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import rcu1
from client import Device, now_ms

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 30
STOP_DEADLINE_S = 30
COMMAND_DEADLINE_S = 30
FLEET_COUNT = 50
"""Accounts made by one `rcu device add --fleet`: a process for each would take longer than most tests."""

_source_numbers = itertools.count(1)


def new_source():
    """A loopback address that no other test uses: limits and grants go by source address."""
    high, low = divmod(next(_source_numbers), 250)
    return f"127.77.{high}.{low + 1}"


def _binary():
    path = Path(os.environ.get("RCU_BIN", ROOT / "target" / "debug" / "rcu")).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path}: build it first (cargo build), or say where it is in RCU_BIN")
    return path


def _toml(tables):
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


class Cluster:
    """One data directory and the process that serves it. Keywords are tables of the configuration file."""

    def __init__(self, **tables):
        settings = {"balancer": {"listen": "127.0.0.1:0"}, "conn_server": {}, "logic_server": {"listen": "127.0.0.1:0"}}
        for table, values in tables.items():
            settings[table].update(values)
        self._directory = Path(tempfile.mkdtemp(prefix="rcu-contract-"))
        self.data = self._directory / "data"
        self._config = self._directory / "rcu.toml"
        self._config.write_text(_toml(settings), encoding="utf-8")
        self._log = self._directory / "log"
        self._process = None
        self._fleet_key = os.urandom(32)
        self._fleet = []
        self._fleets = 0
        self._lock = threading.Lock()

    # --- the process ---

    def start(self):
        """Returns when the cluster has said where it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_binary(), "up", "--data", self.data, "--config", self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._read_addresses():
            if self._process.poll() is not None:
                raise AssertionError(f"`rcu up` ended with {self._process.returncode}\n{self._log_end()}")
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"`rcu up` did not say where it listens\n{self._log_end()}")
            time.sleep(0.02)
        return self

    def _read_addresses(self):
        try:
            said = json.loads((self.data / "up.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if said["pid"] != self._process.pid:
            return False
        self.balancer = _address(said["balancer"][0])
        self.devices_at = [_address(server["device"]) for server in said["logic_servers"]]
        return True

    def _log_end(self):
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])

    def terminate(self):
        """SIGTERM, without waiting."""
        self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self):
        """The process must end with 0."""
        try:
            code = self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"SIGTERM did not end `rcu up` in {STOP_DEADLINE_S} s\n{self._log_end()}") from None
        if code != 0:
            raise AssertionError(f"`rcu up` ended with {code} after SIGTERM\n{self._log_end()}")

    def stop(self):
        self.terminate()
        self.wait_stopped()

    def discard(self):
        """Stops the cluster and forgets its data."""
        try:
            if self._process and self._process.poll() is None:
                self.stop()
        finally:
            shutil.rmtree(self._directory)

    # --- accounts ---

    def command(self, *arguments):
        """What `rcu device ARGUMENTS` prints; it must succeed."""
        done = subprocess.run(
            [_binary(), "device", *arguments, "--data", self.data],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
        )
        if done.returncode != 0:
            raise AssertionError(f"rcu device {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
        return done.stdout

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
        self.command("add", "--fleet", prefix, "--count", str(FLEET_COUNT), "--fleet-key", key)
        self._fleet = [f"{prefix}-{number:06}" for number in range(1, FLEET_COUNT + 1)]

    def _device(self, account, key):
        return Device(account=account, key=key, balancer=self.balancer, source=new_source())

    # --- what is stored ---

    def rows(self, table, device):
        """The rows of a device in a table as dicts, without account_id, in order of seq and recorded_at."""
        query = (
            f"SELECT t.* FROM {table} t JOIN accounts a ON a.id = t.account_id"
            " WHERE a.name = ? ORDER BY seq, recorded_at"
        )
        database = sqlite3.connect(f"file:{self.data}/rcu.db?mode=ro", uri=True, timeout=10)
        database.row_factory = sqlite3.Row
        try:
            found = [dict(row) for row in database.execute(query, (device.account,))]
        finally:
            database.close()
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
