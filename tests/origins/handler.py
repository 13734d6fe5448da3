"""Python's own server as an origin, and as the sink behind those origins that cannot hash a body.

Must not know: the other origins. Main functions: `origin` and `sink`, each a running server.

The handler reads bodies as programs on `http.server` usually do, which is as lenient as it gets: header names and
line ends as `email.parser` takes them, chunk sizes as `int(text, 16)` does (`+5`, `0x5`, `5_0`). That is on purpose:
what a strict proxy let through by mistake is read here in another way than elsewhere.
"""

import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from seen import digest

# How long a connection may be silent.
IDLE_S = 60


class Cut(Exception):
    """The connection ended within a body, or the body made no sense."""


class Handler(BaseHTTPRequestHandler):
    """Answers every method with 200 and says what it saw."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    # Answers are small and must not wait for the client's acknowledgement.
    disable_nagle_algorithm = True
    # Head and body of an answer in one piece.
    wbufsize = 64 * 1024

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        try:
            body = self.read_body()
        except (Cut, OSError, ValueError, OverflowError, MemoryError):
            self.close_connection = True
            self.record(b"", complete=False, status=400)
            return
        # Before the answer, so that whoever has the answer finds the line.
        self.record(body, complete=True, status=200)
        text = b"" if self.command == "HEAD" else b"seen\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Saw", saw(self.command, self.path))
        self.send_header("X-Body", f"{len(body)}:{digest(body)}")
        self.end_headers()
        self.wfile.write(text)

    def handle_expect_100(self):
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self.read_chunks()
        length = int(self.headers.get("Content-Length") or 0)
        return self.exactly(length)

    def read_chunks(self):
        body = b""
        while True:
            line = self.rfile.readline(65536)
            if not line:
                raise Cut
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            body += self.exactly(size)
            self.rfile.readline(65536)
        # Trailers.
        while self.rfile.readline(65536).strip():
            pass
        return body

    def exactly(self, length):
        body = self.rfile.read(length)
        if len(body) < length:
            raise Cut
        return body

    def record(self, body, complete, status):
        seen = self.server.seen
        if seen:
            seen.write_body(self.command, self.path, self.headers.get("X-Case"), body, complete, status)

    def send_error(self, code, message=None, explain=None):
        """Called for what is no request: that arrived too, so it is recorded."""
        if self.server.seen:
            self.server.seen.write("", "", None, None, None, False, code)
        super().send_error(code, message, explain)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, seen):
        self.seen = seen
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, *_):
        """A connection that was reset is nothing to tell."""


def saw(method, target):
    """Method and target as a field value, for whoever has the answer to know which request it answers."""
    return f"{method} {urllib.parse.quote(target, safe='/:?=&*%#[]@!$()+,;~', encoding='latin-1')}"


def origin(port, seen):
    return run(Server(port, seen))


def sink():
    """Says length and hash of a body in `X-Body`, where the server in front writes it to its log."""
    return run(Server(0, None))


def run(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
