"""scripts/cluster, by which people try a cluster out on one machine: what they edit stays, and what they add belongs to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import runs
import said

SCRIPT = runs.ROOT / "scripts" / "cluster"


@unittest.skipIf(os.environ.get("RCU_CONTRACT"), "the same whatever devices are tried against: once is enough")
class OfProcesses(unittest.TestCase):
    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="rcu-script-"))
        self.start()

    def tearDown(self):
        self.script("stop")
        said.keep(self.directory)
        shutil.rmtree(self.directory)

    def script(self, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, SCRIPT, *arguments, "--dir", self.directory],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * runs.START_DEADLINE_S,
        )
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def start(self, *more):
        return self.script("start", "--sqlite", "--free-ports", "--logic-servers=1", "--bin", runs.binary().parent, *more)

    def said(self, name):
        return json.loads((self.directory / f"{name}.json").read_text(encoding="utf-8"))

    def edit(self, name, text):
        with (self.directory / f"{name}.toml").open("a", encoding="utf-8") as config:
            config.write(text)

    def nodes(self):
        """Names of the nodes that take part, as an operator sees them."""
        wanted = {"RCU_CLUSTER": self.said("conn-1")["link"], "RCU_OPERATOR_KEY_FILE": str(self.directory / "keys" / "operator")}
        listed = runs.command("node", "list", "--json", **wanted).splitlines()
        return {node["name"] for node in map(json.loads, listed) if node["state"] == "up"}

    def wait_for_nodes(self, *names):
        deadline = time.monotonic() + runs.START_DEADLINE_S
        while self.nodes() != set(names):
            self.assertLess(time.monotonic(), deadline, self.nodes())
            time.sleep(0.1)

    def test_what_was_edited_stays_and_is_told(self):
        self.edit("logic-1", "window = 16\n")
        self.script("stop")
        told = self.start("--set", "logic_server.window=4")
        self.assertIn("logic-1.toml was edited, and stays as it is", told)
        self.assertIn("window = 16", (self.directory / "logic-1.toml").read_text(encoding="utf-8"))
        # What nobody edited is written anew.
        self.script("stop")
        self.start("--set", "conn_server.nonces_max=1000")
        self.assertIn("nonces_max = 1000", (self.directory / "conn-1.toml").read_text(encoding="utf-8"))
        self.wait_for_nodes("conn-1", "logic-1", "balancer-1")

    def test_one_process_is_stopped_started_and_restarted(self):
        before = self.said("logic-1")
        self.script("stop", "logic-1")
        self.assertRegex(self.script("status", code=1), "logic-1 +was stopped")
        self.script("start", "logic-1")
        self.wait_for_nodes("conn-1", "logic-1", "balancer-1")
        self.assertIn("logic-1 runs", self.script("start", "logic-1", code=1))
        self.edit("logic-1", "window = 16\n")
        self.script("restart", "logic-1", "conn-1")
        self.wait_for_nodes("conn-1", "logic-1", "balancer-1")
        after = self.said("logic-1")
        self.assertEqual((before["devices"], before["link"]), (after["devices"], after["link"]))
        self.assertNotEqual(before["pid"], after["pid"])
        os.kill(after["pid"], signal.SIGKILL)
        time.sleep(0.2)
        self.assertRegex(self.script("status", code=1), "logic-1 +ended by itself; its log:")
        self.script("start", "logic-1")
        self.script("status")
        self.assertIn("no logic-7.toml; here are: logic-1", self.script("start", "logic-7", code=1).replace(f"{self.directory}/", ""))

    def test_a_cluster_grows_and_stays_grown(self):
        self.script("add", "logic-server")
        self.wait_for_nodes("conn-1", "logic-1", "logic-2", "balancer-1")
        self.script("add", "balancer")
        self.wait_for_nodes("conn-1", "logic-1", "logic-2", "balancer-1", "balancer-2")
        self.script("add", "conn-server")
        self.script("status")
        config = (self.directory / "balancer-2.toml").read_text(encoding="utf-8")
        self.assertIn(self.said("conn-2")["link"], config)
        self.script("stop")
        self.script("start", "--sqlite", "--free-ports", "--bin", runs.binary().parent)
        self.wait_for_nodes("conn-1", "logic-1", "logic-2", "balancer-1", "balancer-2")

    def test_a_file_that_somebody_adds_belongs_to_the_cluster(self):
        config = (self.directory / "logic-1.toml").read_text(encoding="utf-8")
        for at in (*self.said("logic-1")["devices"], self.said("logic-1")["link"]):
            config = config.replace(at, "127.0.0.1:0")
        (self.directory / "mine.toml").write_text(config.replace('"logic-1"', '"mine"'), encoding="utf-8")
        self.assertRegex(self.script("status"), "mine +was never started")
        self.assertIn("conn-1.toml does not name", self.script("start", "mine"))
        self.script("stop")
        self.start()
        self.wait_for_nodes("conn-1", "logic-1", "mine", "balancer-1")

    def test_an_edited_list_is_not_touched_and_what_to_add_is_told(self):
        self.edit("conn-1", "nonces_max = 1000\n")
        told = self.script("add", "logic-server")
        link = self.said("logic-2")["link"]
        self.assertIn(f'conn-1.toml was edited, and stays as it is: add "{link}" to logic_servers', told)


if __name__ == "__main__":
    unittest.main()
