"""One connection to the proxy: sends the bytes of a case and collects the answers.

Must not know: what is expected beyond the number of answers. Main function: `exchange`; main types: `Outcome`,
`Answer`.
"""

import select
import socket
import struct
import time
from dataclasses import dataclass, field

# Between two parts of a split send: enough for the first part to be read by itself.
PAUSE_S = 0.06
# Without a byte for so long, after the expected number of answers, the connection has nothing more to say.
QUIET_S = 0.3


@dataclass(frozen=True)
class Answer:
    status: int
    # What the origin says which request it answers, "METHOD TARGET"; None when the answer is not an origin's.
    saw: str | None


@dataclass
class Outcome:
    answers: list = field(default_factory=list)
    # "closed", "reset", "open", or "ours" when we ended it.
    end: str = "open"
    # Bytes that are no answer, or half of one.
    rest: bytes = b""
    began: float = 0.0
    ended: float = 0.0


class Connection:
    """A socket and what came in on it. `methods` are those of the requests, to know which answers have no body."""

    def __init__(self, address, methods):
        self.socket = socket.create_connection(address, 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.methods = methods
        self.outcome = Outcome(began=time.time())
        self.is_closed = False

    def receive(self, seconds):
        """Takes what arrives within `seconds`; whether anything did."""
        if self.is_closed or not select.select([self.socket], [], [], seconds)[0]:
            return False
        try:
            data = self.socket.recv(65536)
        except OSError:
            data, self.outcome.end = b"", "reset"
        if not data:
            self.is_closed = True
            self.outcome.end = "reset" if self.outcome.end == "reset" else "closed"
        self.outcome.rest += data
        self.parse()
        return bool(data)

    def parse(self):
        while True:
            taken = take_answer(self.outcome.rest, self.next_method(), self.is_closed)
            if taken is None:
                return
            answer, self.outcome.rest = taken
            if answer.status >= 200:
                self.outcome.answers.append(answer)

    def next_method(self):
        number = len(self.outcome.answers)
        return self.methods[number] if number < len(self.methods) else "GET"


def exchange(address, steps, methods, expected, patience):
    """Sends, then reads until the connection closes, is quiet after `expected` answers, or for `patience` seconds."""
    connection = Connection(address, methods)
    outcome = connection.outcome
    try:
        for what, data in steps:
            if what == "send":
                connection.socket.sendall(data)
            elif what == "close":
                connection.socket.shutdown(socket.SHUT_WR)
            elif what == "pause":
                until = time.monotonic() + PAUSE_S
                while (left := until - time.monotonic()) > 0 and connection.receive(left):
                    pass
                time.sleep(max(0.0, until - time.monotonic()))
            elif what == "reset":
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                outcome.end = "ours"
                return outcome
    except OSError:
        pass  # The proxy may refuse before it has read all; its answer may still be there to read.
    try:
        began = time.monotonic()
        while not connection.is_closed:
            enough = len(outcome.answers) >= expected
            if not connection.receive(QUIET_S) and not connection.is_closed:
                if enough or time.monotonic() - began > patience:
                    break
    finally:
        connection.socket.close()
        outcome.ended = time.time()
    return outcome


def take_answer(data, method, is_closed):
    """The first answer and the bytes after it, or None while it is not complete."""
    try:
        return parse_answer(data, method, is_closed)
    except (ValueError, IndexError):
        return None  # It stays what it is: bytes that are no answer.


def parse_answer(data, method, is_closed):
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end or not head.startswith(b"HTTP/"):
        return None
    lines = head.split(b"\r\n")
    status = int(lines[0].split()[1])
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    saw = fields.get(b"x-saw")
    answer = Answer(status, None if saw is None else saw.decode("latin-1"))
    if status < 200 or status in (204, 304) or method == "HEAD":
        return answer, rest
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        rest = after_chunks(rest)
        return None if rest is None else (answer, rest)
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        return (answer, rest[length:]) if len(rest) >= length else None
    return (answer, b"") if is_closed else None


def after_chunks(data):
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        size = int(line.split(b";")[0], 16)
        if len(data) < size + 2:
            return None
        data = data[size + 2 :]
        if size == 0:
            return data
