"""docs/device.py, which newcomers read and copy: it works, and it believes nobody without a proof."""

import socket
import subprocess
import sys
import threading

import rcu1
from client import DEADLINE_S, now_ms
from rcu1 import AttachStatus, Kind, LoginStatus
from runs import ROOT
from support import ContractTest, running_cluster

SCRIPT = ROOT / "docs" / "device.py"

cluster = None


def setUpModule():
    global cluster
    cluster = running_cluster()


def run(address, account, key):
    host, port = address
    return run_with(f"{host}:{port}", account, key.hex())


def run_with(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_S,
    )


class WithTheCluster(ContractTest):
    def test_it_stores_one_gps_record(self):
        device = cluster.device()
        done = run(device.balancer, device.account, device.key)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("stored", done.stdout)
        (row,) = cluster.rows("telemetry_gps", device)
        self.assertLess(abs(now_ms() - row["recorded_at"]), 60_000)
        self.assertAlmostEqual(31.1234567, row["latitude"], 9)
        self.assertAlmostEqual(-12.5, row["altitude_m"], 9)

    def test_it_says_when_it_is_refused(self):
        device = cluster.device()
        done = run(device.balancer, device.account, bytes(32))
        self.assertEqual(1, done.returncode)
        self.assertIn("status 1", done.stderr)
        self.assertEqual([], cluster.rows("telemetry_gps", device))


class WithoutACluster(ContractTest):
    """One sentence, whatever is wrong."""

    KEY = "00" * 32

    def expect(self, sentence, *arguments):
        done = run_with(*arguments)
        self.assertEqual(1, done.returncode)
        self.assertIn(sentence, done.stderr)
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)

    def test_wrong_arguments(self):
        for arguments in [(), ("localhost:10000", "a"), ("localhost", "a", self.KEY), ("localhost:x", "a", self.KEY)]:
            self.expect("Usage: python3 docs/device.py HOST:PORT ACCOUNT KEYHEX", *arguments)
        self.expect("an account is 1 to 32", "localhost:1", "a b", self.KEY)
        for key in ["KEY", self.KEY[1:], self.KEY + "00", "0x" + self.KEY]:
            self.expect("a key is 64 hex digits", "localhost:1", "a", key)

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.expect(f"cannot connect to 127.0.0.1:{port}: ", f"127.0.0.1:{port}", "a", self.KEY)
        self.expect("cannot connect to 127.0.0.1:70000: ", "127.0.0.1:70000", "a", self.KEY)
        self.expect("cannot connect to nowhere.invalid:1: ", "nowhere.invalid:1", "a", self.KEY)


class WithAnImpostor(ContractTest):
    """A server that speaks the protocol but does not know the key."""

    KEY = bytes(range(32))

    def serve(self, *answers):
        """Answers one frame on each connection, in turn; returns the address."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(DEADLINE_S)
        self.addCleanup(listener.close)
        self.served = 0

        def run_server():
            for answer in answers:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    question = rcu1.cut(connection.recv(1024))[0]
                    self.served += 1
                    connection.sendall(answer(question))

        thread = threading.Thread(target=run_server)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        return listener.getsockname()

    def login_reply(self, question, key, port):
        fields = {
            "status": LoginStatus.OK,
            "retry_after_ms": 0,
            "server_time_ms": now_ms(),
            "host": "127.0.0.1",
            "port": port,
            "ticket": bytes(16),
            "ticket_ttl_s": 30,
        }
        nonce = rcu1.decode_body(Kind.LOGIN, question.body)["nonce"]
        body = rcu1.encode_signed(Kind.LOGIN_REPLY, fields, lambda body: rcu1.proof(key, "grant", nonce, body))
        return rcu1.frame(Kind.LOGIN_REPLY, question.id, body)

    def attach_reply(self, question):
        fields = {
            "status": AttachStatus.OK,
            "retry_after_ms": 0,
            "server_time_ms": now_ms(),
            "heartbeat_s": 60,
            "window": 8,
            "resume_ttl_s": 0,
            "resumption": b"",
        }
        body = rcu1.encode_signed(Kind.ATTACH_REPLY, fields, lambda body: rcu1.proof(bytes(32), "admit", body))
        return rcu1.frame(Kind.ATTACH_REPLY, question.id, body)

    def expect_disbelief(self, address, purpose, served):
        done = run(address, "my-device", self.KEY)
        self.assertEqual(1, done.returncode)
        self.assertIn(f"wrong {purpose} proof", done.stderr)
        self.assertEqual(served, self.served)

    def test_it_goes_nowhere_without_a_right_grant_proof(self):
        address = self.serve(
            lambda question: self.login_reply(question, bytes(32), address[1]),
            self.attach_reply,
        )
        self.expect_disbelief(address, "grant", served=1)

    def test_it_reports_nothing_without_a_right_admit_proof(self):
        address = self.serve(
            lambda question: self.login_reply(question, self.KEY, address[1]),
            self.attach_reply,
        )
        self.expect_disbelief(address, "admit", served=2)

    def test_it_refuses_an_answer_that_is_too_short(self):
        address = self.serve(lambda question: rcu1.frame(Kind.LOGIN_REPLY, question.id, bytes(0)))
        done = run(address, "my-device", self.KEY)
        self.assertEqual((1, "an answer that is too short"), (done.returncode, done.stderr.strip()))

    def test_it_refuses_a_frame_with_a_wrong_crc(self):
        address = self.serve(lambda question: rcu1.frame(Kind.LOGIN_REPLY, question.id, bytes(13), crc=1))
        done = run(address, "my-device", self.KEY)
        self.assertEqual((1, "wrong crc"), (done.returncode, done.stderr.strip()))
