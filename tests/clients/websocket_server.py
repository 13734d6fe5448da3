"""A WebSocket server for interop tests (RFC 6455, with permessage-deflate), which also says what it saw.

    websocket_server.py --port 8081

Prints `listening on 127.0.0.1:PORT` when it serves; port 0 takes a free one. Ends on SIGTERM. Its paths:
    /echo            every message comes back
    /fragments       answers a message with the sizes of its fragments, as text in as many fragments
    /push            sends five messages by itself, pings, says what came of it, and closes
    /close           a message "CODE REASON" makes it close so
    /chat            speaks the subprotocols chat.v2 and chat.v1, and prefers chat.v2
    /early           waits before its 101, whose X-Early-Bytes tells how much came after the head before that
    /abort           ends the TCP connection at the first message, without closing properly
    /refused         403 to the upgrade
    /not-upgraded    200 to the upgrade
    /seen/ID         (plain HTTP) what became of the connection whose upgrade had X-Test-Id: ID, as JSON
"""

import argparse
import asyncio
import json
import signal

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

PATHS = ["/echo", "/fragments", "/push", "/close", "/chat", "/early", "/abort", "/refused", "/not-upgraded"]
MESSAGE_BYTES = 4 * 1024 * 1024
# What a proxy would pass on too early is here by then.
BEFORE_THE_101 = 0.3


class Witness(ServerConnection):
    """A connection that remembers what came while it had not answered the upgrade."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.came = bytearray()

    def data_received(self, data):
        if self.response is None:
            self.came += data
        super().data_received(data)

    def early(self):
        """What came after the request's head."""
        return bytes(self.came.partition(b"\r\n\r\n")[2])


class Server:
    def __init__(self):
        self.seen = {}

    def record(self, connection, **what):
        if name := connection.request.headers.get("X-Test-Id"):
            self.seen.setdefault(name, {"state": "open"}).update(what)

    async def request(self, connection, request):
        """Answers what is not to become a WebSocket."""
        path = request.path.partition("?")[0]
        if path.startswith("/seen/"):
            seen = self.seen.get(path.removeprefix("/seen/"), {"state": "unknown"})
            return connection.respond(200, json.dumps(seen))
        if path not in PATHS or "Upgrade" not in request.headers:
            return connection.respond(404, "nothing here\n")
        if path == "/early":
            await asyncio.sleep(BEFORE_THE_101)
        self.record(connection, early=len(connection.early()))
        if path == "/refused":
            return connection.respond(403, "no upgrade for you\n")
        if path == "/not-upgraded":
            return connection.respond(200, "no upgrade here\n")
        return None

    def response(self, connection, request, response):
        if request.path.startswith("/early"):
            response.headers["X-Early-Bytes"] = str(len(connection.early()))

    async def connected(self, connection):
        path = connection.request.path.partition("?")[0]
        try:
            await getattr(self, path.strip("/"))(connection)
        except ConnectionClosed:
            pass
        finally:
            await connection.wait_closed()
            self.record(connection, state="closed", code=connection.close_code, reason=connection.close_reason)

    async def echo(self, connection):
        async for message in connection:
            await connection.send(message)

    early = chat = echo

    async def fragments(self, connection):
        while True:
            sizes = [str(len(part)) async for part in connection.recv_streaming()]
            await connection.send([size + " " for size in sizes])

    async def push(self, connection):
        for number in range(5):
            await asyncio.sleep(0.05)
            await connection.send(f"push {number}")
        pong = await connection.ping(b"from the server")
        await asyncio.wait_for(pong, 5)
        await connection.send("pong came")
        await connection.close(1000, "all said")

    async def close(self, connection):
        code, _, reason = (await connection.recv()).partition(" ")
        await connection.close(int(code), reason)

    async def abort(self, connection):
        await connection.recv()
        connection.transport.abort()


def subprotocol(connection, offered):
    """Only /chat has any."""
    if not connection.request.path.startswith("/chat"):
        return None
    return next((name for name in ("chat.v2", "chat.v1") if name in offered), None)


async def run(port):
    server, end = Server(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    listening = serve(
        server.connected,
        "127.0.0.1",
        port,
        create_connection=Witness,
        process_request=server.request,
        process_response=server.response,
        select_subprotocol=subprotocol,
        compression="deflate",
        max_size=MESSAGE_BYTES,
        ping_interval=None,
        close_timeout=2,
        backlog=512,
    )
    async with listening as listener:
        print(f"listening on 127.0.0.1:{listener.sockets[0].getsockname()[1]}", flush=True)
        await end.wait()


def main():
    parser = argparse.ArgumentParser(description="A WebSocket server for interop tests.")
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(run(parser.parse_args().port))


if __name__ == "__main__":
    main()
