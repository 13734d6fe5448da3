"""Calls with credentials as gRPC users give them: a file with a line of JSON for each case.

    grpc_credentials.py --target 127.0.0.1:8443 --authority hello.production.localhost --ca ca.pem --cases FILE

A case is {"name": ..., "key": ... or null, "token": ... or null, "method": "/package.Service/Method", "code": "OK"}. The
token goes as call credentials of the library over TLS, as metadata in clear; the key as metadata. Prints `ok NAME` for each
whose status is as expected, and what else came as a line of JSON; ends with 1 when one was not.
"""

import argparse
import json
import sys

import grpc

PATIENCE = 20


def channel_of(arguments):
    options = [("grpc.default_authority", arguments.authority), ("grpc.use_local_subchannel_pool", 1),
               ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    if not arguments.ca:
        return grpc.insecure_channel(arguments.target, options)
    with open(arguments.ca, "rb") as file:
        roots = file.read()
    options.append(("grpc.ssl_target_name_override", arguments.authority))
    return grpc.secure_channel(arguments.target, grpc.ssl_channel_credentials(roots), options)


def call(channel, case, over_tls):
    metadata, credentials = [], None
    if case.get("key"):
        metadata.append(("x-api-key", case["key"]))
    if case.get("token") and over_tls:
        credentials = grpc.access_token_call_credentials(case["token"])
    elif case.get("token"):
        metadata.append(("authorization", "Bearer " + case["token"]))
    method = channel.unary_unary(case.get("method", "/grpc.testing.TestService/EmptyCall"))
    try:
        _, done = method.with_call(b"", metadata=metadata, credentials=credentials, timeout=PATIENCE)
        return "OK", "", dict(done.initial_metadata())
    except grpc.RpcError as failed:
        return failed.code().name, failed.details(), dict(failed.initial_metadata() or failed.trailing_metadata() or ())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--authority", required=True)
    parser.add_argument("--ca")
    parser.add_argument("--cases", required=True, help="a file with a case on each line")
    arguments = parser.parse_args()
    failed = 0
    with open(arguments.cases) as file:
        cases = [json.loads(line) for line in file]
    with channel_of(arguments) as channel:
        for case in cases:
            code, details, metadata = call(channel, case, bool(arguments.ca))
            if code == case["code"]:
                print("ok", case["name"])
            else:
                failed += 1
                print("FAILED", case["name"], code, "instead of", case["code"])
            told = {key: value for key, value in metadata.items() if isinstance(value, str)}
            print(json.dumps({"name": case["name"], "code": code, "details": details, "metadata": told}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
