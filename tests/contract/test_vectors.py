"""rcu1.py and records.py against docs/rcu-v1-vectors.json, both ways.

Needs no server: it says whether the client that judges the servers has read
the contract as its author meant it.
"""

import json
import unittest
from pathlib import Path

import records
import rcu1
from rcu1 import Kind

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILE = json.loads((DOCS / "rcu-v1-vectors.json").read_text(encoding="utf-8"))
KEY = bytes.fromhex(FILE["key"])
SESSION_KEY = bytes.fromhex(FILE["session_key"])
VECTORS = {vector["name"]: vector for vector in FILE["vectors"]}

HEX_FIELDS = ("nonce", "proof", "ticket", "resumption", "payload", "challenge")
NONCE = bytes.fromhex(VECTORS["login"]["fields"]["nonce"])
TICKET = bytes.fromhex(VECTORS["attach"]["fields"]["ticket"])
RESUMPTION = bytes.fromhex(VECTORS["resume"]["fields"]["resumption"])
CHALLENGE = bytes.fromhex(VECTORS["resume challenge"]["fields"]["challenge"])

AXES = {
    "rate_deg_s": ("rate_x_deg_s", "rate_y_deg_s", "rate_z_deg_s"),
    "acceleration_g": ("acceleration_x_g", "acceleration_y_g", "acceleration_z_g"),
}


def frames():
    return [vector for vector in FILE["vectors"] if "frame" in vector]


def message_vectors():
    """The frames that have all their fields, but for telemetry."""
    for vector in frames():
        verdict_only = {"error", "ignored", "ack"} & vector["fields"].keys()
        if not verdict_only and vector["kind"] != Kind.TELEMETRY:
            yield vector


def telemetry_vectors():
    return [vector for vector in frames() if vector.get("kind") == Kind.TELEMETRY]


def fields_of(vector):
    """The vector's fields, with bytes where it writes hex digits."""
    return {
        name: bytes.fromhex(value) if name in HEX_FIELDS else value for name, value in vector["fields"].items()
    }


def record_of(entry):
    """A record of a vector in the form of records.py."""
    record = {}
    for name, value in entry.items():
        if name in AXES:
            record |= dict(zip(AXES[name], value))
        elif name in ("data", "payload"):
            record[name] = bytes.fromhex(value)
        elif name not in ("offset_ms", "all", "set_aside"):
            record[name] = value
    return record


def sign(vector):
    """How the proof at the end of this vector's body is made."""
    name, kind = vector["name"], vector["kind"]
    if kind == Kind.LOGIN:
        return lambda body: rcu1.proof(KEY, "login", body)
    if kind == Kind.LOGIN_REPLY:
        purpose = "grant" if vector["fields"]["status"] == 0 else "told"
        return lambda body: rcu1.proof(KEY, purpose, NONCE, body)
    if kind == Kind.ATTACH:
        return lambda body: rcu1.proof(SESSION_KEY, "attach", body)
    if kind == Kind.ATTACH_REPLY:
        admitted_by = CHALLENGE if name == "attach reply to a resumption" else TICKET
        return lambda body: rcu1.proof(SESSION_KEY, "admit", admitted_by, body)
    if kind == Kind.REDIRECT:
        return lambda body: rcu1.proof(SESSION_KEY, "redirect", body)
    if kind == Kind.RESUME_PROOF:
        return lambda _: rcu1.proof(SESSION_KEY, "resume", CHALLENGE, RESUMPTION)
    raise AssertionError(f"no proof known for {name}")


class Vectors(unittest.TestCase):
    def test_the_crc_of_the_contract(self):
        self.assertEqual(0xE3069283, rcu1.crc32c(b"123456789"))

    def test_the_session_key_comes_from_key_nonce_and_ticket(self):
        self.assertEqual(SESSION_KEY, rcu1.session_key(KEY, NONCE, TICKET))

    def test_a_nonce_without_a_generator(self):
        fields = fields_of(VECTORS["nonce without a generator"])
        made = rcu1.nonce_without_generator(KEY, fields["boot_counter"], fields["login_counter"])
        self.assertEqual(fields["nonce"], made)

    def test_every_frame_is_cut_to_its_kind_and_id(self):
        for vector in frames():
            if "kind" not in vector:
                continue
            with self.subTest(vector["name"]):
                frame, rest = rcu1.cut(bytes.fromhex(vector["frame"]) + b"next")
                self.assertEqual((vector["kind"], vector["id"]), (frame.kind, frame.id))
                self.assertEqual(b"next", rest)
                again = rcu1.frame(frame.kind, frame.id, frame.body)
                self.assertEqual(vector["frame"], again.hex())

    def test_every_message_is_made_from_its_fields(self):
        for vector in message_vectors():
            with self.subTest(vector["name"]):
                fields = fields_of(vector)
                if "proof" in fields:
                    body = rcu1.encode_signed(vector["kind"], fields, sign(vector))
                else:
                    body = rcu1.encode_body(vector["kind"], fields)
                self.assertEqual(vector["frame"], rcu1.frame(vector["kind"], vector["id"], body).hex())

    def test_every_message_is_read_to_its_fields(self):
        for vector in message_vectors():
            with self.subTest(vector["name"]):
                frame, _ = rcu1.cut(bytes.fromhex(vector["frame"]))
                self.assertEqual(fields_of(vector), rcu1.decode_body(frame.kind, frame.body))

    def test_one_byte_more_or_less_is_no_message(self):
        for vector in message_vectors():
            body = bytes.fromhex(vector["frame"])[rcu1.HEADER_BYTES :]
            with self.subTest(vector["name"]):
                self.assertRaises(rcu1.WrongBody, rcu1.decode_body, vector["kind"], body + b"\0")
                if body:
                    self.assertRaises(rcu1.WrongBody, rcu1.decode_body, vector["kind"], body[:-1])

    def test_wrong_frames_are_told_by_what_is_wrong(self):
        wrong = [vector for vector in frames() if "error" in vector["fields"]]
        self.assertEqual(3, len(wrong))
        answer = rcu1.frame(Kind.CLOSE, 0, rcu1.encode_body(Kind.CLOSE, {"reason": 1, "retry_after_ms": 0}))
        for vector in wrong:
            with self.subTest(vector["name"]):
                self.assertEqual(vector["fields"]["answer"], answer.hex())
                error = vector["fields"]["error"]
                with self.assertRaisesRegex((rcu1.WrongFrame, rcu1.WrongBody), f"^{error}"):
                    frame, _ = rcu1.cut(bytes.fromhex(vector["frame"]))
                    rcu1.decode_body(frame.kind, frame.body)

    def test_a_kind_nobody_knows_is_still_a_frame(self):
        vector = VECTORS["a kind nobody knows"]
        frame, _ = rcu1.cut(bytes.fromhex(vector["frame"]))
        self.assertNotIn(frame.kind, list(Kind))
        self.assertEqual(vector["fields"]["body"], frame.body.hex())


class TelemetryVectors(unittest.TestCase):
    def test_records_are_made_from_their_fields(self):
        made = 0
        for vector in telemetry_vectors():
            fields = vector["fields"]
            if "records" not in fields:
                continue
            with self.subTest(vector["name"]):
                written = []
                for entry in fields["records"]:
                    kind, payload = records.encode(record_of(entry))
                    written.append(rcu1.record(kind, payload, entry["offset_ms"]))
                body = rcu1.telemetry(fields["base_seq"], fields["base_time_ms"], *written)
                self.assertEqual(fields["count"], body[16])
                self.assertEqual(vector["frame"], rcu1.frame(Kind.TELEMETRY, vector["id"], body).hex())
                made += 1
        self.assertEqual(5, made)

    def test_records_are_read_to_their_fields(self):
        for vector in telemetry_vectors():
            fields = vector["fields"]
            if fields.get("ack") == "malformed":
                continue
            with self.subTest(vector["name"]):
                frame, _ = rcu1.cut(bytes.fromhex(vector["frame"]))
                base_seq, base_time_ms, found = rcu1.cut_telemetry(frame.body)
                self.assertEqual(fields["base_seq"], base_seq)
                self.assertEqual(fields["base_time_ms"], base_time_ms)
                self.assertEqual(fields["count"], len(found))
                set_aside = []
                for index, (kind, offset_ms, payload) in enumerate(found):
                    entry = fields.get("records", [{}])[index]
                    try:
                        read = records.decode(kind, payload)
                    except records.Flaw as flaw:
                        set_aside.append(base_seq + index)
                        self.assertEqual(fields.get("payload", entry.get("payload")), payload.hex())
                        self.assertEqual(entry.get("set_aside", str(flaw)), str(flaw))
                        continue
                    self.assertEqual(entry["offset_ms"], offset_ms)
                    self.check_record(entry, read)
                self.assertEqual(fields.get("dead_letter", []), set_aside)

    def check_record(self, entry, read):
        read.pop("flags", None)
        if entry.get("all") == "null":
            expected = {name: None for name in read}
            expected["kind"] = entry["kind"]
            if entry["kind"] == "diagnosis":
                expected |= {"malfunction_lamp": False, "trouble_codes": []}
        else:
            expected = record_of(entry)
        self.assertEqual(expected, read)

    def test_frames_that_cannot_be_cut_into_records(self):
        malformed = [vector for vector in telemetry_vectors() if vector["fields"].get("ack") == "malformed"]
        self.assertEqual(2, len(malformed))
        for vector in malformed:
            with self.subTest(vector["name"]):
                frame, _ = rcu1.cut(bytes.fromhex(vector["frame"]))
                self.assertRaises(rcu1.WrongBody, rcu1.cut_telemetry, frame.body)
