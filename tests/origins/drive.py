"""Sends cases of raw requests through a proxy and compares what its origin saw with what it answered and logged.

    python3 drive.py --proxy HOST:PORT --host NAME --cases FILE... --seen DIR/seen.jsonl [--access-log FILE] [--json]
    python3 drive.py --check --cases FILE...

Each case has a connection of its own and a tag in its requests, by which they are found in what the origin saw and in
the log; so cases run side by side, but for those marked `alone`, whose requests carry none. What was seen without a tag
while cases ran side by side is traced by running those of that time again, each alone.

The access log has one JSON object a line, of which method, target, status and upstream (empty or null when the
request was not forwarded) are read. `--check` sends nothing: it compares each case's expectation with a strict reading
of its bytes. `--known FILE` names cases, one a line, whose failure is known: they are told, but do not count.

Exit code: 0 all well, 1 something was found, 2 it could not run. Kinds of findings: see `compare.py`.
"""

import argparse
import socket
import sys

sys.dont_write_bytecode = True

import check
import report
from cases import Malformed, read_files
from run import Run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", help="HOST:PORT to send to")
    parser.add_argument("--host", help="value of the Host field, by which the proxy finds the origin")
    parser.add_argument("--cases", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--seen", help="the file in which the origin records")
    parser.add_argument("--access-log", metavar="FILE", help="the proxy's log")
    parser.add_argument("--only", metavar="TEXT", help="only cases with TEXT in their names")
    parser.add_argument("--known", metavar="FILE", help="names of cases whose failure is known")
    parser.add_argument("--at-once", type=int, default=12, metavar="N", help="cases side by side")
    parser.add_argument("--patience", type=float, default=1.5, metavar="S", help="seconds to wait for an answer")
    parser.add_argument("--no-trace", action="store_true", help="do not search for whose a stray request is")
    parser.add_argument("--json", action="store_true", help="results as one JSON document")
    parser.add_argument("--check", action="store_true", help="send nothing, check the cases themselves")
    arguments = parser.parse_args()
    try:
        cases = [case for case in read_files(arguments.cases) if (arguments.only or "") in case.name]
        if arguments.check:
            return check.run(cases)
        if not (arguments.proxy and arguments.host and arguments.seen):
            parser.error("--proxy, --host and --seen are needed")
        known = report.known(arguments.known)
        results = Run(arguments, address(arguments.proxy)).all(cases)
    except (Malformed, OSError) as error:
        print(f"drive: {error}", file=sys.stderr)
        return 2
    show = report.as_json if arguments.json else report.as_text
    print(show(results, known))
    return 1 if any(result.findings and result.name not in known for result in results) else 0


def address(text):
    host, _, port = text.rpartition(":")
    return socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][4][:2]


if __name__ == "__main__":
    sys.exit(main())
