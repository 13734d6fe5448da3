"""A strict reader of HTTP/1 requests, as the reference for what a stream of bytes says.

Must not know: cases, sockets. Main function: `read`. Sources: RFC 9112 §2.2, §3, §5, §6, §7.1; RFC 9110 §5. It is
stricter than they are in these: no obs-text in values, `Transfer-Encoding` is exactly `chunked`, sizes fit into 63
bits, at most 16 digits per chunk size, one empty line before a request line. It is slow and plain on purpose.
"""

import re
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.([01])")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[!-~](?:[\t -~]*[!-~])?)?)[ \t]*")
EXTENSIONS = re.compile(rb"(?:[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb'|"[^"\\\r\n]*"))?)*')
MAX = 2**63 - 1


class Refused(Exception):
    """This is no request, or it has more than one reading."""


class Cut(Exception):
    """The stream ends, or its chunks make no sense, after the head of a request."""


class Declined(Exception):
    """A request that can be read, which a reverse proxy answers itself."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    body: bytes


@dataclass(frozen=True)
class Reading:
    """`ending` is what follows the requests: None, "refused", "declined", "cut" or "unfinished" (half a head)."""

    requests: list
    ending: str | None


def read(data):
    requests = []
    while True:
        data = data.removeprefix(b"\r\n")
        if not data:
            return Reading(requests, None)
        try:
            request, data, last = read_request(data)
        except (Refused, Cut, Declined) as error:
            return Reading(requests, type(error).__name__.lower())
        except EOFError:
            return Reading(requests, "unfinished")
        requests.append(request)
        if last:
            return Reading(requests, None)


def read_request(data):
    """The first request, the bytes after it, and whether it is the last on its connection."""
    line, data = read_line(data)
    match = REQUEST_LINE.fullmatch(line)
    if not match:
        raise Refused
    method, target, minor = match[1], match[2], int(match[3])
    fields, data = read_fields(data)
    length = framing(fields, minor)
    check_host(method, target, values(fields, b"host"))
    try:
        body, data = read_chunks(data) if length is None else read_exactly(data, length)
    except (EOFError, Refused) as error:
        raise Cut from error
    options = [option.strip().lower() for value in values(fields, b"connection") for option in value.split(b",")]
    last = b"close" in options or (minor == 0 and b"keep-alive" not in options)
    return Request(method.decode(), target.decode(), body), data, last


def read_line(data):
    line, end, rest = data.partition(b"\r\n")
    if b"\n" in line or b"\r" in line[: -1 if not end else None] or b"\0" in line:
        raise Refused
    if not end:
        raise EOFError
    return line, rest


def read_fields(data):
    fields = []
    while True:
        line, data = read_line(data)
        if not line:
            return fields, data
        match = FIELD.fullmatch(line)
        if not match:
            raise Refused
        fields.append((match[1].lower(), match[2]))


def values(fields, name):
    return [value for key, value in fields if key == name]


def framing(fields, minor):
    """The length of the body, or None when it is chunked."""
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if codings:
        if len(codings) > 1 or codings[0].lower() != b"chunked" or lengths or minor == 0:
            raise Refused
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]+", lengths[0]) or int(lengths[0]) > MAX:
        raise Refused
    return int(lengths[0])


def check_host(method, target, hosts):
    if method in (b"CONNECT", b"TRACE"):
        raise Declined
    if target == b"*" and method == b"OPTIONS":
        target = b"/"
    absolute = re.fullmatch(rb"(?i:https?)://([^/?#]+)([/?].*)?", target)
    if len(hosts) != 1 or not re.fullmatch(rb"[0-9A-Za-z.\-:\[\]]+", hosts[0]):
        raise Declined
    if absolute and absolute[1].lower() != hosts[0].lower():
        raise Declined
    if not absolute and (target[:1] != b"/" or re.search(rb"[\\#]", target)):
        raise Declined


def read_exactly(data, length):
    if len(data) < length:
        raise EOFError
    return data[:length], data[length:]


def read_chunks(data):
    body = b""
    while True:
        line, data = read_line(data)
        match = re.match(rb"[0-9A-Fa-f]{1,16}", line)
        if not match or int(match[0], 16) > MAX or not EXTENSIONS.fullmatch(line[match.end() :]):
            raise Refused
        size = int(match[0], 16)
        if size == 0:
            _, data = read_fields(data)
            return body, data
        chunk, data = read_exactly(data, size)
        end, data = read_exactly(data, 2)
        if end != b"\r\n":
            raise Refused
        body += chunk
