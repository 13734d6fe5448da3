"""Hostile row h24: requests that would become something else when they are written as HTTP/1.

Each line of h2_downgrades.jsonl is one of them, sent on a connection of its own:
    name     of the case; the request carries it as x-case, so that an upstream can tell whom it heard of
    served   it is in order and must be served; all others must be refused
    method   instead of GET
    pseudo   other values of pseudo-header fields; null leaves one out
    first    fields before all others
    add      fields after the ordinary ones
    body     text of the body
    trailers fields after the body
    open     the last frame does not end the stream
    later    body and trailers come a moment later each: the upstream may have heard of the head by then
`{authority}` stands for the host that is asked.
"""

import json
import pathlib

from h2_peer import DATA, END_HEADERS, END_STREAM, HEADERS, Peer, frame

# Seconds; enough for a head to have reached an upstream on this machine.
LATER = 0.15
LINES = pathlib.Path(__file__).parent / "h2_downgrades.jsonl"


def lines():
    return [json.loads(line) for line in LINES.read_text().splitlines()]


def send(target, line):
    """A connection on which this line's request was sent as stream 1."""
    peer = Peer(target)
    ours = lambda text: text.replace("{authority}", target.authority)
    # One byte for each character: text of the lines is bytes, not UTF-8.
    raw = lambda fields: [(ours(name).encode("latin-1"), ours(value).encode("latin-1")) for name, value in fields]
    method = {":method": line["method"]} if "method" in line else {}
    # A GET of the path whatever the target's ordinary request is: there is nothing to downgrade in a gRPC call.
    base = dict(target.fields("GET", target.path)[:4]) | method | line.get("pseudo", {})
    fields = line.get("first", []) + [[name, value] for name, value in base.items() if value is not None]
    fields += [["x-case", line["name"]], *line.get("add", [])]
    parts = [(HEADERS, END_HEADERS, peer.encoder.encode(raw(fields), huffman=False))]
    if "body" in line:
        parts.append((DATA, 0, ours(line["body"]).encode("latin-1")))
    if "trailers" in line:
        parts.append((HEADERS, END_HEADERS, peer.encoder.encode(raw(line["trailers"]), huffman=False)))
    if not line.get("open"):
        kind, flags, payload = parts.pop()
        parts.append((kind, flags | END_STREAM, payload))
    pieces = [frame(kind, flags, 1, payload) for kind, flags, payload in parts]
    for piece in pieces if line.get("later") else [b"".join(pieces)]:
        peer.send(piece)
        if line.get("later"):
            peer.wait(lambda: peer.is_over(1), LATER)
    return peer


def downgrades(target, options):
    for line in lines():
        if options.how in (None, line["name"]):
            yield line["name"], {"served": line.get("served", False)}, send(target, line)


CASES = {"downgrades": downgrades}
