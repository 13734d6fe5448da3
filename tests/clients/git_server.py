"""Serves git repositories over HTTP, by git's own http-backend, and misbehaves on request.

    git_server.py --port 0 ROOT [USER PASSWORD]

Prints `listening on 127.0.0.1:PORT`, then serves until it is ended. The first word of a path says how:

    /well/NAME      as it should be; also for pushes
    /basic/NAME     only for USER with PASSWORD; others get 401
    /refused/NAME   403 for everybody
    /broken/NAME    503
    /html/NAME      a page for people, with 200
    /moved/NAME     a redirection to /well/NAME
    /silent/NAME    takes the request and never answers
    /cut/NAME       ends the connection in the middle of the pack
    /endless/NAME   a pack of one object that never ends
    /asked          how often references were asked for, by path, as JSON
"""

import argparse
import base64
import http.server
import json
import os
import subprocess
import sys
import threading
import zlib

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=0)
parser.add_argument("root")
parser.add_argument("credentials", nargs="*", metavar="USER PASSWORD")
arguments = parser.parse_args()
ROOT = os.path.abspath(arguments.root)
CREDENTIALS = ":".join(arguments.credentials) or None
BACKEND = os.path.join(subprocess.check_output(["git", "--exec-path"], text=True).strip(), "git-http-backend")
asked, lock = {}, threading.Lock()


def band(data):
    """One packet of the side band that carries the pack."""
    return b"%04x\x01" % (len(data) + 5) + data


def endless():
    """The pieces of a pack whose one object claims 64 GiB and is made of noise."""
    size, head = 64 << 30, bytearray()
    byte = 0b0011_0000 | (size & 15)
    size >>= 4
    while size:
        head.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    head.append(byte)
    packer = zlib.compressobj(0)
    yield b"PACK\0\0\0\2\0\0\0\1" + bytes(head)
    while True:
        yield packer.compress(os.urandom(32 * 1024)) + packer.flush(zlib.Z_FULL_FLUSH)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.serve(b"")

    def do_POST(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.serve(bytes(body))

    def serve(self, body):
        path, _, query = self.path.partition("?")
        how, _, rest = path.lstrip("/").partition("/")
        if path == "/asked":
            with lock:
                return self.answer(200, json.dumps(asked).encode(), "application/json")
        if path.endswith("/info/refs"):
            with lock:
                name = path.removesuffix("/info/refs")
                asked[name] = asked.get(name, 0) + 1
        plain = zlib.decompress(body, 31) if self.headers.get("content-encoding") == "gzip" else body
        fetches = path.endswith("/git-upload-pack") and b"command=fetch" in plain
        if how == "silent":
            threading.Event().wait()
        elif how == "refused":
            self.answer(403, b"you may not\n")
        elif how == "broken":
            self.answer(503, b"not now\n")
        elif how == "html":
            self.answer(200, b"<html>log in first</html>\n", "text/html")
        elif how == "moved":
            self.answer(302, b"", location=f"/well/{rest}" + (f"?{query}" if query else ""))
        elif how == "basic" and not self.is_known():
            self.answer(401, b"who are you?\n")
        elif how == "endless" and fetches:
            self.pack(endless())
        elif how in ("well", "basic", "cut", "endless"):
            self.backend(rest, query, body, cut=how == "cut" and fetches)
        else:
            self.answer(404, b"nothing is here\n")

    def is_known(self):
        kind, _, given = self.headers.get("authorization", "").partition(" ")
        return CREDENTIALS and kind == "Basic" and base64.b64decode(given).decode() == CREDENTIALS

    def answer(self, status, body, kind="text/plain", location=None):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if status == 401:
            self.send_header("www-authenticate", 'Basic realm="git"')
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)

    def pack(self, pieces):
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "application/x-git-upload-pack-result")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b"000dpackfile\n")
        for piece in pieces:
            self.wfile.write(band(piece))

    def backend(self, rest, query, body, cut):
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": ROOT,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "3",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack",
            "GIT_CONFIG_VALUE_1": "true",
            "GIT_CONFIG_KEY_2": "uploadpack.allowAnySHA1InWant",
            "GIT_CONFIG_VALUE_2": "true",
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": "/" + rest,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        done = subprocess.run([BACKEND], input=body, env=environment, stdout=subprocess.PIPE, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(fields.pop("Status", "200").split()[0])
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


server = Server(("127.0.0.1", arguments.port), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
