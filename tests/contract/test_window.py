"""The window: how many Telemetry frames may be unanswered, and what comes of more (0x08)."""

import rcu1
from rcu1 import AckStatus, CloseReason, Kind
from support import T0, ContractTest, fuel, running_cluster

WINDOW = 2

cluster = None


def setUpModule():
    global cluster
    # A batch waits long enough that no place is freed while one segment is read.
    cluster = running_cluster(logic_server={"window": WINDOW, "batch_age_ms_max": 100})


class Window(ContractTest):
    def setUp(self):
        self.device = cluster.device()
        self.session = self.keep(self.device.come_in())
        self.next_seq = 1

    def burst(self, count):
        """Sends this many Telemetry frames in one segment: {id: body}, in order."""
        asked = {}
        for _ in range(count):
            asked[self.session.next_id()] = rcu1.telemetry(self.next_seq, T0, fuel(self.next_seq))
            self.next_seq += 1
        self.session.send(*(rcu1.frame(Kind.TELEMETRY, id, body) for id, body in asked.items()))
        return asked

    def statuses(self, asked):
        """The statuses of the answers, in the order of the frames."""
        acks = self.session.read_acks(asked)
        return [acks[id]["status"] for id in asked]

    def stored_seqs(self):
        return [seq for seq, _ in cluster.seqs("telemetry_fuel", self.device)]

    def test_within_the_window_everything_is_stored(self):
        self.assertEqual(WINDOW, self.session.admission["window"])
        for _ in range(10):
            self.assertEqual([AckStatus.STORED] * WINDOW, self.statuses(self.burst(WINDOW)))
        self.assertEqual(list(range(1, 10 * WINDOW + 1)), self.stored_seqs())

    def test_a_frame_beyond_the_window_is_overloaded_and_not_stored(self):
        asked = self.burst(WINDOW + 1)
        self.assertEqual([AckStatus.STORED] * WINDOW + [AckStatus.OVERLOADED], self.statuses(asked))
        self.assertEqual(list(range(1, WINDOW + 1)), self.stored_seqs())
        self.session.heartbeat()
        (_, again) = list(asked.items())[-1]
        self.assertEqual(AckStatus.STORED, self.session.ask_telemetry(again)["status"])
        self.assertEqual(list(range(1, WINDOW + 2)), self.stored_seqs())

    def test_less_than_three_windows_of_overload_do_not_end_the_session(self):
        """Twice: a place freed between them begins the count anew."""
        over = 3 * WINDOW - 1
        for _ in range(2):
            statuses = self.statuses(self.burst(WINDOW + over))
            self.assertEqual([AckStatus.STORED] * WINDOW + [AckStatus.OVERLOADED] * over, statuses)
        self.session.heartbeat()
        self.assertEqual(2 * WINDOW, len(self.stored_seqs()))

    def test_three_windows_of_overload_in_a_row_end_the_session(self):
        asked = list(self.burst(WINDOW + 3 * WINDOW + 1))
        before, _ = self.session.expect_close_after_frames(CloseReason.PROTOCOL_ERROR)
        overloaded = []
        for frame in before:
            ack = rcu1.decode_body(Kind.TELEMETRY_ACK, frame.body)
            if ack["status"] == AckStatus.OVERLOADED:
                overloaded.append(frame.id)
            else:
                self.assertEqual(AckStatus.STORED, ack["status"])
                self.assertIn(frame.id, asked[:WINDOW])
        self.assertEqual(asked[WINDOW : 4 * WINDOW], sorted(overloaded))
        self.assertLessEqual(set(self.stored_seqs()), set(range(1, WINDOW + 1)))

    def test_heartbeats_are_answered_while_telemetry_is_not(self):
        telemetry = self.burst(WINDOW)
        heartbeat = self.session.next_id()
        self.session.send(rcu1.frame(Kind.HEARTBEAT, heartbeat))
        kinds = {}
        while len(kinds) < WINDOW + 1:
            frame = self.session.receive()
            kinds[frame.id] = frame.kind
        self.assertEqual({**{id: Kind.TELEMETRY_ACK for id in telemetry}, heartbeat: Kind.HEARTBEAT_REPLY}, kinds)

    def test_every_answer_frees_a_place(self):
        malformed = rcu1.telemetry(1, T0)
        for _ in range(3 * WINDOW):
            self.assertEqual(AckStatus.MALFORMED, self.session.ask_telemetry(malformed)["status"])
        self.assertEqual([AckStatus.STORED] * WINDOW, self.statuses(self.burst(WINDOW)))
