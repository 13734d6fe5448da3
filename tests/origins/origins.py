"""Starts one real server as an origin that records every request it parsed.

    python3 origins.py serve NAME --port PORT --folder DIR
    python3 origins.py list

NAME is nginx, apache, h2o, node, gunicorn or python; PORT 0 takes a free one. When the origin accepts connections, one
line says so on standard output: `NAME serves 127.0.0.1:PORT`. What it saw stands in DIR/seen.jsonl (fields: see
`seen.py`), everything else it writes is in DIR as well.

It ends on SIGTERM and when its standard input closes, so whoever starts it keeps that open. Nothing is installed here:
a server that is not there is an error, exit code 3.
"""

import argparse
import os
import socket
import sys
import time

sys.dont_write_bytecode = True

from launch import ORIGINS, Missing
from lifetime import until_ended

# Apache is the slowest to start, and the machine may be busy.
START_S = 20.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="names of all origins")
    serve = verbs.add_parser("serve", help="start one")
    serve.add_argument("name", choices=ORIGINS)
    serve.add_argument("--port", type=int, default=0)
    serve.add_argument("--folder", required=True)
    arguments = parser.parse_args()
    if arguments.verb == "list":
        print("\n".join(ORIGINS))
        return 0
    folder = os.path.abspath(arguments.folder)
    os.makedirs(folder, exist_ok=True)
    try:
        return run(arguments.name, arguments.port or free_port(), folder)
    except Missing as error:
        print(f"{arguments.name}: {error}", file=sys.stderr)
        return 3


def run(name, port, folder):
    origin = ORIGINS[name](port, folder)
    try:
        if not accepts(port, origin.has_ended):
            print(f"{name} did not start, see {folder}", file=sys.stderr)
            return 1
        print(f"{name} serves 127.0.0.1:{port}", flush=True)
        until_ended(origin.has_ended)
        if origin.has_ended():
            print(f"{name} ended by itself, see {folder}", file=sys.stderr)
            return 1
        return 0
    finally:
        origin.end()


def accepts(port, has_ended):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and not has_ended():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
