"""A WebSocket client that runs interop cases against websocket_server.py, directly or through a proxy.

    websocket_client.py --url ws://127.0.0.1:8080 --host-header hello.production.localhost
    websocket_client.py --url wss://127.0.0.1:8443 --host-header hello.production.localhost --ca ca.pem --case many
    websocket_client.py --url ws://127.0.0.1:8081 --host-header any --direct

Prints `ok CASE` or `FAILED CASE: why` for each case and ends with 0, or 1 when one failed. Without --case all are run.
`--direct` says that there is no proxy in between: early_bytes then expects that the server gets them early.
"""

import argparse
import asyncio
import inspect
import sys
import time

import websocket_cases


def main():
    cases = {name: case for name, case in inspect.getmembers(websocket_cases.Cases, inspect.iscoroutinefunction)}
    cases = {name: cases[name] for name in websocket_cases.Cases.__dict__ if name in cases and name[0] != "_"}
    parser = argparse.ArgumentParser(description="Runs WebSocket interop cases.")
    parser.add_argument("--url", metavar="ws://HOST:PORT", help="where to connect; a path is put before the cases' own")
    parser.add_argument("--host-header", metavar="NAME", help="the Host, and the name in TLS")
    parser.add_argument("--ca", metavar="FILE", help="with wss: trust these")
    parser.add_argument("--case", action="append", choices=["all", *cases], metavar="NAME")
    parser.add_argument("--idle", type=float, default=2, metavar="SECONDS", help="how long the case idle is silent")
    parser.add_argument("--direct", action="store_true", help="no proxy is in between")
    parser.add_argument("--list", action="store_true", help="print the cases")
    arguments = parser.parse_args()
    if arguments.list:
        print(*cases, sep="\n")
        return 0
    if not (arguments.url and arguments.host_header):
        parser.error("--url and --host-header are needed, or --list")
    wanted = [one for case in arguments.case or ["all"] for one in (cases if case == "all" else [case])]
    return asyncio.run(_run(arguments, wanted))


async def _run(arguments, wanted):
    target = websocket_cases.Target(arguments.url, arguments.host_header, arguments.ca)
    case_list = websocket_cases.Cases(target, arguments.idle, arguments.direct)
    failed = 0
    for name in wanted:
        started = time.monotonic()
        try:
            await asyncio.wait_for(getattr(case_list, name)(), 30 + arguments.idle)
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever it is, the other cases go on
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            took = time.monotonic() - started
            print(f"FAILED {name}: {kind}{' '.join(str(error).split())} (after {took:.1f} s)", flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
