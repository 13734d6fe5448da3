"""The messages of grpc.testing (messages.proto of the gRPC project) that the interop cases need, without protoc.

A message is a dict; a schema maps a field's name to (number, kind, repeated). Fields that are absent, zero or empty are
not written, as proto3 does. Unknown fields are skipped.
"""

EMPTY = {}
BOOL = {"value": (1, "bool", False)}
PAYLOAD = {"type": (1, "int", False), "body": (2, "bytes", False)}
STATUS = {"code": (1, "int", False), "message": (2, "string", False)}
SIMPLE_REQUEST = {
    "response_type": (1, "int", False),
    "response_size": (2, "int", False),
    "payload": (3, PAYLOAD, False),
    "response_compressed": (6, BOOL, False),
    "response_status": (7, STATUS, False),
    "expect_compressed": (8, BOOL, False),
}
SIMPLE_RESPONSE = {"payload": (1, PAYLOAD, False)}
INPUT_REQUEST = {"payload": (1, PAYLOAD, False), "expect_compressed": (2, BOOL, False)}
INPUT_RESPONSE = {"aggregated_payload_size": (1, "int", False)}
PARAMETERS = {"size": (1, "int", False), "interval_us": (2, "int", False), "compressed": (3, BOOL, False)}
OUTPUT_REQUEST = {
    "response_type": (1, "int", False),
    "response_parameters": (2, PARAMETERS, True),
    "payload": (3, PAYLOAD, False),
    "response_status": (7, STATUS, False),
}
OUTPUT_RESPONSE = {"payload": (1, PAYLOAD, False)}

# name: (request, response, the client streams, the server streams)
TEST_SERVICE = {
    "EmptyCall": (EMPTY, EMPTY, False, False),
    "UnaryCall": (SIMPLE_REQUEST, SIMPLE_RESPONSE, False, False),
    "StreamingInputCall": (INPUT_REQUEST, INPUT_RESPONSE, True, False),
    "StreamingOutputCall": (OUTPUT_REQUEST, OUTPUT_RESPONSE, False, True),
    "FullDuplexCall": (OUTPUT_REQUEST, OUTPUT_RESPONSE, True, True),
}


def payload(size):
    """A payload of zeros."""
    return {"body": bytes(size)}


def encode(schema, message):
    """The bytes of a message."""
    out = []
    for name, value in message.items():
        number, kind, repeated = schema[name]
        for item in value if repeated else [value]:
            _encode_field(out, number, kind, item)
    return b"".join(out)


def decode(schema, data):
    """The message in these bytes; raises ValueError when there is none."""
    by_number = {number: (name, kind, repeated) for name, (number, kind, repeated) in schema.items()}
    message, at = {}, 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire, value = key & 7, None
        if wire == 0:
            value, at = _read_varint(data, at)
        elif wire == 2:
            length, at = _read_varint(data, at)
            value, at = bytes(data[at : at + length]), at + length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(data):
            raise ValueError("cut off")
        if key >> 3 not in by_number:
            continue
        name, kind, repeated = by_number[key >> 3]
        value = _decode_value(kind, wire, value)
        if repeated:
            message.setdefault(name, []).append(value)
        else:
            message[name] = value
    return message


def _encode_field(out, number, kind, value):
    if kind in ("int", "bool"):
        if value:
            out += [varint(number << 3), varint(int(value))]
        return
    if isinstance(kind, dict):
        data = encode(kind, value)
    else:
        data = value.encode() if kind == "string" else value
        if not data:
            return
    out += [varint(number << 3 | 2), varint(len(data)), data]


def _decode_value(kind, wire, value):
    if (kind in ("int", "bool")) != (wire == 0):
        raise ValueError(f"wire type {wire} for {kind}")
    if kind == "int":
        return value
    if kind == "bool":
        return bool(value)
    if kind == "bytes":
        return value
    return value.decode() if kind == "string" else decode(kind, value)


def varint(value):
    """Seven bits a byte, the lowest first; all but the last with the eighth set."""
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _read_varint(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
