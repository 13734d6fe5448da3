"""The interop cases that ask how calls end and what becomes of connections: cancelling, deadlines, concurrency, GOAWAY,
a server that dies.

Official cases follow the gRPC project's interop-test-descriptions.md. Beyond them, the server's recorder is asked
whether it heard of the end: a proxy that swallows a RST_STREAM leaves it working for nobody.
"""

import json
import threading
import time
import uuid
from concurrent import futures

import grpc

from grpc_cases import Conversation, body, equal, fails, is_zeros, outputs
from grpc_messages import payload

STREAMS, UNARY = 50, 50
# How long the server may take to hear that a call has ended.
TOLD = 5


class Watched:
    """A call that the server's recorder knows by name."""

    def __init__(self, more):
        self.name = uuid.uuid4().hex
        self.metadata = [("x-test-call", self.name)]
        self.recorder = more().other("/pointsman.testing.Recorder/Seen")

    def seen(self):
        return json.loads(self.recorder(self.name.encode()))

    def becomes(self, state):
        until = time.monotonic() + TOLD
        while (seen := self.seen())["state"] != state:
            assert time.monotonic() < until, f"the server's side is {seen['state']} after {TOLD} s, not {state}"
            time.sleep(0.02)
        return seen


def cancel_after_begin(stub, more):
    watched, never = Watched(more), threading.Event()
    call = stub.StreamingInputCall.future(iter(lambda: never.wait(), True), metadata=watched.metadata)
    watched.becomes("running")
    call.cancel()
    equal(call.code(), grpc.StatusCode.CANCELLED, "status")
    equal(watched.becomes("cancelled")["messages"], 0, "messages")
    never.set()


def cancel_after_first_response(stub, more):
    watched = Watched(more)
    conversation = Conversation(stub, metadata=watched.metadata)
    conversation.say(outputs(31415, sent=27182))
    is_zeros(next(conversation.call), 31415, "answer")
    conversation.call.cancel()
    fails(lambda: conversation.call, grpc.StatusCode.CANCELLED, "call")
    watched.becomes("cancelled")
    conversation.close()


def timeout_on_sleeping_server(stub, more):
    """The official 1 ms, which may end before anything is sent, and 500 ms, of which the server must be told."""
    for timeout in (0.001, 0.5):
        watched = Watched(more)
        conversation = Conversation(stub, timeout=timeout, metadata=watched.metadata)
        conversation.say({"payload": payload(27182)})
        fails(lambda: conversation.call, grpc.StatusCode.DEADLINE_EXCEEDED, f"{timeout} s")
        conversation.close()
    seen = watched.becomes("cancelled")
    left = seen["time_remaining"]
    assert left is not None and 0 < left < 0.6, f"the server was told of {left} s instead of 0.5 s"


def concurrent_100(stub, _more):
    """50 streams that are open at once, and 50 unary calls while they are, on one channel."""
    together = threading.Barrier(STREAMS + 1)

    def stream():
        conversation = Conversation(stub)
        for step, size in enumerate((31415, 9, 58979)):
            conversation.say(outputs(size, sent=1828))
            is_zeros(next(conversation.call), size, "stream")
            if step == 0:
                together.wait(20)  # all are open
                together.wait(20)  # the unary calls are done
        conversation.ends()

    with futures.ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream) for _ in range(STREAMS)]
        try:
            together.wait(20)
            started = time.monotonic()
            request = {"response_size": 9000, "payload": payload(5000)}
            calls = [stub.UnaryCall.future(request, metadata=[("x-test-delay-ms", "300")]) for _ in range(UNARY)]
            for call in calls:
                is_zeros(call.result(), 9000, "unary")
            took = time.monotonic() - started
            together.wait(20)
        except BaseException:
            together.abort()
            raise
        for done in streams:
            done.result(20)
    assert took < 8, f"{UNARY} calls of 0.3 s took {took:.1f} s: they were not at the same time"


def goaway(stub, _more):
    """Connections that the server ends after a second: streams on them finish, new calls succeed."""
    streams = [stub.StreamingOutputCall(outputs(*[1000] * 12, interval_us=300_000)) for _ in range(5)]
    peers, until, unary = set(), time.monotonic() + 3.2, 0
    while time.monotonic() < until:
        answer, call = stub.UnaryCall.with_call({"response_size": 100})
        is_zeros(answer, 100, "unary")
        peers.add(dict(call.trailing_metadata())["x-test-peer"])
        unary += 1
        time.sleep(0.01)
    for stream in streams:
        equal([len(body(answer)) for answer in stream], [1000] * 12, "stream")
        equal(stream.code(), grpc.StatusCode.OK, "stream's status")
        peers.add(dict(stream.trailing_metadata())["x-test-peer"])
    assert len(peers) >= 3, f"{unary} calls came by {len(peers)} connections: was there a GOAWAY?"


def server_gone(stub, _more):
    """The server is killed in the middle of a stream: UNAVAILABLE in gRPC's own words, then and for the next call."""
    bystander = stub.StreamingOutputCall(outputs(*[1000] * 100, interval_us=100_000))
    is_zeros(next(bystander), 1000, "bystander")
    waiting = stub.UnaryCall.future({}, metadata=[("x-test-delay-ms", "15000")])
    conversation = Conversation(stub, metadata=[("x-test-die", "1")])
    conversation.say(outputs(31415))
    started = time.monotonic()
    unavailable = grpc.StatusCode.UNAVAILABLE
    for what, call in [
        ("the call that killed it", lambda: conversation.call),
        ("a stream", lambda: bystander),
        ("a call that waited", waiting.result),
        ("a new call", lambda: stub.EmptyCall({})),
    ]:
        failed = fails(call, unavailable, what)
        for bare in ("HTTP", "http2 header", "content-type"):
            assert bare not in failed.details(), f"{what}: a bare HTTP error, {failed.details()!r}"
    conversation.close()
    took = time.monotonic() - started
    assert took < 10, f"it took {took:.1f} s to tell"


CASES = {
    case.__name__: case
    for case in [
        cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server, concurrent_100, goaway,
        server_gone,
    ]
}
NEEDS = {
    "goaway": "needs grpc_server.py --max-connection-age-ms 1000",
    "server_gone": "needs grpc_server.py --may-die, and ends it",
}
