"""The client's end of an HTTP/2 connection that sends whatever frames it is told to, and counts what comes back.

It keeps no rules (RFC 9113) beyond those that let a case say what it means: SETTINGS and PING are acknowledged, field
blocks are read, windows are known. Nothing here waits without a deadline.

Main types: `Target`, where to connect and what an ordinary request is; `Peer`, one connection.
"""

import collections
import select
import socket
import ssl
import struct
import time

import hpack

from grpc_messages import varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
INITIAL_WINDOW_SIZE = 4
LARGEST_WINDOW = 2**31 - 1
CODES = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
]
KINDS = [
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE",
    "CONTINUATION",
]
# Seconds for a TCP connection and its TLS handshake.
CONNECT = 5
FENCE = b"all done"
# Small enough to hear of a GOAWAY soon after it came.
PIECE = 32 * 1024


def code_name(code):
    return CODES[code] if code < len(CODES) else str(code)


def frame(kind, flags, stream, payload=b""):
    """A frame's bytes, whatever is in it."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Target:
    """Where cases go. With `grpc`, an ordinary request is a gRPC call to grpc_server.py, else a GET of `path`."""

    def __init__(self, address, authority, ca=None, path="/", grpc=False, answer_bytes=0):
        host, _, port = address.rpartition(":")
        self.address, self.authority, self.ca = (host, int(port)), authority, ca
        self.path, self.grpc, self.answer_bytes = path, grpc, answer_bytes

    def connect(self, receive_buffer=None):
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(CONNECT)
        made.connect(self.address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ca:
            context = ssl.create_default_context(cafile=self.ca)
            context.set_alpn_protocols(["h2"])
            made = context.wrap_socket(made, server_hostname=self.authority)
            if made.selected_alpn_protocol() != "h2":
                raise ConnectionError("h2 was not chosen")
        made.setblocking(False)
        return made

    def fields(self, method=None, path=None):
        """The head of an ordinary request."""
        method = method or ("POST" if self.grpc else "GET")
        path = path or (self.call if self.grpc else self.path)
        scheme = "https" if self.ca else "http"
        head = [(":method", method), (":scheme", scheme), (":authority", self.authority), (":path", path)]
        return head + ([("content-type", "application/grpc"), ("te", "trailers")] if self.grpc else [])

    @property
    def call(self):
        return "/grpc.testing.TestService/" + ("UnaryCall" if self.answer_bytes else "EmptyCall")

    def body(self):
        """The body of an ordinary request; None when it has none."""
        if not self.grpc:
            return None
        message = b"\x10" + varint(self.answer_bytes) if self.answer_bytes else b""
        return b"\0" + len(message).to_bytes(4, "big") + message


class Peer:
    """One connection. Everything that came is in `came`, by kind."""

    def __init__(self, target, settings=None, connection_window=0, receive_buffer=None):
        self.target, self.began = target, time.monotonic()
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.decoder.max_header_list_size = 1 << 20
        self.socket = target.connect(receive_buffer)
        # Set to False to leave in the socket whatever comes.
        self.reading = True
        self.buffer, self.block, self.outgoing = bytearray(), None, bytearray()
        self.bytes_sent = self.bytes_read = self.data_bytes = 0
        self.resets, self.statuses, self.frames = (collections.Counter() for _ in range(3))
        self.fenced = False
        self.goaway = self.closed = self.closed_after = None
        self.ended, self.status_of = set(), {}
        self.window, self.initial_window, self.windows = 65535, 65535, collections.Counter()
        pairs = b"".join(struct.pack(">HI", *pair) for pair in (settings or {}).items())
        opening = PREFACE + frame(SETTINGS, 0, 0, pairs)
        if connection_window:
            opening += frame(WINDOW_UPDATE, 0, 0, connection_window.to_bytes(4, "big"))
        self.send(opening)

    # === Sending ===

    def request(self, stream, fields=None, body=None, end=True):
        """The bytes of a request; an ordinary one without further arguments."""
        if fields is None:
            fields, body = self.target.fields(), self.target.body()
        last = END_STREAM if end else 0
        head = frame(HEADERS, END_HEADERS | (last if body is None else 0), stream, self.encoder.encode(fields))
        return head if body is None else head + frame(DATA, last, stream, body)

    def send(self, data, seconds=10):
        """Writes all of it, reading what comes meanwhile. False when the connection ended or time is up."""
        until = time.monotonic() + seconds
        for at in range(0, len(data), PIECE):
            self.outgoing += data[at : at + PIECE]
            while self.outgoing and not self.closed:
                if time.monotonic() > until:
                    self.outgoing.clear()
                    return False
                self._turn(0.1, write=True)
            if self.closed:
                return False
            self.read()
        return True

    def fence(self):
        """Sends a PING; `fenced` is set when its answer shows that all before it was worked on."""
        self.send(frame(PING, 0, 0, FENCE))

    # === Receiving ===

    def read(self):
        """Takes what is there, without waiting."""
        while not self.closed and self._read_once():
            pass

    def wait(self, until, seconds):
        """Reads until the condition holds, the connection ends or time is up; whether the condition holds."""
        deadline = time.monotonic() + seconds
        while not (held := until()) and not self.closed and (left := deadline - time.monotonic()) > 0:
            self._turn(min(left, 0.1), write=bool(self.outgoing))
        return bool(held)

    def is_over(self, stream):
        """Whether a stream will get nothing more."""
        return stream in self.ended or self.goaway is not None

    def close(self):
        self.socket.close()

    def report(self):
        """What came, for people and programs."""
        return {
            "goaway": self.goaway,
            "resets": dict(self.resets),
            "statuses": dict(self.statuses),
            "frames": dict(self.frames),
            "data_bytes": self.data_bytes,
            "closed": self.closed or "no",
            "closed_after_s": self.closed_after,
            "bytes_sent": self.bytes_sent,
        }

    def _turn(self, seconds, write):
        want = (select.POLLIN if self.reading else select.POLLRDHUP) | (select.POLLOUT if write else 0)
        poll = select.poll()
        poll.register(self.socket, want)
        if write:
            self._write()
        if not self._read_once() and not self.closed:
            poll.poll(seconds * 1000)

    def _write(self):
        try:
            sent = self.socket.send(self.outgoing[:PIECE])
            self.bytes_sent += sent
            del self.outgoing[:sent]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as why:
            # What the other side said before it closed may still be there.
            while not self.closed and self._read_once():
                pass
            self._ends(type(why).__name__)

    def _read_once(self):
        if not self.reading:
            return False
        try:
            data = self.socket.recv(256 * 1024)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as why:
            self._ends(type(why).__name__)
            return False
        if not data:
            self._ends("end of file")
            return False
        self.bytes_read += len(data)
        self.buffer += data
        self._frames()
        return True

    def _ends(self, how):
        if not self.closed:
            self.closed, self.closed_after = how, round(time.monotonic() - self.began, 3)

    def _frames(self):
        at = 0
        while len(self.buffer) - at >= 9:
            length = int.from_bytes(self.buffer[at : at + 3], "big")
            if len(self.buffer) - at < 9 + length:
                break
            kind, flags = self.buffer[at + 3], self.buffer[at + 4]
            stream = int.from_bytes(self.buffer[at + 5 : at + 9], "big") & LARGEST_WINDOW
            self._frame(kind, flags, stream, bytes(self.buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        del self.buffer[:at]

    def _frame(self, kind, flags, stream, payload):
        self.frames[KINDS[kind] if kind < len(KINDS) else str(kind)] += 1
        if kind == DATA:
            self.data_bytes += len(payload)
        elif kind in (HEADERS, CONTINUATION):
            self._fields(kind, flags, stream, payload)
        elif kind == RST_STREAM:
            self.resets[code_name(int.from_bytes(payload, "big"))] += 1
            self.ended.add(stream)
        elif kind == GOAWAY:
            last, code = struct.unpack(">II", payload[:8])
            debug = payload[8:].decode(errors="replace")
            self.goaway = {"code": code_name(code), "last_stream": last, "debug": debug}
        elif kind == WINDOW_UPDATE:
            step = int.from_bytes(payload, "big")
            if stream:
                self.windows[stream] += step
            else:
                self.window += step
        elif kind == SETTINGS and not flags & 1:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                self.initial_window = value if name == INITIAL_WINDOW_SIZE else self.initial_window
            self.outgoing += frame(SETTINGS, 1, 0)
        elif kind == PING and flags & 1:
            self.fenced |= payload == FENCE
        elif kind == PING:
            self.outgoing += frame(PING, 1, 0, payload)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)

    def _fields(self, kind, flags, stream, payload):
        if kind == HEADERS:
            padding = payload[0] if flags & PADDED else 0
            payload = payload[(1 if flags & PADDED else 0) + (5 if flags & 0x20 else 0) : len(payload) - padding]
            self.block = payload
        else:
            self.block += payload
        if flags & END_HEADERS:
            fields = dict(self.decoder.decode(self.block))
            if status := fields.get(":status"):
                self.statuses[status] += 1
                self.status_of[stream] = int(status)
            if "grpc-status" in fields:
                self.statuses[f"grpc {fields['grpc-status']}"] += 1
