"""Calls a gRPC server from a page in headless Chromium, as gRPC-Web, across origins.

    grpc_web.py --page-port 8900 --api http://hello.production.localhost:8080

Serves the page of this folder on 127.0.0.1. The API must allow the origin http://localhost:PAGE-PORT and no other:
the same page as http://127.0.0.1:PAGE-PORT must be blocked. The API must lead to grpc_server.py (names below .localhost
are this machine for the browser, certificates are not checked). Prints `ok CASE` or `FAILED CASE: why` for each case
and ends with 0, or 1 when one failed. Needs Debian's package chromium.
"""

import argparse
import asyncio
import functools
import http.server
import json
import pathlib
import sys
import threading
import uuid

from devtools import Chromium

FOLDER = pathlib.Path(__file__).parent


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass


def serve_page(port):
    """The page as static files, in a thread that ends with us."""
    handler = functools.partial(Quiet, directory=FOLDER)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Report:
    def __init__(self):
        self.failed = 0

    def __call__(self, name, why=None):
        self.failed += why is not None
        print(f"FAILED {name}: {' '.join(why.split())}" if why else f"ok {name}", flush=True)


async def allowed(page, port, api, report):
    """All cases, from the origin that may."""
    await page.goto(f"http://localhost:{port}/")
    for text in ("false", "true"):
        for result in await page.evaluate(f"grpcWeb.run({json.dumps(api)}, {text})"):
            report(result["name"], result["why"])
    preflights = page.methods.count("OPTIONS")
    posts = page.methods.count("POST")
    report("preflights", None if preflights else f"none before {posts} calls: is the API on another origin?")


async def blocked(page, port, api, report):
    """The same page, from an origin that may not: no answer, and the server never hears of it."""
    name = uuid.uuid4().hex
    await page.goto(f"http://127.0.0.1:{port}/")
    ended = await page.evaluate(f"grpcWeb.attempt({json.dumps(api)}, {json.dumps(name)})")
    # What fetch says of anything that CORS forbids; the page may not learn more.
    report("blocked_origin", None if ended == "TypeError" else f"the call {ended}")
    await page.goto(f"http://localhost:{port}/")
    seen = await page.evaluate(f"grpcWeb.seen({json.dumps(api)}, {json.dumps(name)}, {{}})")
    report("blocked_before_the_server", None if seen == "unknown" else f"the server has seen the call: {seen}")


async def run(arguments):
    report, port = Report(), serve_page(arguments.page_port)
    async with Chromium() as browser:
        page = await browser.page()
        for step in (allowed, blocked):
            try:
                await step(page, port, arguments.api.rstrip("/"), report)
            except Exception as why:  # the other step goes on
                report(step.__name__, f"{type(why).__name__}: {why}")
    return 1 if report.failed else 0


def main():
    parser = argparse.ArgumentParser(description="Runs gRPC-Web cases in a browser.")
    parser.add_argument("--page-port", type=int, required=True, help="where the page is served")
    parser.add_argument("--api", required=True, metavar="URL", help="where gRPC-Web is served, without a path")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
