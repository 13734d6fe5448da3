"""The interop cases that ask whether a call's content arrives: messages, metadata, statuses, compression.

They follow the gRPC project's interop-test-descriptions.md; what goes beyond it is said at the case. A case gets a stub
of its own channel and a function that makes further ones, and raises when something is not as it should be.
"""

import os

import grpc

from grpc_messages import SIMPLE_RESPONSE, decode, payload

SENT, ASKED = 271828, 314159
INPUTS, OUTPUTS = [27182, 8, 1828, 45904], [31415, 9, 2653, 58979]
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
EIGHT_MIB = 8 * 1024 * 1024


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: {_short(actual)} instead of {_short(expected)}")


def _short(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:150]}... ({len(value)} long)"


def body(answer):
    return answer.get("payload", {}).get("body", b"")


def is_zeros(answer, size, what):
    equal(len(body(answer)), size, what)
    equal(body(answer), bytes(size), what)


def fails(call, code, what, details=None):
    """The call must end with this status, and this message when one is given."""
    try:
        answer = call()
        if not isinstance(answer, dict | bytes):
            list(answer)
    except grpc.RpcError as failed:
        text = failed.details()
        equal((failed.code().name, text if details is not None else None), (code.name, details), f"{what} ({text!r})")
        return failed
    raise AssertionError(f"{what}: succeeded")


def large(size=SENT, asked=ASKED, **more):
    return {"response_size": asked, "payload": payload(size), **more}


def outputs(*sizes, interval_us=0, sent=0):
    parameters = [{"size": size, "interval_us": interval_us} for size in sizes]
    return {"response_parameters": parameters, "payload": payload(sent)}


def empty_unary(stub, _more):
    equal(stub.EmptyCall({}), {}, "answer")


def large_unary(stub, _more):
    is_zeros(stub.UnaryCall(large()), ASKED, "answer")


def client_compressed_unary(stub, _more):
    probe = large(expect_compressed={"value": True})
    plain = {"compression": grpc.Compression.NoCompression}
    fails(lambda: stub.UnaryCall(probe, **plain), grpc.StatusCode.INVALID_ARGUMENT, "uncompressed probe")
    is_zeros(stub.UnaryCall(probe, compression=grpc.Compression.Gzip), ASKED, "compressed")
    is_zeros(stub.UnaryCall(large(expect_compressed={"value": False}), **plain), ASKED, "uncompressed")


def server_compressed_unary(stub, more):
    # Once as every client does, and once without decompression: only so one sees what came.
    raw = more(("grpc.per_message_decompression", 0), raw=True)
    for wanted in (True, False):
        request = large(response_compressed={"value": wanted})
        is_zeros(stub.UnaryCall(request), ASKED, f"compressed: {wanted}")
        data = raw.UnaryCall(request)
        equal(data.startswith(b"\x1f\x8b"), wanted, "gzip on the wire")
        equal(len(data) < 2000, wanted, "small on the wire")
        if not wanted:
            is_zeros(decode(SIMPLE_RESPONSE, data), ASKED, "uncompressed")


def client_streaming(stub, _more):
    answer = stub.StreamingInputCall(iter([{"payload": payload(size)} for size in INPUTS]))
    equal(answer, {"aggregated_payload_size": 74922}, "answer")


def server_streaming(stub, _more):
    answers = list(stub.StreamingOutputCall(outputs(*OUTPUTS)))
    equal(len(answers), len(OUTPUTS), "answers")
    for answer, size in zip(answers, OUTPUTS):
        is_zeros(answer, size, "answer")


class Conversation:
    """A full-duplex call that is written to by hand."""

    def __init__(self, stub, **more):
        import queue

        self.queue = queue.SimpleQueue()
        self.call = stub.FullDuplexCall(iter(self.queue.get, None), **more)

    def say(self, request):
        self.queue.put(request)

    def close(self):
        self.queue.put(None)

    def ends(self):
        """Half-closes; nothing more may come, and the call ends well."""
        self.close()
        equal(list(self.call), [], "after the last answer")
        equal(self.call.code(), grpc.StatusCode.OK, "status")


def ping_pong(stub, _more):
    conversation = Conversation(stub)
    for sent, asked in zip(INPUTS, OUTPUTS):
        conversation.say(outputs(asked, sent=sent))
        is_zeros(next(conversation.call), asked, "answer")
    conversation.ends()


def empty_stream(stub, _more):
    Conversation(stub).ends()


def custom_metadata(stub, _more):
    text, binary = ("x-grpc-test-echo-initial", "test_initial_metadata_value"), (
        "x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
    answer, call = stub.UnaryCall.with_call(large(), metadata=[text, binary])
    is_zeros(answer, ASKED, "unary answer")
    conversation = Conversation(stub, metadata=[text, binary])
    conversation.say(outputs(ASKED, sent=SENT))
    is_zeros(next(conversation.call), ASKED, "duplex answer")
    conversation.ends()
    for what, call in [("unary", call), ("duplex", conversation.call)]:
        equal(dict(call.initial_metadata()).get(text[0]), text[1], f"{what}, initial metadata")
        equal(dict(call.trailing_metadata()).get(binary[0]), binary[1], f"{what}, trailing metadata")


def _status(stub, message):
    request = {"response_status": {"code": 2, "message": message}}
    fails(lambda: stub.UnaryCall(request), grpc.StatusCode.UNKNOWN, "unary", message)
    conversation = Conversation(stub)
    conversation.say(request)
    conversation.close()
    fails(lambda: conversation.call, grpc.StatusCode.UNKNOWN, "duplex", message)


def status_code_and_message(stub, _more):
    _status(stub, "test status message")


def special_status_message(stub, _more):
    _status(stub, SPECIAL)


def unimplemented_method(stub, _more):
    call = stub.other("/grpc.testing.TestService/UnimplementedCall")
    fails(lambda: call(b""), grpc.StatusCode.UNIMPLEMENTED, "call")


def unimplemented_service(stub, _more):
    call = stub.other("/grpc.testing.UnimplementedService/UnimplementedCall")
    fails(lambda: call(b""), grpc.StatusCode.UNIMPLEMENTED, "call")


def unary_8mib(stub, _more):
    """Not official: 8 MiB each way, of bytes that no compression makes smaller."""
    sent = os.urandom(EIGHT_MIB)
    answer = stub.UnaryCall({"payload": {"body": sent}}, metadata=[("x-test-echo", "1")])
    equal(len(body(answer)), EIGHT_MIB, "answer")
    assert body(answer) == sent, "the answer's bytes differ"


CASES = {
    case.__name__: case
    for case in [
        empty_unary, large_unary, client_compressed_unary, server_compressed_unary, client_streaming, server_streaming,
        ping_pong, empty_stream, custom_metadata, status_code_and_message, special_status_message,
        unimplemented_method, unimplemented_service, unary_8mib,
    ]
}
