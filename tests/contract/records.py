"""The record kinds of section 3 of the contract: payload bytes to fields in their units, and back.

A record is a dict with `kind` (a name, or the number of a kind that nobody
knows) and its fields, named as the vectors and the database columns name them.
None is *not available*.
"""

import struct

GPS, FUEL, GYROSCOPE, DIAGNOSIS, CUSTOM = 1, 2, 3, 4, 5
NUMBERS = {"gps": GPS, "fuel": FUEL, "gyroscope": GYROSCOPE, "diagnosis": DIAGNOSIS, "custom": CUSTOM}
NAMES = {number: name for name, number in NUMBERS.items()}

# kind: (name, type, wire units in one unit of the field); upper-case types are unsigned
_FIELDS = {
    GPS: [
        ("latitude", "i", 10_000_000),
        ("longitude", "i", 10_000_000),
        ("altitude_m", "i", 100),
        ("speed_m_s", "H", 100),
        ("heading_deg", "H", 100),
        ("satellites", "B", 1),
        ("hdop", "B", 10),
    ],
    FUEL: [("level_percent", "H", 100), ("rate_ml_h", "I", 1), ("used_ml", "Q", 1)],
    GYROSCOPE: [
        ("rate_x_deg_s", "h", 10),
        ("rate_y_deg_s", "h", 10),
        ("rate_z_deg_s", "h", 10),
        ("acceleration_x_g", "h", 1000),
        ("acceleration_y_g", "h", 1000),
        ("acceleration_z_g", "h", 1000),
    ],
    DIAGNOSIS: [("rpm", "H", 1), ("coolant_c", "h", 10), ("battery_v", "H", 1000), ("odometer_m", "I", 1)],
}

# The largest magnitude that is in range, in wire units.
_RANGES = {
    "latitude": 900_000_000,
    "longitude": 1_800_000_000,
    "heading_deg": 35_999,
    "level_percent": 10_000,
    "used_ml": 2**63 - 1,
}

_LAMP = 0x01


class Flaw(Exception):
    """Why a record is set aside: `length`, or the field that is out of its range."""


def _form(kind):
    return "<" + "".join(type_ for _, type_, _ in _FIELDS[kind])


def _not_available(type_):
    bits = 8 * struct.calcsize("<" + type_)
    return 2**bits - 1 if type_.isupper() else -(2 ** (bits - 1))


def _trouble_code(word):
    return f"{'PCBU'[word >> 14]}{word >> 12 & 3}{word & 0xFFF:03X}"


def _trouble_word(code):
    return "PCBU".index(code[0]) << 14 | int(code[1]) << 12 | int(code[2:], 16)


def decode(kind, payload):
    """The fields of a record that the cluster stores; a Flaw for one that it sets aside."""
    if kind not in NAMES:
        return {"kind": kind, "payload": payload}
    if kind == CUSTOM:
        if len(payload) < 2:
            raise Flaw("length")
        return {"kind": "custom", "channel": int.from_bytes(payload[:2], "little"), "data": payload[2:]}

    fixed = struct.calcsize(_form(kind))
    rest = payload[fixed:]
    if kind == DIAGNOSIS:
        if len(rest) < 2 or len(rest) != 2 + 2 * rest[1]:
            raise Flaw("length")
    elif rest or len(payload) < fixed:
        raise Flaw("length")

    fields = {"kind": NAMES[kind]}
    for (name, type_, scale), wire in zip(_FIELDS[kind], struct.unpack(_form(kind), payload[:fixed])):
        if wire == _not_available(type_):
            fields[name] = None
        elif name in _RANGES and abs(wire) > _RANGES[name]:
            raise Flaw(name)
        else:
            fields[name] = wire / scale if scale > 1 else wire
    if kind == DIAGNOSIS:
        fields["malfunction_lamp"] = bool(rest[0] & _LAMP)
        fields["flags"] = rest[0]
        fields["trouble_codes"] = [_trouble_code(word) for word in struct.unpack(f"<{rest[1]}H", rest[2:])]
    return fields


def encode(record):
    """(kind, payload) of a record; fields that are left out are not available."""
    name = record["kind"]
    if name not in NUMBERS:
        return name, record["payload"]
    kind = NUMBERS[name]
    if kind == CUSTOM:
        return kind, struct.pack("<H", record["channel"]) + record["data"]
    wires = []
    for field, type_, scale in _FIELDS[kind]:
        value = record.get(field)
        wires.append(_not_available(type_) if value is None else round(value * scale))
    payload = struct.pack(_form(kind), *wires)
    if kind == DIAGNOSIS:
        words = [_trouble_word(code) for code in record.get("trouble_codes", [])]
        flags = record.get("flags", _LAMP if record.get("malfunction_lamp") else 0)
        payload += struct.pack(f"<BB{len(words)}H", flags, len(words), *words)
    return kind, payload


def table(kind):
    """The table that keeps records of this kind; kinds that nobody knows go with the custom ones."""
    return f"telemetry_{NAMES.get(kind, 'custom')}"


def columns(kind, payload):
    """What the columns of `table(kind)` hold for this record."""
    fields = decode(kind, payload)
    del fields["kind"]
    if kind == DIAGNOSIS:
        fields["trouble_codes"] = " ".join(fields["trouble_codes"])
        fields["malfunction_lamp"] = int(fields["malfunction_lamp"])
    elif kind == CUSTOM:
        fields = {"kind": kind, "channel": fields["channel"], "payload": fields["data"]}
    elif kind not in NAMES:
        fields = {"kind": kind, "channel": None, "payload": payload}
    return fields
