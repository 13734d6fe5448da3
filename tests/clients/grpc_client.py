"""A gRPC client (the C-core by grpcio) that runs interop cases against grpc_server.py, directly or through a proxy.

    grpc_client.py --target 127.0.0.1:8080 --authority hello.production.localhost --case all
    grpc_client.py --target 127.0.0.1:8443 --authority hello.production.localhost --ca ca.pem --case large_unary
    grpc_client.py --list

Prints `ok CASE` or `FAILED CASE: why` for each case and ends with 0, or 1 when one failed. `all` are those that need
nothing special of the server; `--list` says what the others need. Several --case are run in order.
"""

import argparse
import sys
import time
import traceback

import grpc

import grpc_cases
import grpc_cases_transport
import grpc_messages as messages

# Larger than any message of a case, so that a limit that is hit is the proxy's.
MESSAGE_BYTES = 32 * 1024 * 1024
# For each call that has no shorter one: a call that hangs fails its case.
PATIENCE = 20

CASES = {**grpc_cases.CASES, **grpc_cases_transport.CASES}
NEEDS = grpc_cases_transport.NEEDS


class Target:
    """Where the cases go; makes channels and calls."""

    def __init__(self, arguments):
        self.address, self.authority = arguments.target, arguments.authority
        self.roots = None
        if arguments.ca:
            with open(arguments.ca, "rb") as file:
                self.roots = file.read()

    def channel(self, *options):
        """A new connection, whatever other channels there are."""
        options = [
            ("grpc.default_authority", self.authority),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
            # Cases tell what each call gets, not what a second try of the library makes of it.
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            *options,
        ]
        if self.roots is None:
            return grpc.insecure_channel(self.address, options)
        options.append(("grpc.ssl_target_name_override", self.authority))
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(self.roots), options)


class Stub:
    """The methods of grpc.testing.TestService on a channel; with `raw`, answers are bytes as they came."""

    def __init__(self, channel, raw=False):
        self.channel = channel
        for name, (request, response, client_streams, server_streams) in messages.TEST_SERVICE.items():
            kind = ("stream" if client_streams else "unary") + "_" + ("stream" if server_streams else "unary")
            method = self._method(kind, f"/grpc.testing.TestService/{name}", request, None if raw else response)
            setattr(self, name, method)

    def _method(self, kind, path, request, response):
        write = lambda message: messages.encode(request, message)
        read = (lambda data: messages.decode(response, data)) if response is not None else None
        call = getattr(self.channel, kind)(path, request_serializer=write, response_deserializer=read)
        return _Patient(call)

    def other(self, path):
        """A unary method of any service, with bytes on both sides."""
        return _Patient(self.channel.unary_unary(path))


class _Patient:
    """A method whose calls all have a deadline."""

    def __init__(self, call):
        self.call = call

    def __call__(self, request, timeout=PATIENCE, **more):
        return self.call(request, timeout=timeout, **more)

    def with_call(self, request, timeout=PATIENCE, **more):
        return self.call.with_call(request, timeout=timeout, **more)

    def future(self, request, timeout=PATIENCE, **more):
        return self.call.future(request, timeout=timeout, **more)


def run(case, target):
    """Runs one case and says how it went."""
    started = time.monotonic()
    try:
        with target.channel() as channel:
            CASES[case](Stub(channel), lambda *options, raw=False: Stub(target.channel(*options), raw))
    except AssertionError as failed:
        why = str(failed) or traceback.format_exc().strip().splitlines()[-2].strip()
    except grpc.RpcError as failed:
        why = f"{failed.code().name}: {failed.details()!r}"
    except Exception as failed:  # whatever it is, the other cases go on
        why = f"{type(failed).__name__}: {failed}"
    else:
        print(f"ok {case}", flush=True)
        return True
    print(f"FAILED {case}: {' '.join(why.split())} (after {time.monotonic() - started:.1f} s)", flush=True)
    return False


def main():
    parser = argparse.ArgumentParser(description="Runs gRPC interop cases.")
    parser.add_argument("--target", metavar="HOST:PORT")
    parser.add_argument("--authority", metavar="NAME")
    parser.add_argument("--ca", metavar="FILE", help="speak TLS and trust these; without it, clear text")
    parser.add_argument("--case", action="append", choices=["all", *CASES], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the cases and what they need")
    arguments = parser.parse_args()
    if arguments.list:
        for case in CASES:
            print(f"{case}\t{NEEDS[case]}" if case in NEEDS else case)
        return 0
    if not (arguments.target and arguments.authority and arguments.case):
        parser.error("--target, --authority and --case are needed, or --list")
    target = Target(arguments)
    ordinary = [case for case in CASES if case not in NEEDS]
    wanted = [one for case in arguments.case for one in (ordinary if case == "all" else [case])]
    return 0 if all([run(case, target) for case in wanted]) else 1


if __name__ == "__main__":
    sys.exit(main())
