"""Hostile row h22: large answers asked for, and not taken.

As in `h2_floods`, a case yields (variant, what was sent, the connection); here one report stands for all connections
of a variant, which are held together for the options' seconds.
"""

import time

from h2_peer import INITIAL_WINDOW_SIZE, LARGEST_WINDOW, WINDOW_UPDATE, Peer, frame

# Between two drips of one byte for each stream.
DRIP = 0.1
# What a socket that is never read holds by itself; the kernel doubles it.
SOCKET_BYTES = 4096


class Crowd:
    """Connections that are told of as one."""

    goaway = None

    def __init__(self, peers):
        self.peers = peers

    def wait(self, until, seconds):
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline:
            for peer in self.peers:
                peer.wait(lambda: False, 0.01)

    def is_over(self, _stream):
        """Cases hand them on when they have been held for long enough."""
        return True

    @property
    def closed(self):
        return all(peer.closed for peer in self.peers)

    def close(self):
        for peer in self.peers:
            peer.close()

    def report(self):
        reports = [peer.report() for peer in self.peers]
        total = {}
        for kind in ("resets", "statuses"):
            total[kind] = {}
            for report in reports:
                for name, count in report[kind].items():
                    total[kind][name] = total[kind].get(name, 0) + count
        closed_after = [report["closed_after_s"] for report in reports if report["closed_after_s"] is not None]
        codes = [report["goaway"]["code"] for report in reports if report["goaway"]]
        return {
            **total,
            "connections_closed": len(closed_after),
            "first_closed_after_s": min(closed_after, default=None),
            "last_closed_after_s": max(closed_after, default=None),
            "goaways": {code: codes.count(code) for code in set(codes)},
            "data_bytes": sum(report["data_bytes"] for report in reports),
            "bytes_read": sum(peer.bytes_read for peer in self.peers),
        }


def _ask(target, options, **more):
    """The connections, with all their requests sent."""
    peers = [Peer(target, **more) for _ in range(options.connections)]
    for peer in peers:
        peer.wait(lambda: peer.frames["SETTINGS"], 2)
    return peers


def _requests(peer, options):
    return b"".join(peer.request(stream) for stream in range(1, 2 * options.streams, 2))


def held(target, options):
    """Windows of 0 from the beginning to the end."""
    peers = _ask(target, options, settings={INITIAL_WINDOW_SIZE: 0})
    for peer in peers:
        peer.send(_requests(peer, options))
    crowd = Crowd(peers)
    crowd.wait(lambda: crowd.closed, options.seconds)
    return "held", crowd


def drip(target, options):
    """Windows of 0 that get one byte at a time: always some progress."""
    peers = _ask(target, options, settings={INITIAL_WINDOW_SIZE: 0})
    for peer in peers:
        peer.send(_requests(peer, options))
    crowd, until = Crowd(peers), time.monotonic() + options.seconds
    one = (1).to_bytes(4, "big")
    while time.monotonic() < until and not crowd.closed:
        began = time.monotonic()
        for peer in peers:
            if not peer.closed:
                open_streams = [stream for stream in range(1, 2 * options.streams, 2) if stream not in peer.ended]
                peer.send(b"".join(frame(WINDOW_UPDATE, 0, stream, one) for stream in open_streams), 1)
                peer.read()
        time.sleep(max(0, min(DRIP - (time.monotonic() - began), until - time.monotonic())))
    return "drip", crowd


def unread(target, options):
    """Windows as large as can be, and nobody reads the socket."""
    widest = {"settings": {INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, "connection_window": LARGEST_WINDOW - 65535}
    peers = _ask(target, options, receive_buffer=SOCKET_BYTES, **widest)
    for peer in peers:
        peer.reading = False
        peer.send(_requests(peer, options))
    time.sleep(options.seconds)
    # What it left in the socket tells whether it went on, or has closed.
    crowd = Crowd(peers)
    for peer in peers:
        peer.reading = True
    crowd.wait(lambda: crowd.closed, 1)
    return "unread", crowd


def window_held_at_zero(target, options):
    for way in (held, drip, unread):
        if options.how in (None, way.__name__):
            how, crowd = way(target, options)
            yield how, {"connections": options.connections, "streams_each": options.streams}, crowd


CASES = {"window_held_at_zero": window_held_at_zero}
