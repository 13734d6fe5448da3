"""What an origin saw, one JSON line per request.

Must not know: how a server is started, or what a case expects. Main types: `Seen`, the file; `Follower`, which turns
the access log of nginx, Apache or h2o into such lines.

Fields of a line:
- `method`, `target`: as received; both empty when the origin could not even read the request line;
- `case`: the value of `x-case`, or null;
- `length`, `sha256`: of the body without its framing; null when the origin cannot tell;
- `complete`: whether the origin had the whole request, head and body;
- `status`: what the origin answered;
- `at`: seconds since 1970 when the line was written.
"""

import hashlib
import json
import os
import re
import threading
import time

# Between two looks at an access log.
POLL_S = 0.02


class Seen:
    """Appends to the file; each line is one write, so several processes may share it."""

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, method, target, case, length, sha256, complete, status):
        line = {
            "method": method,
            "target": target,
            "case": case,
            "length": length,
            "sha256": sha256,
            "complete": complete,
            "status": status,
            "at": round(time.time(), 3),
        }
        os.write(self._descriptor, (json.dumps(line) + "\n").encode())

    def write_body(self, method, target, case, body, complete=True, status=200):
        self.write(method, target, case, len(body), digest(body), complete, status)


def digest(body):
    return hashlib.sha256(body).hexdigest()


class Follower:
    """Reads an access log as it grows.

    A line is: status, completion, request line, x-case, body, parted by tabs. The body is what the sink said about it,
    `LENGTH:SHA256`. Completion is "OK" or empty where the server tells, else "-".
    """

    def __init__(self, log, seen):
        self._seen = seen
        self._end = threading.Event()
        open(log, "ab").close()
        self._file = open(log, "rb")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self):
        self._end.set()
        self._thread.join()

    def _run(self):
        rest = b""
        while True:
            last = self._end.is_set()
            *lines, rest = (rest + self._file.read()).split(b"\n")
            for line in lines:
                self._seen.write(**from_log(line))
            if last:
                return
            time.sleep(POLL_S)


def from_log(line):
    """The fields of one line of an access log."""
    fields = [unescape(field) for field in line.split(b"\t")]
    status, completion, request, case, body = (fields + [""] * 5)[:5]
    method, _, rest = request.partition(" ")
    target, _, _version = rest.rpartition(" ")
    length, _, sha256 = body.partition(":")
    answered = length.isdigit()
    return {
        "method": method if target else "",
        "target": target,
        "case": None if case in ("", "-") else case,
        "length": int(length) if answered else None,
        "sha256": sha256 if answered else None,
        # Only a request that was read to its end reaches the sink. What the server answers without it
        # counts as whole unless the server says otherwise or calls it a bad request.
        "complete": answered or (completion != "" and status != "400"),
        "status": int(status) if status.isdigit() else 0,
    }


def unescape(field):
    """Undoes the escapes of nginx and h2o (`\\xNN`) and of Apache (also `\\n`, `\\"` and the like)."""
    names = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"v": b"\v", b"f": b"\f"}

    def one(match):
        if match[1]:
            return bytes([int(match[1], 16)])
        return names.get(match[2], match[2])

    return re.sub(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", one, field, flags=re.S).decode("latin-1")
