"""Tests of the driver itself: does it find what a bad proxy lets through, and is it silent about a good one?

    python3 -m unittest discover -s tests/origins

A proxy of a few lines, which believes whichever length it is told to, stands before Python's own server; so nothing has
to be installed.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import handler
import reference
from cases import Malformed, expectation, read_block, read_file, render
from run import Run
from seen import Seen, from_log


def case(name, expect, *lines):
    return read_block(name, [f"case {name}", f"expect: {expect}", *(f"> {line}" for line in lines)])[0]


GET = r"GET /{case}/2 HTTP/1.1\r\nHost: {host}\r\n\r\n"
HIDDEN = r"{begin all}0\r\n\r\nGET /{case}/hidden HTTP/1.1\r\nHost: {host}\r\n\r\n{end all}"
POST = r"POST /{case}/1 HTTP/1.1\r\nHost: {host}\r\n"
BOTH = r"Content-Length: {length all}\r\nTransfer-Encoding: chunked\r\n\r\n"
SMUGGLING = case("cl-te", "refused", POST, BOTH, HIDDEN)


class LeakyProxy:
    """Takes the end of a request from one of the two lengths, forwards the bytes as they came, and logs it."""

    def __init__(self, origin, log, believes, refuses_both=False):
        self.origin, self.log, self.believes, self.refuses_both = origin, log, believes, refuses_both
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        data = b""
        with client, socket.create_connection(self.origin) as upstream:
            answers = upstream.makefile("rb")
            while True:
                while b"\r\n\r\n" not in data:
                    more = client.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, rest = data.partition(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
                both = b"Content-Length" in fields and b"Transfer-Encoding" in fields
                if both and self.refuses_both:
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    return
                if self.believes == "length" or not both:
                    end = int(fields.get(b"Content-Length", 0))
                else:
                    end = rest.index(b"0\r\n\r\n") + 5
                upstream.sendall(head + b"\r\n\r\n" + rest[:end])
                data = rest[end:]
                method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
                self.log_line(method, target)
                client.sendall(self.answer(answers))

    def answer(self, answers):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += answers.readline()
        return head + answers.read(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))

    def log_line(self, method, target):
        line = {"method": method, "target": target, "status": 200, "upstream": "web", "host": "h"}
        with open(self.log, "a") as log:
            log.write(json.dumps(line) + "\n")


class Driving(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.seen, self.log = os.path.join(folder.name, "seen.jsonl"), os.path.join(folder.name, "access.jsonl")
        self.origin = handler.origin(0, Seen(self.seen))
        self.addCleanup(self.origin.server_close)
        self.addCleanup(self.origin.shutdown)

    def kinds(self, cases, **proxy):
        leaky = LeakyProxy(self.origin.server_address, self.log, **proxy)
        self.addCleanup(leaky.listener.close)
        arguments = argparse.Namespace(
            host="h", seen=self.seen, access_log=self.log, patience=0.5, at_once=4, no_trace=False
        )
        results = Run(arguments, leaky.address).all(cases)
        return {result.name: {finding.kind for finding in result.findings} for result in results}

    def test_a_request_hidden_from_the_proxy_is_found(self):
        self.assertIn("smuggled", self.kinds([SMUGGLING], believes="length")["cl-te"])

    def test_a_request_that_had_to_be_refused_is_found(self):
        kinds = self.kinds([SMUGGLING], believes="chunks")["cl-te"]
        self.assertIn("reached", kinds)
        self.assertNotIn("smuggled", kinds)

    def test_a_strict_proxy_is_right(self):
        pipeline = case("pipeline", "two", POST, r"Content-Length: 5\r\n\r\nhello", GET)
        self.assertEqual(
            self.kinds([SMUGGLING, pipeline], believes="length", refuses_both=True), {"cl-te": set(), "pipeline": set()}
        )

    def test_a_request_without_a_tag_is_traced_to_its_case(self):
        # The hidden request carries no tag at all, so only running the case again tells whose it is.
        stray = case("stray", "one", POST, BOTH, HIDDEN.replace("/{case}", ""))
        plain = case("plain", "one", GET)
        self.assertIn("smuggled", self.kinds([stray, plain], believes="length")["stray"])


class Reading(unittest.TestCase):
    def test_placeholders(self):
        steps = render(r"{begin a}{host}{pause}\x00{end a}{length a}{hex a}{repeat 3 \r}{close}", "abcdefghi", "c")
        self.assertEqual(steps, [("send", b"abcdefghi"), ("pause", b""), ("send", b"\x0010a\r\r\r"), ("close", b"")])

    def test_mistakes(self):
        for lines in (["case a"], ["case a", "expect: six", "> {case}"], ["case a", "expect: either", "> {case}"]):
            with self.assertRaises(Malformed):
                read_block("x", lines)
        for bytes_ in (r"{case}{", r"{case}\q", r"{case}{nobody}", r"{case}{length a}", "no tag"):
            with self.assertRaises(Malformed, msg=bytes_):
                case("a", "one", bytes_)

    def test_expectations(self):
        two = expectation("x", "two, then cut")
        self.assertEqual((two.count, two.ending, two.answers), (2, "cut", 3))

    def test_all_cases_are_read(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "framing")
        files = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".txt")]
        self.assertGreater(sum(len(read_file(file)) for file in files), 600)

    def test_the_reference_is_strict(self):
        head = b"POST / HTTP/1.1\r\nHost: h\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        for data, count, ending in (
            (head + b"Content-Length: 2\r\n\r\nab", 1, None),
            (chunked + b"2;x=y\r\nab\r\n0\r\nA: b\r\n\r\n" + head + b"\r\n", 2, None),
            (chunked + b"2\nab\r\n0\r\n\r\n", 0, "cut"),
            (chunked + b"0\r\n\r\nX\r\n\r\n", 1, "refused"),
            (head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "refused"),
            (b"GET / HTTP/1.1\r\n\r\n", 0, "declined"),
            (head, 0, "unfinished"),
        ):
            reading = reference.read(data)
            self.assertEqual((len(reading.requests), reading.ending), (count, ending), data)

    def test_a_line_of_an_access_log(self):
        line = from_log(rb"200" + b"\t-\t" + rb"GET /a\x22\\b HTTP/1.1" + b"\t-\t0:e3b0")
        self.assertEqual((line["method"], line["target"], line["case"]), ("GET", '/a"\\b', None))
        self.assertEqual((line["length"], line["complete"]), (0, True))
        self.assertFalse(from_log(b"400\t-\tGET / HTTP/1.1\t-\t-")["complete"])


if __name__ == "__main__":
    unittest.main()
