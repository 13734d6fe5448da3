"""Opens WebSockets from a page in headless Chromium, over the HTTP/2 connection that the page came on (RFC 8441).

    websocket.py --site https://hello.production.localhost:8443

The site must lead to websocket_server.py (names below .localhost are this machine for the browser, certificates are not
checked). Prints `ok CASE` or `FAILED CASE: why` for each case and ends with 0, or 1 when one failed. Needs Debian's
package chromium.
"""

import argparse
import asyncio
import json
import sys

from devtools import Chromium

OPEN = """(path, messages, protocols) => new Promise((done) => {
    const said = [], socket = new WebSocket(location.origin.replace("http", "ws") + path, protocols);
    socket.onopen = () => messages.forEach((message) => socket.send(message));
    socket.onmessage = (event) => {
        said.push(event.data);
        if (said.length === messages.length) socket.close(1000, "enough");
    };
    socket.onclose = (event) => done({said, code: event.code, protocol: socket.protocol});
})"""
LONG = "x" * 200_000


async def cases(page, versions):
    async def opened(path, messages, protocols=()):
        versions.clear()
        call = ", ".join(json.dumps(part) for part in (path, messages, list(protocols)))
        return await page.evaluate(f"({OPEN})({call})")

    ended = await opened("/echo", ["one", LONG, "two"])
    yield "echo", ended["said"] == ["one", LONG, "two"] and ended["code"] == 1000, ended
    # To a WebSocket over HTTP/1.1 the answer is 101.
    yield "over_http_2", versions == [200], versions
    ended = await opened("/chat", ["hello"], ["chat.v1", "chat.v2"])
    yield "subprotocol", ended["protocol"] == "chat.v2", ended
    ended = await opened("/close", ["4321 because"])
    yield "close_code", ended["code"] == 4321, ended
    for path in ("/refused", "/not-upgraded", "/abort"):
        ended = await opened(path, ["never"])
        yield path[1:], ended["said"] == [] and ended["code"] == 1006, ended
    ended = await opened("/echo", ["again"])
    yield "the_connection_survives", ended["said"] == ["again"] and versions == [200], ended


async def run(site):
    failed, versions = 0, []

    def hears(message):
        if message["method"] == "Network.webSocketHandshakeResponseReceived":
            versions.append(message["params"]["response"]["status"])

    async with Chromium() as browser:
        page = await browser.page()
        browser.listeners.append(hears)
        # The page brings the connection about on which streams may change their protocol.
        await page.goto(f"{site}/seen/nobody")
        async for name, well, why in cases(page, versions):
            failed += not well
            print(f"ok {name}" if well else f"FAILED {name}: {str(why)[:300]}", flush=True)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description="Opens WebSockets in a browser.")
    parser.add_argument("--site", required=True, metavar="URL", help="where the server is, without a path")
    return asyncio.run(run(parser.parse_args().site))


if __name__ == "__main__":
    sys.exit(main())
