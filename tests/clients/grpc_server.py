"""A gRPC server (the C-core by grpcio) for interop tests: grpc.testing.TestService, and a recorder of what became of
calls.

    grpc_server.py --port 50051
    grpc_server.py --port 50051 --max-connection-age-ms 1000     for the case goaway
    grpc_server.py --port 50051 --may-die                        for the case server_gone

Prints `listening on 127.0.0.1:PORT` when it serves; port 0 takes a free one. Ends on SIGTERM.

Beyond the official interop server, metadata of a call asks for more:
    x-test-call: ID           remember what becomes of it; /pointsman.testing.Recorder/Seen tells
    x-test-echo: 1            UnaryCall answers with the request's payload
    x-test-delay-ms: N        answers after a while
    x-test-die: 1             the process kills itself (only with --may-die)
Every call has trailing metadata `x-test-peer`: the connection that it came by.
"""

import argparse
import gzip
import json
import os
import signal
import threading
import time
from concurrent import futures

import grpc

import grpc_messages as messages

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
GZIP = b"\x1f\x8b"
ENDS = {signal.SIGTERM, signal.SIGINT}
# Larger than any message of a case, so that a limit that is hit is the proxy's.
MESSAGE_BYTES = 32 * 1024 * 1024
PENDING = 20_000


class Recorder:
    """What became of calls that named themselves."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = {}

    def begin(self, call, context):
        record = {"state": "running", "time_remaining": context.time_remaining(), "messages": 0}
        with self.lock:
            self.calls[call] = record
        return record

    def seen(self, request, _context):
        """One call's record as JSON; the request is its name."""
        with self.lock:
            return json.dumps(self.calls.get(request.decode(), {"state": "unknown"})).encode()


class Call:
    """What one call's metadata asks for; tells the recorder how it ends."""

    def __init__(self, recorder, may_die, context):
        self.context, self.may_die = context, may_die
        self.asked = dict(context.invocation_metadata())
        self.record = {"state": "running", "messages": 0}
        if call := self.asked.get("x-test-call"):
            self.record = recorder.begin(call, context)
        context.add_callback(self._ended)
        trailing = [("x-test-peer", context.peer())]
        if TRAILING in self.asked:
            trailing.append((TRAILING, self.asked[TRAILING]))
        context.set_trailing_metadata(trailing)
        if INITIAL in self.asked:
            context.send_initial_metadata([(INITIAL, self.asked[INITIAL])])
        self.sleep(int(self.asked.get("x-test-delay-ms", 0)) / 1000)

    def sleep(self, seconds):
        """Waits, unless the call ends earlier."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self.context.is_active():
            time.sleep(min(left, 0.05))

    def message(self):
        self.record["messages"] += 1
        if self.may_die and "x-test-die" in self.asked:
            # Let answers before this one reach the socket: what is tested is an end in the middle.
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)

    def done(self):
        # Requests end alike at a half-close and at a cancellation; which it was the library says a moment later.
        if "x-test-call" in self.asked:
            self.sleep(0.1)
        if self.context.is_active():
            self.record["state"] = "finished"

    def status(self, request):
        """Ends the call with the status that the request asks for, if it does."""
        if status := request.get("response_status"):
            self.done()
            code = next(code for code in grpc.StatusCode if code.value[0] == status.get("code", 0))
            self.context.abort(code, status.get("message", ""))

    def _ended(self):
        if self.record["state"] == "running":
            self.record["state"] = "cancelled"


class TestService:
    """The methods of grpc.testing.TestService; a request is (message, whether it was compressed)."""

    def __init__(self, recorder, may_die):
        self.recorder, self.may_die = recorder, may_die

    def _call(self, context):
        return Call(self.recorder, self.may_die, context)

    def EmptyCall(self, _request, context):
        self._call(context).done()
        return {}

    def UnaryCall(self, request, context):
        request, compressed = request
        call = self._call(context)
        call.message()
        _check_compressed(request, compressed, context)
        call.status(request)
        _compress(context, request.get("response_compressed"))
        call.done()
        if "x-test-echo" in call.asked:
            return {"payload": request.get("payload", {})}
        return {"payload": messages.payload(request.get("response_size", 0))}

    def StreamingInputCall(self, requests, context):
        call, size = self._call(context), 0
        for request, compressed in requests:
            call.message()
            _check_compressed(request, compressed, context)
            size += len(request.get("payload", {}).get("body", b""))
        call.done()
        return {"aggregated_payload_size": size}

    def StreamingOutputCall(self, request, context):
        call = self._call(context)
        yield from self._answers(call, request[0])
        call.done()

    def FullDuplexCall(self, requests, context):
        call = self._call(context)
        for request, _compressed in requests:
            call.message()
            yield from self._answers(call, request)
        call.done()

    def _answers(self, call, request):
        call.status(request)
        for parameters in request.get("response_parameters", []):
            call.sleep(parameters.get("interval_us", 0) / 1e6)
            yield {"payload": messages.payload(parameters.get("size", 0))}


def _check_compressed(request, compressed, context):
    expected = request.get("expect_compressed", {}).get("value")
    if expected is not None and expected != compressed:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"compressed: {compressed}, expected: {expected}")


def _compress(context, wanted):
    if wanted is not None:
        on = wanted.get("value", False)
        context.set_compression(grpc.Compression.Gzip if on else grpc.Compression.NoCompression)


def _decoder(schema):
    # The library is told not to decompress, so that we see what came: no message of protobuf begins like gzip.
    def read(data):
        compressed = data.startswith(GZIP)
        return messages.decode(schema, gzip.decompress(data) if compressed else data), compressed

    return read


def _handler(service, name, request, response, client_streams, server_streams):
    kinds = {(False, False): "unary_unary", (True, False): "stream_unary", (False, True): "unary_stream"}
    kind = kinds.get((client_streams, server_streams), "stream_stream")
    make = getattr(grpc, kind + "_rpc_method_handler")
    return make(getattr(service, name), _decoder(request), lambda message: messages.encode(response, message))


def serve(arguments):
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.per_message_decompression", 0),
        ("grpc.so_reuseport", 0),
        # By default it cancels some calls, by chance, once a thousand wait for a thread.
        ("grpc.server.max_pending_requests", PENDING),
        ("grpc.server.max_pending_requests_hard_limit", PENDING),
    ]
    if arguments.max_connection_age_ms:
        options.append(("grpc.max_connection_age_ms", arguments.max_connection_age_ms))
    # Before any thread starts, so that none of them takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    recorder = Recorder()
    service = TestService(recorder, arguments.may_die)
    handlers = {name: _handler(service, name, *kind) for name, kind in messages.TEST_SERVICE.items()}
    recording = {"Seen": grpc.unary_unary_rpc_method_handler(recorder.seen)}
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=256), options=options)
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("grpc.testing.TestService", handlers),
        grpc.method_handlers_generic_handler("pointsman.testing.Recorder", recording),
    ))
    address = f"127.0.0.1:{arguments.port}"
    if arguments.h2 == "tls":
        with open(arguments.key, "rb") as key, open(arguments.cert, "rb") as cert:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    signal.sigwait(ENDS)
    server.stop(0).wait()


def main():
    parser = argparse.ArgumentParser(description="A gRPC server for interop tests.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--h2", choices=["plaintext", "tls"], default="plaintext")
    parser.add_argument("--cert", help="with --h2 tls: the certificate chain")
    parser.add_argument("--key", help="with --h2 tls: its key")
    parser.add_argument("--max-connection-age-ms", type=int, help="GOAWAY on connections of that age")
    parser.add_argument("--may-die", action="store_true", help="kill the process when a call asks for it")
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
