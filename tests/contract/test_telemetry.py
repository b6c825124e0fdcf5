"""From Telemetry to row: what is stored, set aside, refused, and stored once (0x07, 0x08)."""

import struct

import records
import rcu1
from rcu1 import AckStatus, BODY_BYTES_MAX, SEQ_END, TIME_MAX_MS, Kind
from records import CUSTOM, DIAGNOSIS, FUEL, GPS, GYROSCOPE
from support import T0, ContractTest, custom, fuel, running_cluster
from test_vectors import telemetry_vectors

cluster = None

TABLES = [f"telemetry_{name}" for name in records.NUMBERS]

U16_NONE, U32_NONE, U64_NONE = 2**16 - 1, 2**32 - 1, 2**64 - 1
I32_NONE = -(2**31)


def setUpModule():
    global cluster
    cluster = running_cluster()


def gps(latitude=0, longitude=0, altitude=0, speed=0, heading=0, satellites=0, hdop=0):
    return struct.pack("<iiiHHBB", latitude, longitude, altitude, speed, heading, satellites, hdop)


def fuel_payload(level=0, rate=0, used=0):
    return struct.pack("<HIQ", level, rate, used)


def diagnosis(*codes, count=None, flags=0):
    """`count` lies about the number of codes."""
    said = len(codes) if count is None else count
    return struct.pack(f"<HhHIBB{len(codes)}H", 900, 850, 12_600, 1, flags, said, *codes)


class TelemetryTest(ContractTest):
    def setUp(self):
        self.device = cluster.device()
        self.session = self.keep(self.device.come_in())

    def rows(self, table):
        return cluster.rows(table, self.device)

    def assert_stored(self, kind, payload, seq, recorded_at, columns=None):
        """Exactly one row of this sequence number, in the kind's table, with these columns."""
        found = [row for row in self.rows(records.table(kind)) if row["seq"] == seq]
        self.assertEqual(1, len(found), f"rows with seq {seq}")
        self.assert_row(found[0], seq, recorded_at, columns or records.columns(kind, payload))

    def assert_set_aside(self, kind, payload, seq, recorded_at):
        """In dead_letter as it came, with a reason, and nowhere else. Returns the reason."""
        found = [row for row in self.rows("dead_letter") if row["seq"] == seq]
        self.assertEqual(1, len(found), f"dead letters with seq {seq}")
        kept = {"recorded_at": recorded_at, "kind": kind, "payload": payload}
        self.assertEqual(kept, {name: found[0][name] for name in kept})
        self.assertTrue(found[0]["reason"])
        for table in TABLES:
            self.assertNotIn(seq, [row["seq"] for row in self.rows(table)])
        return found[0]["reason"]

    def send_each(self, kind, payloads):
        """One frame for each payload, numbered from 1."""
        for seq, payload in enumerate(payloads, 1):
            with self.subTest(payload.hex()):
                self.session.report(seq, T0, rcu1.record(kind, payload, seq))


class Vectors(TelemetryTest):
    def test_every_telemetry_frame_of_the_vectors_has_its_verdict(self):
        sent = []
        for vector in telemetry_vectors():
            frame, _ = rcu1.cut(bytes.fromhex(vector["frame"]))
            with self.subTest(vector["name"]):
                self.session.send(bytes.fromhex(vector["frame"]))
                ack = self.session.read_acks({frame.id: frame.body})[frame.id]
                if vector["fields"].get("ack") == "malformed":
                    self.assertEqual(AckStatus.MALFORMED, ack["status"])
                    continue
                self.assertEqual(AckStatus.STORED, ack["status"])
                self.check_rows(vector, frame)
                sent.append(vector["fields"]["count"])
        kept = sum(len(self.rows(table)) for table in [*TABLES, "dead_letter"])
        self.assertEqual(sum(sent), kept, "rows of malformed frames?")

    def check_rows(self, vector, frame):
        base_seq, base_time_ms, found = rcu1.cut_telemetry(frame.body)
        for seq, (kind, offset_ms, payload) in enumerate(found, base_seq):
            if seq in vector["fields"].get("dead_letter", []):
                reason = self.assert_set_aside(kind, payload, seq, base_time_ms + offset_ms)
                if "records" in vector["fields"]:
                    self.assertEqual(vector["fields"]["records"][seq - base_seq]["set_aside"], reason)
            else:
                self.assert_stored(kind, payload, seq, base_time_ms + offset_ms)


class InRange(TelemetryTest):
    def test_gps_at_the_edges(self):
        self.send_each(
            GPS,
            [
                gps(latitude=900_000_000, longitude=1_800_000_000, altitude=2**31 - 1, speed=65_534, heading=35_999),
                gps(latitude=-900_000_000, longitude=-1_800_000_000, altitude=-(2**31) + 1, satellites=254, hdop=254),
            ],
        )
        highest, lowest = self.rows("telemetry_gps")
        at_the_top = {"latitude": 90.0, "longitude": 180.0, "altitude_m": 21474836.47, "speed_m_s": 655.34}
        self.assert_row(highest, 1, T0 + 1, {**at_the_top, "heading_deg": 359.99, "satellites": 0, "hdop": 0.0})
        self.assert_row(
            lowest,
            2,
            T0 + 2,
            {"latitude": -90.0, "longitude": -180.0, "altitude_m": -21474836.47, "satellites": 254, "hdop": 25.4},
        )

    def test_fuel_at_the_edges(self):
        self.send_each(FUEL, [fuel_payload(10_000, 2**32 - 2, 2**63 - 1), fuel_payload()])
        full, empty = self.rows("telemetry_fuel")
        self.assert_row(full, 1, T0 + 1, {"level_percent": 100.0, "rate_ml_h": 2**32 - 2, "used_ml": 2**63 - 1})
        self.assert_row(empty, 2, T0 + 2, {"level_percent": 0.0, "rate_ml_h": 0, "used_ml": 0})

    def test_gyroscope_by_axis(self):
        self.send_each(GYROSCOPE, [struct.pack("<6h", 1, -2, 3, -4000, 32_767, -32_767)])
        self.assert_row(
            self.rows("telemetry_gyroscope")[0],
            1,
            T0 + 1,
            {
                "rate_x_deg_s": 0.1,
                "rate_y_deg_s": -0.2,
                "rate_z_deg_s": 0.3,
                "acceleration_x_g": -4.0,
                "acceleration_y_g": 32.767,
                "acceleration_z_g": -32.767,
            },
        )

    def test_trouble_codes_of_every_letter(self):
        every_letter = diagnosis(0x0301, 0x4123, 0x9ABC, 0xFFFF, 0x0000, flags=0x81)
        self.send_each(DIAGNOSIS, [every_letter, diagnosis(flags=0xFE)])
        some, none = self.rows("telemetry_diagnosis")
        codes = "P0301 C0123 B1ABC U3FFF P0000"
        self.assert_row(some, 1, T0 + 1, {"trouble_codes": codes, "malfunction_lamp": 1, "flags": 0x81})
        self.assert_row(none, 2, T0 + 2, {"trouble_codes": "", "malfunction_lamp": 0, "flags": 0xFE})
        self.assert_row(some, 1, T0 + 1, {"rpm": 900, "coolant_c": 85.0, "battery_v": 12.6, "odometer_m": 1})

    def test_as_many_trouble_codes_as_a_record_holds(self):
        payload = diagnosis(*range(121))
        self.assertEqual(254, len(payload))
        self.send_each(DIAGNOSIS, [payload])
        self.assert_stored(DIAGNOSIS, payload, 1, T0 + 1)

    def test_custom_with_and_without_bytes(self):
        self.send_each(CUSTOM, [b"\x34\x12", b"\xff\xff" + bytes(range(253))])
        empty, long = self.rows("telemetry_custom")
        self.assert_row(empty, 1, T0 + 1, {"kind": 5, "channel": 0x1234, "payload": b""})
        self.assert_row(long, 2, T0 + 2, {"kind": 5, "channel": 0xFFFF, "payload": bytes(range(253))})

    def test_kinds_that_nobody_knows_are_stored_as_they_came(self):
        sent = [(kind, payload) for kind in (0, 6, 127, 255) for payload in (b"", b"\x01", bytes(255))]
        self.session.report(1, T0, *(rcu1.record(kind, payload) for kind, payload in sent))
        stored = [(row["kind"], row["channel"], row["payload"]) for row in self.rows("telemetry_custom")]
        self.assertEqual([(kind, None, payload) for kind, payload in sent], stored)


class NotAvailable(TelemetryTest):
    def test_each_field_alone_is_null(self):
        absent = {
            "latitude": gps(latitude=I32_NONE),
            "longitude": gps(longitude=I32_NONE),
            "altitude_m": gps(altitude=I32_NONE),
            "speed_m_s": gps(speed=U16_NONE),
            "heading_deg": gps(heading=U16_NONE),
            "satellites": gps(satellites=255),
            "hdop": gps(hdop=255),
        }
        self.send_each(GPS, absent.values())
        for name, row in zip(absent, self.rows("telemetry_gps"), strict=True):
            self.assertEqual([name], [column for column in absent if row[column] is None])

    def test_all_fields_of_every_kind(self):
        payloads = {
            GPS: gps(I32_NONE, I32_NONE, I32_NONE, U16_NONE, U16_NONE, 255, 255),
            FUEL: fuel_payload(U16_NONE, U32_NONE, U64_NONE),
            GYROSCOPE: struct.pack("<6h", *[-(2**15)] * 6),
            DIAGNOSIS: struct.pack("<HhHIBB", U16_NONE, -(2**15), U16_NONE, U32_NONE, 0, 0),
        }
        self.session.report(1, T0, *(rcu1.record(kind, payload) for kind, payload in payloads.items()))
        for seq, kind in enumerate(payloads, 1):
            (row,) = self.rows(records.table(kind))
            kept = {"seq": seq, "recorded_at": T0, "received_at": row["received_at"]}
            if kind == DIAGNOSIS:
                kept |= {"malfunction_lamp": 0, "flags": 0, "trouble_codes": ""}
            self.assertEqual(kept, {name: value for name, value in row.items() if value is not None})

    def test_flags_trouble_codes_and_channel_are_always_available(self):
        self.send_each(DIAGNOSIS, [diagnosis(0xFFFF, flags=0xFF)])
        self.assert_row(
            self.rows("telemetry_diagnosis")[0],
            1,
            T0 + 1,
            {"flags": 255, "malfunction_lamp": 1, "trouble_codes": "U3FFF"},
        )


class SetAside(TelemetryTest):
    def expect(self, cases):
        for seq, (name, (kind, payload)) in enumerate(cases.items(), 1):
            with self.subTest(name):
                self.session.report(seq, T0, rcu1.record(kind, payload, seq))
                self.assert_set_aside(kind, payload, seq, T0 + seq)

    def test_values_out_of_range(self):
        self.expect(
            {
                "latitude above": (GPS, gps(latitude=900_000_001)),
                "latitude below": (GPS, gps(latitude=-900_000_001)),
                "latitude lowest": (GPS, gps(latitude=I32_NONE + 1)),
                "longitude above": (GPS, gps(longitude=1_800_000_001)),
                "longitude below": (GPS, gps(longitude=-1_800_000_001)),
                "heading": (GPS, gps(heading=36_000)),
                "heading highest": (GPS, gps(heading=U16_NONE - 1)),
                "level": (FUEL, fuel_payload(level=10_001)),
                "level highest": (FUEL, fuel_payload(level=U16_NONE - 1)),
                "used": (FUEL, fuel_payload(used=2**63)),
                "used highest": (FUEL, fuel_payload(used=U64_NONE - 1)),
            }
        )

    def test_known_kinds_of_the_wrong_length(self):
        cases = {}
        for kind, right in ((GPS, gps()), (FUEL, fuel_payload()), (GYROSCOPE, bytes(12)), (DIAGNOSIS, diagnosis(1))):
            for name, payload in (("less", right[:-1]), ("more", right + b"\0"), ("none", b"")):
                cases[f"{kind} {name}"] = (kind, payload)
        cases |= {
            "diagnosis that says more codes": (DIAGNOSIS, diagnosis(1, 2, count=3)),
            "diagnosis that says fewer codes": (DIAGNOSIS, diagnosis(1, 2, count=1)),
            "custom without a channel": (CUSTOM, b""),
            "custom with half a channel": (CUSTOM, b"\x01"),
        }
        self.expect(cases)
        self.assertEqual({"length"}, {row["reason"] for row in self.rows("dead_letter")})

    def test_the_others_of_the_frame_are_stored(self):
        bad_gps = rcu1.record(GPS, gps(heading=36_000), 1)
        bad_custom = rcu1.record(CUSTOM, b"", 3)
        self.session.report(10, T0, fuel(1), bad_gps, fuel(3, 2), bad_custom, custom(b"5", 4))
        self.assertEqual([(10, T0), (12, T0 + 2)], cluster.seqs("telemetry_fuel", self.device))
        self.assertEqual([(14, T0 + 4)], cluster.seqs("telemetry_custom", self.device))
        self.assertEqual([(11, T0 + 1), (13, T0 + 3)], cluster.seqs("dead_letter", self.device))

    def test_a_bad_record_sent_again_is_set_aside_once(self):
        bad = rcu1.record(GPS, gps(heading=36_000))
        for _ in range(2):
            self.session.report(1, T0, bad)
        self.session = self.keep(self.device.come_in())
        self.session.report(1, T0, bad, fuel(2))
        self.assertEqual([(1, T0)], cluster.seqs("dead_letter", self.device))


class Malformed(TelemetryTest):
    def expect(self, cases):
        for name, body in cases.items():
            with self.subTest(name):
                ack = self.session.ask_telemetry(body)
                self.assertEqual(AckStatus.MALFORMED, ack["status"])
        self.session.report(1, T0, fuel(1))
        kept = [pair for table in [*TABLES, "dead_letter"] for pair in cluster.seqs(table, self.device)]
        self.assertEqual([(1, T0)], kept)

    def test_a_frame_that_cannot_be_cut_into_records(self):
        good = fuel(7)
        self.expect(
            {
                "count 0": rcu1.telemetry(5, T0),
                "count 0 before a record": rcu1.telemetry(5, T0, good, count=0),
                "fewer records than counted": rcu1.telemetry(5, T0, good, count=2),
                "a byte left over": rcu1.telemetry(5, T0, good) + b"\0",
                "a record left over": rcu1.telemetry(5, T0, good, good, count=1),
                "a payload runs past the body": rcu1.telemetry(5, T0, good, rcu1.record(FUEL, bytes(14), length=15)),
                "half the head of a record": rcu1.telemetry(5, T0, good, count=2) + b"\x02\x0e\0",
                "255 records counted, none there": rcu1.telemetry(5, T0, count=255),
            }
        )

    def test_sequence_numbers_past_the_end(self):
        self.expect(
            {
                "2^63": rcu1.telemetry(SEQ_END, T0, fuel(1)),
                "the second is 2^63": rcu1.telemetry(SEQ_END - 1, T0, fuel(1), fuel(2)),
                "2^64 - 1": rcu1.telemetry(2**64 - 1, T0, fuel(1)),
                "2^64 - 255": rcu1.telemetry(2**64 - 255, T0, *[fuel(1)] * 255),
            }
        )

    def test_times_after_the_year_9999(self):
        self.expect(
            {
                "base": rcu1.telemetry(5, TIME_MAX_MS + 1, fuel(1)),
                "base and offset": rcu1.telemetry(5, TIME_MAX_MS, fuel(1, offset_ms=1)),
                "the second record": rcu1.telemetry(5, TIME_MAX_MS - 1, fuel(1, offset_ms=1), fuel(2, offset_ms=2)),
                "2^63": rcu1.telemetry(5, 2**63, fuel(1)),
                "2^64 - 1": rcu1.telemetry(5, 2**64 - 1, fuel(1)),
                "past 2^64": rcu1.telemetry(5, 2**64 - 1, fuel(1, offset_ms=U32_NONE)),
            }
        )


class Edges(TelemetryTest):
    def test_the_first_and_the_last_sequence_numbers(self):
        ends = [0, 1, 2**32 - 1, 2**32, 2**53 + 1, SEQ_END - 2, SEQ_END - 1]
        for seq in ends:
            self.session.report(seq, T0, fuel(1))
        self.session.report(SEQ_END - 255, T0 + 1, *[fuel(2)] * 255)
        expected = [(seq, T0) for seq in ends] + [(seq, T0 + 1) for seq in range(SEQ_END - 255, SEQ_END)]
        self.assertEqual(sorted(expected), cluster.seqs("telemetry_fuel", self.device))

    def test_the_first_and_the_last_times(self):
        self.session.report(1, 0, fuel(1))
        self.session.report(2, TIME_MAX_MS, fuel(1))
        self.session.report(3, TIME_MAX_MS - U32_NONE, fuel(1, offset_ms=U32_NONE))
        self.assertEqual([(1, 0), (2, TIME_MAX_MS), (3, TIME_MAX_MS)], cluster.seqs("telemetry_fuel", self.device))

    def test_255_records_in_the_largest_body(self):
        heads = 17 + 255 * (6 + 2)
        fill = BODY_BYTES_MAX - heads
        sizes = [fill // 255 + (index < fill % 255) for index in range(255)]
        payloads = [bytes([index]) * size for index, size in enumerate(sizes)]
        body = rcu1.telemetry(1, T0, *(custom(payload) for payload in payloads))
        self.assertEqual(BODY_BYTES_MAX, len(body))
        self.assertEqual(AckStatus.STORED, self.session.ask_telemetry(body)["status"])
        self.assertEqual(payloads, [row["payload"] for row in self.rows("telemetry_custom")])

    def test_records_of_one_frame_need_not_be_in_order_of_time(self):
        self.session.report(5, T0, fuel(1, 500), fuel(2, 0), fuel(3, 250))
        self.assertEqual([(5, T0 + 500), (6, T0), (7, T0 + 250)], cluster.seqs("telemetry_fuel", self.device))

    def test_sequence_numbers_need_not_arrive_in_order(self):
        for seq in (9, 3, 2**40, 4):
            self.session.report(seq, T0, fuel(seq))
        self.assertEqual([3, 4, 9, 2**40], [row["used_ml"] for row in self.rows("telemetry_fuel")])


class StoredOnce(TelemetryTest):
    def test_again_on_the_same_connection(self):
        for _ in range(3):
            self.session.report(1, T0, fuel(1), fuel(2))
        self.assertEqual([(1, T0), (2, T0)], cluster.seqs("telemetry_fuel", self.device))

    def test_twice_in_one_segment(self):
        body = rcu1.telemetry(1, T0, fuel(1), fuel(2))
        asked = {self.session.next_id(): body for _ in range(3)}
        self.session.send(*(rcu1.frame(Kind.TELEMETRY, id, body) for id in asked))
        for ack in self.session.read_acks(asked).values():
            self.assertEqual(AckStatus.STORED, ack["status"])
        self.assertEqual([(1, T0), (2, T0)], cluster.seqs("telemetry_fuel", self.device))

    def test_again_on_another_connection_in_other_frames(self):
        self.session.report(1, T0, fuel(1), fuel(2, 10), fuel(3, 20))
        self.session.reset()
        again = self.keep(self.device.come_in())
        again.report(1, T0, fuel(1))
        again.report(2, T0 + 10, fuel(2), fuel(3, 10), fuel(4, 20))
        expected = [(1, T0), (2, T0 + 10), (3, T0 + 20), (4, T0 + 30)]
        self.assertEqual(expected, cluster.seqs("telemetry_fuel", self.device))

    def test_the_same_number_with_another_time_is_another_record(self):
        self.session.report(1, T0, fuel(1))
        self.session.report(1, T0 + 1, fuel(2))
        self.assertEqual([(1, T0), (1, T0 + 1)], cluster.seqs("telemetry_fuel", self.device))

    def test_the_first_is_kept(self):
        self.session.report(1, T0, fuel(111))
        self.session.report(1, T0, fuel(222))
        self.assertEqual([111], [row["used_ml"] for row in self.rows("telemetry_fuel")])

    def test_records_belong_to_the_account_that_sent_them(self):
        other_device = cluster.device()
        other = self.keep(other_device.come_in())
        self.session.report(1, T0, fuel(111))
        other.report(1, T0, fuel(222))
        self.assertEqual([111], [row["used_ml"] for row in self.rows("telemetry_fuel")])
        self.assertEqual([222], [row["used_ml"] for row in cluster.rows("telemetry_fuel", other_device)])
