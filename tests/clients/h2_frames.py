"""A hostile HTTP/2 client, frame by frame (hostile rows h20 to h24).

    h2_frames.py --target 127.0.0.1:8080 --authority hello.production.localhost --case rapid_reset --count 100000
    h2_frames.py --target 127.0.0.1:8443 --authority hello.production.localhost --ca ca.pem --case all
    h2_frames.py ... --case window_held_at_zero --how unread --grpc --answer-bytes 8388608 --watch PID
    h2_frames.py ... --case downgrades --expect refused --expect after:200
    h2_frames.py --list

Prints one JSON object for each connection (or crowd of them): what was sent, what came back, whether and when the
connection was closed, what an ordinary request on a new connection got after it, and with --watch what it cost the
process. It judges only by --expect: then it ends with 1 when one is not met, and the object says which.

An expectation is one of these, or several with a comma between them, of which one must hold:
    goaway  goaway:CODE  reset  reset:CODE  status:NNN  closed  open
    refused   a reset or GOAWAY that is not NO_ERROR, a status of 400 and more, or the end of the connection; for the
              lines of `downgrades` that are in order: served
    served    a status of 200
    after:NNN what the ordinary request got; "after:grpc 0" for a call that ended well
The downgrades want an upstream that speaks HTTP/1. window_held_at_zero makes the upstream send CONNECTIONS * STREAMS
large answers. Every case is bounded by --count and --seconds and ends by itself.
"""

import argparse
import json
import sys
import time

import h2_downgrades
import h2_floods
import h2_windows
import process_watch
from h2_peer import INITIAL_WINDOW_SIZE, LARGEST_WINDOW, Peer, Target

CASES = {**h2_floods.CASES, **h2_windows.CASES, **h2_downgrades.CASES}
# For an answer once everything was sent.
ANSWER = 3


class Options:
    """How much of it; time runs from the beginning of a case."""

    def __init__(self, arguments):
        self.count, self.seconds, self.how = arguments.count, arguments.seconds, arguments.how
        self.connections, self.streams = arguments.connections, arguments.streams
        self.began = time.monotonic()

    def left(self):
        return max(0.1, self.began + self.seconds - time.monotonic())

    def over(self):
        return time.monotonic() > self.began + self.seconds


def ordinary(target):
    """What a request of a client that means well gets: status and milliseconds."""
    began = time.monotonic()
    try:
        # Its own small request, also where a case asks for large answers.
        small = Target("%s:%d" % target.address, target.authority, target.ca, target.path, target.grpc)
        peer = Peer(small, {INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, LARGEST_WINDOW - 65535)
        peer.send(peer.request(1))
        peer.wait(lambda: peer.is_over(1), 5)
        peer.close()
        came = dict(peer.statuses) or peer.report()
    except OSError as why:
        came = type(why).__name__
    return {"came": came, "took_ms": round((time.monotonic() - began) * 1000, 1)}


def judge(expectation, came, served, after):
    """Whether one of the alternatives holds."""
    goaways = came.get("goaways") or ([came["goaway"]["code"]] if came.get("goaway") else [])
    statuses = [int(status) for status in came["statuses"] if status.isdigit()]
    closed = came.get("closed", "no") != "no" or bool(came.get("connections_closed"))
    refused = closed or any(code != "NO_ERROR" for code in [*came["resets"], *goaways])
    refused = refused or any(status >= 400 for status in statuses)
    for alternative in expectation.split(","):
        what, _, which = alternative.partition(":")
        holds = {
            "goaway": which in goaways if which else bool(goaways),
            "reset": which in came["resets"] if which else bool(came["resets"]),
            "status": which.isdigit() and int(which) in statuses,
            "closed": closed,
            "open": not closed and not goaways,
            "served": 200 in statuses,
            "refused": 200 in statuses if served else refused,
            "after": isinstance(after["came"], dict) and which in after["came"],
        }
        if what not in holds:
            raise SystemExit(f"h2_frames.py: unknown expectation {alternative!r}")
        if holds[what]:
            return True
    return False


def run(name, target, arguments):
    """Runs a case and prints its objects; how many expectations were not met."""
    missed = 0
    options, watch = Options(arguments), process_watch.Watch(arguments.watch)
    variants = CASES[name](target, options)
    while True:
        began = time.monotonic()
        with watch:
            try:
                variant, sent, peer = next(variants)
            except StopIteration:
                return missed
            except OSError as why:
                print(json.dumps({"case": name, "failed": f"{type(why).__name__}: {why}"}), flush=True)
                return missed + 1
            # All was sent: what it comes to may take a moment. A flood is over when a PING behind it was answered.
            peer.wait(lambda: peer.is_over(1) or peer.fenced, ANSWER)
            if peer.goaway:
                peer.wait(lambda: peer.closed, 1)
        took = round(time.monotonic() - began, 3)
        came, after = peer.report(), ordinary(target)
        peer.close()
        said = {"case": name, "variant": variant, "sent": sent, "came": came, "elapsed_s": took, "after": after}
        if arguments.watch:
            said["process"] = watch.report()
        not_met = [one for one in arguments.expect if not judge(one, came, sent.get("served"), after)]
        if arguments.expect:
            said["not_met"] = not_met
        print(json.dumps(said), flush=True)
        missed += len(not_met)
        options.began = time.monotonic()


def main():
    parser = argparse.ArgumentParser(description="A hostile HTTP/2 client.")
    parser.add_argument("--target", metavar="HOST:PORT")
    parser.add_argument("--authority", metavar="NAME")
    parser.add_argument("--ca", metavar="FILE", help="speak TLS and trust these")
    parser.add_argument("--case", action="append", choices=["all", *CASES], metavar="NAME")
    parser.add_argument("--how", metavar="VARIANT", help="only this variant: once, again, held, drip, unread, a line")
    parser.add_argument("--count", type=int, help="how many frames or streams; each case has its default")
    parser.add_argument("--seconds", type=float, default=10, help="how long each variant may send or hold (10)")
    parser.add_argument("--connections", type=int, default=20, help="of window_held_at_zero (20)")
    parser.add_argument("--streams", type=int, default=100, help="on each of them (100)")
    parser.add_argument("--path", default="/", help="of an ordinary request (/)")
    parser.add_argument("--grpc", action="store_true", help="ordinary requests are calls to grpc_server.py")
    parser.add_argument("--answer-bytes", type=int, default=0, help="with --grpc: ask for answers of this size")
    parser.add_argument("--watch", type=int, metavar="PID", help="tell what it costs this process")
    parser.add_argument("--expect", action="append", default=[], metavar="WHAT", help="see above")
    parser.add_argument("--list", action="store_true", help="print the cases")
    arguments = parser.parse_args()
    if arguments.list:
        print(*CASES, sep="\n")
        return 0
    if not (arguments.target and arguments.authority and arguments.case):
        parser.error("--target, --authority and --case are needed, or --list")
    target = Target(arguments.target, arguments.authority, arguments.ca, arguments.path, arguments.grpc,
                    arguments.answer_bytes)
    wanted = [one for case in arguments.case for one in (CASES if case == "all" else [case])]
    return 1 if sum(run(name, target, arguments) for name in wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
