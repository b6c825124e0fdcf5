"""The RCU device protocol, version 1: frames, messages and proofs.

Written from docs/protocol.md alone, without a look at the servers or at their
library. That independence is its worth: where the two disagree, one of them
has misread the contract. Numbers in comments are the contract's sections.

Nothing here knows a socket (client.py does) or a record kind (records.py).
"""

import hmac
import struct
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"RC"
VERSION = 1
HEADER_BYTES = 12
BODY_BYTES_MAX = 16_384
TO_DEVICE_BODY_BYTES_MAX = 1_024 - HEADER_BYTES
BEFORE_ATTACH_BYTES_MAX = 512
"""The longest frame before LoginReply or AttachReply, header included; also what is kept after Attach."""

SEQ_END = 2**63
"""base_seq + count may reach this and not pass it."""

TIME_MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""


class Kind(IntEnum):
    """Frame kinds, section 3."""

    LOGIN = 0x01
    LOGIN_REPLY = 0x02
    ATTACH = 0x03
    ATTACH_REPLY = 0x04
    HEARTBEAT = 0x05
    HEARTBEAT_REPLY = 0x06
    TELEMETRY = 0x07
    TELEMETRY_ACK = 0x08
    RESUME = 0x09
    RESUME_CHALLENGE = 0x0A
    RESUME_PROOF = 0x0B
    COMMAND = 0x21
    COMMAND_REPLY = 0x22
    REDIRECT = 0x2D
    CLOSE = 0x2F


class LoginStatus(IntEnum):
    OK = 0
    REFUSED = 1
    DISABLED = 2
    CLOCK_SKEW = 3
    FULL = 4
    BUSY = 5
    MALFORMED = 6


class AttachStatus(IntEnum):
    OK = 0
    NOT_ADMITTED = 1
    FULL = 2
    DRAINING = 3


class AckStatus(IntEnum):
    STORED = 0
    MALFORMED = 1
    OVERLOADED = 2


class CloseReason(IntEnum):
    PROTOCOL_ERROR = 1
    IDLE = 2
    REPLACED = 3
    DISABLED = 4
    SHUTDOWN = 5
    SLOW_READER = 6
    ATTACH_TIMEOUT = 7
    CLONE_SUSPECTED = 8


class WrongFrame(Exception):
    """The bytes are no frame: `magic`, `version`, `length` or `crc`."""


class WrongBody(Exception):
    """The frame is whole, its body has not exactly its fields."""


# --- 1 The frame -----------------------------------------------------------


class Frame(NamedTuple):
    kind: int
    id: int
    body: bytes


def _crc_of_byte(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = [_crc_of_byte(byte) for byte in range(256)]


def crc32c(data):
    """CRC-32C, Castagnoli."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def frame(kind, id, body=b"", *, magic=MAGIC, version=VERSION, length=None, crc=None):
    """The bytes of one frame. The keywords make it wrong on purpose; unless it is given, the crc fits what they say."""
    head = struct.pack("<2sBBHH", magic, version, kind, id, len(body) if length is None else length)
    return head + struct.pack("<I", crc32c(head + body) if crc is None else crc) + body


def cut(received):
    """The first frame of `received` and what follows it; None while it is incomplete."""
    if len(received) < HEADER_BYTES:
        return None
    magic, version, kind, id, length, crc = struct.unpack("<2sBBHHI", received[:HEADER_BYTES])
    if magic != MAGIC:
        raise WrongFrame("magic")
    if version != VERSION:
        raise WrongFrame("version")
    if length > BODY_BYTES_MAX:
        raise WrongFrame("length")
    end = HEADER_BYTES + length
    if len(received) < end:
        return None
    body = received[HEADER_BYTES:end]
    if crc != crc32c(received[:8] + body):
        raise WrongFrame("crc")
    return Frame(kind, id, body), received[end:]


# --- 3 Messages ------------------------------------------------------------


class Layout(NamedTuple):
    """The fields of a body in order, as `name:type`; a number as type is that many bytes."""

    fields: str
    tells: str = ""
    """The field whose value says which of `tails` follows."""
    tails: dict = {}


_TARGET = "host:str8 port:u16 ticket:16 ticket_ttl_s:u16 proof:32"

_LAYOUTS = {
    Kind.LOGIN: Layout("account:str8 firmware:str8 sent_at_ms:u64 nonce:16 proof:32"),
    Kind.LOGIN_REPLY: Layout(
        "status:u8 retry_after_ms:u32 server_time_ms:u64",
        tells="status",
        tails={LoginStatus.OK: _TARGET, LoginStatus.DISABLED: "proof:32", LoginStatus.CLOCK_SKEW: "proof:32"},
    ),
    Kind.ATTACH: Layout("ticket:16 proof:32"),
    Kind.ATTACH_REPLY: Layout(
        "status:u8 retry_after_ms:u32 server_time_ms:u64",
        tells="status",
        tails={AttachStatus.OK: "heartbeat_s:u16 window:u16 resume_ttl_s:u16 resumption:bytes16 proof:32"},
    ),
    Kind.HEARTBEAT: Layout(""),
    Kind.HEARTBEAT_REPLY: Layout("server_time_ms:u64"),
    Kind.TELEMETRY_ACK: Layout("base_seq:u64 count:u8 status:u8 retry_after_ms:u32"),
    Kind.RESUME: Layout("resumption:bytes16"),
    Kind.RESUME_CHALLENGE: Layout("challenge:16"),
    Kind.RESUME_PROOF: Layout("proof:32"),
    Kind.COMMAND: Layout("command_id:u64 deadline_ms:u64 code:u16 payload:bytes16"),
    Kind.COMMAND_REPLY: Layout("command_id:u64 status:u8 more:u8 payload:bytes16"),
    Kind.REDIRECT: Layout("reason:u8 retry_after_ms:u32 has_target:u8", tells="has_target", tails={1: _TARGET}),
    Kind.CLOSE: Layout("reason:u8 retry_after_ms:u32"),
}

_FLAGS = ("has_target", "more")
_INTEGERS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q"}
_COUNTED = {"str8": "<B", "bytes16": "<H"}


def _fields(text):
    return [field.split(":") for field in text.split()]


def _encode_fields(text, fields):
    body = b""
    for name, type_ in _fields(text):
        value = fields[name]
        if type_ in _INTEGERS:
            body += struct.pack(_INTEGERS[type_], value)
            continue
        if isinstance(value, str):
            value = value.encode("latin-1")
        if type_ in _COUNTED:
            body += struct.pack(_COUNTED[type_], len(value))
        body += value
    return body


def encode_body(kind, fields):
    """The body of a message from its fields; `bytes` for a key, ticket or proof, `str` for a str8."""
    layout = _LAYOUTS[kind]
    tail = layout.tails.get(fields.get(layout.tells), "")
    return _encode_fields(f"{layout.fields} {tail}", fields)


def encode_signed(kind, fields, sign):
    """Like encode_body for a body that ends with a proof: `sign` makes it from the body up to there."""
    unsigned = encode_body(kind, {**fields, "proof": bytes(32)})[:-32]
    return unsigned + sign(unsigned)


class _Cursor:
    def __init__(self, body):
        self.rest = body

    def take(self, count, name):
        if len(self.rest) < count:
            raise WrongBody(f"length of body: {name} is missing")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def field(self, name, type_):
        if type_ in _INTEGERS:
            form = _INTEGERS[type_]
            (value,) = struct.unpack(form, self.take(struct.calcsize(form), name))
            if name in _FLAGS and value > 1:
                raise WrongBody(f"{name} is {value}")
            return value
        if type_ in _COUNTED:
            form = _COUNTED[type_]
            (count,) = struct.unpack(form, self.take(struct.calcsize(form), name))
            value = self.take(count, name)
            return value.decode("ascii") if type_ == "str8" else value
        return self.take(int(type_), name)


def decode_body(kind, body):
    """The fields of a message's body; a WrongBody where it has a byte more or less."""
    layout = _LAYOUTS[kind]
    cursor = _Cursor(body)
    fields = {name: cursor.field(name, type_) for name, type_ in _fields(layout.fields)}
    for name, type_ in _fields(layout.tails.get(fields.get(layout.tells), "")):
        fields[name] = cursor.field(name, type_)
    if cursor.rest:
        raise WrongBody(f"length of body: {len(cursor.rest)} left over")
    return fields


def record(kind, payload, offset_ms=0, *, length=None):
    """One record of a Telemetry; `length` makes it lie about its payload."""
    return struct.pack("<BBI", kind, len(payload) if length is None else length, offset_ms) + payload


def telemetry(base_seq, base_time_ms, *records, count=None):
    """The body of a Telemetry of records made by `record`; `count` makes it lie about their number."""
    head = struct.pack("<QQB", base_seq, base_time_ms, len(records) if count is None else count)
    return head + b"".join(records)


def cut_telemetry(body):
    """(base_seq, base_time_ms, [(kind, offset_ms, payload), …]); a WrongBody where it is `malformed`."""
    cursor = _Cursor(body)
    base_seq, base_time_ms, count = struct.unpack("<QQB", cursor.take(17, "head"))
    records = []
    for _ in range(count):
        kind, length, offset_ms = struct.unpack("<BBI", cursor.take(6, "record"))
        records.append((kind, offset_ms, cursor.take(length, "payload")))
        if base_time_ms + offset_ms > TIME_MAX_MS:
            raise WrongBody("recorded after the year 9999")
    if not count or cursor.rest or base_seq + count > SEQ_END:
        raise WrongBody("count, bytes left over, or sequence number")
    return base_seq, base_time_ms, records


# --- Proofs ----------------------------------------------------------------


def proof(key, purpose, *parts):
    """HMAC-SHA256(key, "rcu1 purpose\\0" ‖ parts): every proof of the contract.

    login     key          body
    grant     key          the login's nonce, body
    told      key          the login's nonce, body
    attach    session key  ticket
    admit     session key  ticket or challenge, body
    redirect  session key  body
    resume    session key  challenge, resumption
    """
    return hmac.digest(key, b"rcu1 " + purpose.encode("ascii") + b"\0" + b"".join(parts), "sha256")


def session_key(key, nonce, ticket):
    return proof(key, "session", nonce, ticket)


def nonce_without_generator(key, boot_counter, login_counter):
    return proof(key, "nonce", struct.pack("<II", boot_counter, login_counter))[:16]
