"""The two ways in which a cluster runs: as `rcu up`, or as processes of their own on PostgreSQL.

$RCU_CONTRACT says which: `up` (where it is not set), `processes`, or `processes-sqlite`. What a device
meets must be the same; so no test knows which one it is. `processes` needs the PostgreSQL that
`servers` names in $RCU_TEST_POSTGRES (as scripts/test starts it).
"""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "config" / "schema" / "postgres" / "roles.sql"
START_DEADLINE_S = 60
STOP_DEADLINE_S = 60
COMMAND_DEADLINE_S = 60
LOGIC_SERVERS = 2
"""As many as `rcu up` has."""

_database_numbers = itertools.count(1)

# What `rcu` remembers is not for whoever runs this.
for name in ("XDG_STATE_HOME", "HOME"):
    os.environ.pop(name, None)


def binary():
    """The binary is $RCU_BIN, else target/debug/rcu; it is never built here. The servers lie beside it."""
    path = Path(os.environ.get("RCU_BIN", ROOT / "target" / "debug" / "rcu")).absolute()
    if not path.exists():
        raise FileNotFoundError(f"{path}: build it first (cargo build), or say where it is in RCU_BIN")
    return path


def run_in(directory, tables):
    """What runs in the directory, with these tables of configuration."""
    kind = os.environ.get("RCU_CONTRACT", "up")
    if kind == "up":
        return Up(directory, tables)
    if kind in ("processes", "processes-sqlite"):
        return Processes(directory, tables, SqliteFile(directory) if kind.endswith("sqlite") else PostgresDatabase())
    raise ValueError(f"RCU_CONTRACT={kind}: up, processes or processes-sqlite")


def command(*arguments, **environment):
    done = subprocess.run(
        [binary(), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE_S,
        env=os.environ | environment,
    )
    if done.returncode != 0:
        raise AssertionError(f"rcu {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
    return done.stdout


class SqliteFile:
    def __init__(self, directory):
        self.path = directory / "rcu.db"
        self.arguments = ["--sqlite"]

    def rows(self, table, account):
        database = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)
        database.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in database.execute(_query("t.*", table, "?"), (account,))]
        finally:
            database.close()

    def discard(self):
        """The file goes with its directory."""


class PostgresDatabase:
    """A database of its own on the server of $RCU_TEST_POSTGRES."""

    def __init__(self):
        shared = os.environ.get("RCU_TEST_POSTGRES")
        if not shared:
            raise AssertionError("RCU_CONTRACT=processes needs a PostgreSQL: run this under `servers`, as scripts/test does")
        self._server = shared
        self._name = f"rcu_contract_{os.getpid()}_{next(_database_numbers)}"
        self._sql(self._server, f"CREATE DATABASE {self._name} OWNER rcu_owner")
        self.url = self._url_of("rcu_owner")
        # Accounts may be added before the first start.
        command("db", "migrate", "--database", self.url)
        self._psql(self._url_of("postgres"), "-f", ROLES)
        self.arguments = ["--database", self.url, "--read-database", self._url_of("rcu_read")]
        self.arguments += ["--conn-database", self._url_of("rcu_login")]
        self.arguments += ["--logic-database", self._url_of("rcu_telemetry")]

    def _url_of(self, role):
        """`servers` names the superuser's."""
        url = self._server.replace("/postgres?", f"/{self._name}?")
        return url.replace("user=postgres", f"user={role}")

    def rows(self, table, account):
        """As SQLite has them: times in Unix milliseconds, bytes as bytes."""
        times = "jsonb_build_object('recorded_at', {}, 'received_at', {})".format(
            *(f"(extract(epoch FROM {name}) * 1000)::bigint" for name in ("recorded_at", "received_at"))
        )
        said = self._sql(self._url_of("rcu_read"), _query(f"to_jsonb(t) || {times}", table, f"'{account}'"))
        rows = [json.loads(line) for line in said.splitlines()]
        return [{name: _bytes_of(value) for name, value in row.items()} for row in rows]

    def discard(self):
        self._sql(self._server, f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    @classmethod
    def _sql(cls, url, statement):
        return cls._psql(url, "-c", statement)

    @staticmethod
    def _psql(url, *arguments):
        done = subprocess.run(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *arguments, url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
        )
        if done.returncode != 0:
            raise AssertionError(f"psql: {done.stderr}")
        return done.stdout


def _query(columns, table, account):
    return (
        f"SELECT {columns} FROM {table} t JOIN accounts a ON a.id = t.account_id"
        f" WHERE a.name = {account} ORDER BY t.seq, t.recorded_at"
    )


def _bytes_of(value):
    return bytes.fromhex(value[2:]) if isinstance(value, str) and value.startswith("\\x") else value


class Up:
    """`rcu up`: one process."""

    def __init__(self, directory, tables):
        self.data = directory / "data"
        self.database = SqliteFile(self.data)
        self._config = directory / "rcu.toml"
        free = {"balancer": {"listen": "127.0.0.1:0"}, "conn_server": {}, "logic_server": {"listen": "127.0.0.1:0"}}
        lines = []
        for table, values in free.items():
            lines.append(f"[{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in (values | tables.get(table, {})).items()]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._log = directory / "log"
        self._process = None

    def start(self):
        """Returns where devices log in, and where they attach."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), "up", "--data", self.data, "--config", self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while (said := self._addresses()) is None:
            if self._process.poll() is not None:
                raise AssertionError(f"`rcu up` ended with {self._process.returncode}\n{self._log_end()}")
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"`rcu up` did not say where it listens\n{self._log_end()}")
            time.sleep(0.02)
        return said

    def _addresses(self):
        try:
            said = json.loads((self.data / "up.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if said["pid"] != self._process.pid:
            return None
        return said["balancer"][0], [server["device"] for server in said["logic_servers"]]

    def _log_end(self):
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])

    def runs(self):
        return self._process is not None and self._process.poll() is None

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

    def device_command(self, *arguments):
        return command("device", *arguments, "--data", self.data)


class Processes:
    """Balancer, conn server and two logic servers, as `scripts/cluster` starts and stops them."""

    def __init__(self, directory, tables, database):
        self.data = directory
        self.database = database
        self._settings = [
            f"--set={table}.{key}={json.dumps(value)}" for table, values in tables.items() for key, value in values.items()
        ]
        self._stopping = None
        self._runs = False
        command("keys", "new", directory / "keys")

    def _script(self, *arguments):
        return [sys.executable, ROOT / "scripts" / "cluster", *arguments, "--dir", self.data]

    def start(self):
        """Returns where devices log in, and where they attach."""
        arguments = ["--free-ports", f"--logic-servers={LOGIC_SERVERS}", "--bin", binary().parent]
        started = subprocess.run(
            self._script("start", *arguments, *self.database.arguments, *self._settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_DEADLINE_S,
        )
        if started.returncode != 0:
            raise AssertionError(f"scripts/cluster start: {started.returncode}\n{started.stderr}")
        self._runs = True

        def devices_at(name):
            return json.loads((self.data / f"{name}.json").read_text(encoding="utf-8"))["devices"][0]

        return devices_at("balancer-1"), [devices_at(f"logic-{number + 1}") for number in range(LOGIC_SERVERS)]

    def runs(self):
        return self._runs

    def terminate(self):
        """SIGTERM to one after another, without waiting for the last."""
        self._runs = False
        self._stopping = subprocess.Popen(
            self._script("stop"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait_stopped(self):
        """All of them must end in order."""
        told, _ = self._stopping.communicate(timeout=STOP_DEADLINE_S)
        if self._stopping.returncode != 0:
            raise AssertionError(f"scripts/cluster stop: {self._stopping.returncode}\n{told}")
        for log in self.data.glob("*.log"):
            text = log.read_text(encoding="utf-8", errors="replace")
            if "panicked" in text:
                raise AssertionError(f"{log.name}:\n{text}")

    def device_command(self, *arguments):
        if isinstance(self.database, SqliteFile):
            return command("device", *arguments, "--data", self.data)
        master = str(self.data / "keys" / "master")
        return command("device", *arguments, "--database", self.database.url, RCU_MASTER_KEY_FILE=master)
