"""A device in some eighty lines: logs in, attaches, sends one gps record.

Usage: python3 docs/device.py HOST:PORT ACCOUNT KEYHEX
Read it beside docs/connect-a-device.md; section numbers are those of docs/protocol.md.
"""

import hmac
import os
import re
import socket
import struct
import sys
import time

LOGIN, LOGIN_REPLY, ATTACH, ATTACH_REPLY, TELEMETRY, TELEMETRY_ACK, CLOSE = 1, 2, 3, 4, 7, 8, 0x2F


def crc32c(data):  # section 1; bit by bit, a table makes it faster
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def proof(key, purpose, *parts):  # HMAC-SHA256(key, "rcu1 purpose\0" ‖ parts)
    return hmac.digest(key, b"rcu1 " + purpose + b"\0" + b"".join(parts), "sha256")


def connect(host, port):
    try:
        return socket.create_connection((host.strip("[]"), int(port)), 10)
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot connect to {host}:{port}: {error}")


def read(connection, count):  # TCP may deliver a frame in pieces
    data = b""
    try:
        while len(data) < count:
            data += connection.recv(count - len(data)) or sys.exit("the cluster ended the connection")
    except OSError as error:
        sys.exit(f"the connection broke: {error}")
    return data


def ask(connection, kind, body, answer_kind, id=1):  # one frame there, one back
    head = struct.pack("<2sBBHH", b"RC", 1, kind, id, len(body))
    try:
        connection.sendall(head + struct.pack("<I", crc32c(head + body)) + body)
    except OSError as error:
        sys.exit(f"the connection broke: {error}")
    head = read(connection, 12)
    magic, version, got_kind, got_id, length, crc = struct.unpack("<2sBBHHI", head)
    if (magic, version) != (b"RC", 1) or length > 1024 - 12:
        sys.exit("not a frame of this protocol")
    answer = read(connection, length)
    if crc != crc32c(head[:8] + answer):
        sys.exit("wrong crc")
    if got_kind == CLOSE and answer:
        sys.exit(f"closed, reason {answer[0]}")
    if (got_kind, got_id) != (answer_kind, id):
        sys.exit(f"kind {got_kind:#04x} instead of {answer_kind:#04x}")
    if len(answer) < {LOGIN_REPLY: 13, ATTACH_REPLY: 13, TELEMETRY_ACK: 14}[answer_kind]:
        sys.exit("an answer that is too short")
    return answer


def check(key, purpose, *parts):  # the last 32 bytes of the last part are the cluster's proof of the rest
    *others, body = parts
    if not hmac.compare_digest(body[-32:], proof(key, purpose, *others, body[:-32])):
        sys.exit(f"wrong {purpose.decode()} proof: this is not our cluster")


if len(sys.argv) != 4 or not re.fullmatch(r".+:\d{1,5}", sys.argv[1]):
    sys.exit(__doc__.splitlines()[2])
if not re.fullmatch(r"[A-Za-z0-9._:-]{1,32}", sys.argv[2]):
    sys.exit("an account is 1 to 32 of A-Z a-z 0-9 . _ : -")
if not re.fullmatch(r"[0-9A-Fa-f]{64}", sys.argv[3]):
    sys.exit("a key is 64 hex digits, as `rcu device add` prints it")
address, account, key = sys.argv[1], sys.argv[2].encode(), bytes.fromhex(sys.argv[3])
host, port = address.rsplit(":", 1)

# The short connection: Login, LoginReply.
nonce, firmware = os.urandom(16), b"device.py"
body = bytes([len(account)]) + account + bytes([len(firmware)]) + firmware
body += struct.pack("<Q", time.time_ns() // 1_000_000) + nonce
with connect(host, port) as balancer:
    reply = ask(balancer, LOGIN, body + proof(key, b"login", body), LOGIN_REPLY)
if reply[0] != 0:
    sys.exit(f"login answered with status {reply[0]}, retry after {struct.unpack_from('<I', reply, 1)[0]} ms")
check(key, b"grant", nonce, reply)
n = reply[13]  # behind u8 status, u32 retry_after_ms, u64 server_time_ms: str8 host
host, port, ticket = reply[14 : 14 + n].decode(), *struct.unpack_from("<H16s", reply, 14 + n)
session_key = proof(key, b"session", nonce, ticket)

# The long connection: Attach, AttachReply; then Telemetry, TelemetryAck.
with connect(host, port) as server:
    reply = ask(server, ATTACH, ticket + proof(session_key, b"attach", ticket), ATTACH_REPLY)
    if reply[0] != 0:
        sys.exit(f"attach answered with status {reply[0]}")
    check(session_key, b"admit", ticket, reply)
    heartbeat_s, window = struct.unpack_from("<HH", reply, 13)
    print(f"attached to {host}:{port}: heartbeat every {heartbeat_s} s, window {window}")

    # This script keeps no boot counter, so the time makes its sequence number unique.
    now_ms = time.time_ns() // 1_000_000
    gps = struct.pack("<iiiHHBB", 311234567, 1214567890, -1250, 1389, 27015, 9, 8)
    record = struct.pack("<BBI", 1, len(gps), 0) + gps  # kind gps, length, offset_ms
    ack = ask(server, TELEMETRY, struct.pack("<QQB", now_ms, now_ms, 1) + record, TELEMETRY_ACK, id=2)
    base_seq, count, status, retry_after_ms = struct.unpack_from("<QBBI", ack)
    print(f"{count} record from sequence number {base_seq}: {('stored', 'malformed', 'overloaded')[min(status, 2)]}")
    sys.exit(status)
