"""The WebSocket cases, one method each; a case raises when something is not as it should be.

Main types: `Target`, where they go; `Cases`.
"""

import asyncio
import base64
import json
import os
import ssl
import time
import uuid
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

MANY = 200
# How long the server may take to hear of an end.
TOLD = 5


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: {repr(actual)[:200]}, not {repr(expected)[:200]}")


class Target:
    """Where the cases go, under which name."""

    def __init__(self, url, name, ca):
        parts = urlsplit(url)
        self.secure = parts.scheme == "wss"
        self.host, self.port = parts.hostname, parts.port or (443 if self.secure else 80)
        self.prefix, self.name = parts.path.rstrip("/"), name
        self.tls = None
        if self.secure:
            self.tls = ssl.create_default_context(cafile=ca)
            self.tls.set_alpn_protocols(["http/1.1"])

    def open(self, path, test_id=None, **more):
        """A WebSocket to the server's path."""
        headers = {"X-Test-Id": test_id} if test_id else {}
        if self.secure:
            more |= {"ssl": self.tls, "server_hostname": self.name}
        more = {"max_size": 4 * 1024 * 1024, "ping_interval": None, "close_timeout": 3, "proxy": None, **more}
        url = f"{'wss' if self.secure else 'ws'}://{self.name}{self.prefix}{path}"
        return connect(url, host=self.host, port=self.port, additional_headers=headers, open_timeout=10, **more)

    async def raw(self):
        """A bare connection."""
        more = {"ssl": self.tls, "server_hostname": self.name} if self.secure else {}
        return await asyncio.open_connection(self.host, self.port, **more)

    async def seen(self, test_id):
        """What the server knows of a connection."""
        reader, writer = await self.raw()
        head = f"GET {self.prefix}/seen/{test_id} HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), f"/seen answered {head[:60]!r}"
        return json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])

    async def closed(self, test_id):
        """The same, once the connection has ended."""
        until = time.monotonic() + TOLD
        while (seen := await self.seen(test_id))["state"] != "closed":
            assert time.monotonic() < until, f"the server's side is {seen['state']} after {TOLD} s"
            await asyncio.sleep(0.05)
        return seen


class Cases:
    def __init__(self, target, idle, direct):
        self._target, self._idle, self._direct = target, idle, direct

    async def echo_text(self):
        async with self._target.open("/echo", compression=None) as socket:
            for text in ("", "a", "Grüße ☺ 😈", "x" * 125, "x" * 126, "x" * 65535, "x" * 65536):
                await socket.send(text)
                equal(await socket.recv(), text, "echo")

    async def echo_binary_1mib(self):
        data = os.urandom(1024 * 1024)
        async with self._target.open("/echo", compression=None) as socket:
            await socket.send(data)
            equal(await socket.recv() == data, True, "the same bytes")

    async def deflate(self):
        async with self._target.open("/echo", compression="deflate") as socket:
            extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "")
            assert "permessage-deflate" in extensions, f"negotiated {extensions!r}"
            for text in ("x" * 100_000, "y" * 100_000, os.urandom(5000).hex()):
                await socket.send(text)
                equal(await socket.recv(), text, "echo")

    async def ping_pong(self):
        async with self._target.open("/echo") as socket:
            for data in (b"", b"ping", b"p" * 125):
                await asyncio.wait_for(await socket.ping(data or None), 5)

    async def fragmented(self):
        async with self._target.open("/fragments", compression=None) as socket:
            for parts in (["a", "bb", "", "ccc"], [b"x" * 70_000, b"y" * 3, b"z" * 1000]):
                await socket.send(parts)
                sizes = [part async for part in socket.recv_streaming()]
                # A last, empty fragment is how the library ends a message of unknown length.
                equal([size for size in sizes if size][: len(parts)], [f"{len(part)} " for part in parts], "fragments")

    async def close_code(self):
        async with self._target.open("/close") as socket:
            await socket.send("4001 the server's reason ☺")
            try:
                await socket.recv()
                raise AssertionError("it did not close")
            except ConnectionClosed:
                equal((socket.close_code, socket.close_reason), (4001, "the server's reason ☺"), "close from the server")
        name = uuid.uuid4().hex
        async with self._target.open("/echo", name) as socket:
            await socket.close(4002, "the client's reason")
        seen = await self._target.closed(name)
        equal((seen["code"], seen["reason"]), (4002, "the client's reason"), "close from the client")

    async def broken_off(self):
        """An end without a close frame reaches the other side, both ways."""
        async with self._target.open("/abort") as socket:
            await socket.send("now")
            try:
                await asyncio.wait_for(socket.recv(), TOLD)
                raise AssertionError("it did not end")
            except ConnectionClosed:
                equal(socket.close_code, 1006, "end from the server")
        name = uuid.uuid4().hex
        socket = await self._target.open("/echo", name)
        socket.transport.abort()
        equal((await self._target.closed(name))["code"], 1006, "end from the client")

    async def subprotocol(self):
        for offered, chosen in [(["chat.v1"], "chat.v1"), (["x", "chat.v1", "chat.v2"], "chat.v2"), (["x"], None)]:
            async with self._target.open("/chat", subprotocols=offered) as socket:
                equal(socket.subprotocol, chosen, f"of {offered}")

    async def server_push(self):
        async with self._target.open("/push") as socket:
            said = [message async for message in socket]
            equal(said, [f"push {number}" for number in range(5)] + ["pong came"], "messages")
            equal((socket.close_code, socket.close_reason), (1000, "all said"), "close")

    async def refused(self):
        await self._not_upgraded("/refused", 403, b"no upgrade for you\n")

    async def not_upgraded(self):
        """Another way to say no: 200."""
        await self._not_upgraded("/not-upgraded", 200, b"no upgrade here\n")

    async def _not_upgraded(self, path, status, body):
        try:
            async with self._target.open(path):
                raise AssertionError("it was upgraded")
        except InvalidStatus as answered:
            answer = answered.response
            equal((answer.status_code, bytes(answer.body or b"")), (status, body), "answer")

    async def early_bytes(self):
        """A frame right behind the upgrade request: none of it may reach the server before it said 101."""
        for how, pause in (("in one piece", 0), ("a moment later", 0.05)):
            name = uuid.uuid4().hex
            reader, writer = await self._target.raw()
            key = base64.b64encode(os.urandom(16)).decode()
            fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            fields += [f"Host: {self._target.name}", f"Sec-WebSocket-Key: {key}", f"X-Test-Id: {name}"]
            head = "\r\n".join([f"GET {self._target.prefix}/early HTTP/1.1", *fields, "", ""])
            frame = bytes([0x81, 0x85, 0, 0, 0, 0]) + b"early"
            writer.write(head.encode() + (b"" if pause else frame))
            if pause:
                await asyncio.sleep(pause)
                writer.write(frame)
            try:
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                status = answer.split(b" ")[1]
                if status == b"101":
                    # Held back until then, they are delivered now.
                    equal(await asyncio.wait_for(reader.readexactly(7), 5), b"\x81\x05early", f"{how}: echo")
                else:
                    equal(status, b"400", f"{how}: status")
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # closed: as good a refusal
            writer.close()
            early = (await self._target.seen(name)).get("early", 0)
            equal(early, len(frame) if self._direct else 0, f"{how}: bytes that the server got before its 101")

    async def many(self):
        """200 open at a time."""
        all_open, count = asyncio.Event(), 0

        async def one(number):
            nonlocal count
            async with self._target.open("/echo") as socket:
                count += 1
                if count == MANY:
                    all_open.set()
                await asyncio.wait_for(all_open.wait(), 20)
                for step in range(3):
                    await socket.send(f"{number} {step}")
                    equal(await socket.recv(), f"{number} {step}", "echo")

        done = await asyncio.gather(*(one(number) for number in range(MANY)), return_exceptions=True)
        failed = [error for error in done if error is not None]
        assert not failed, f"{len(failed)} of {MANY} failed, first {type(failed[0]).__name__}: {failed[0]}"

    async def idle(self):
        """Silence is no reason to end it."""
        async with self._target.open("/echo") as socket:
            for text in ("before", "after"):
                await socket.send(text)
                equal(await socket.recv(), text, "echo")
                await asyncio.sleep(self._idle if text == "before" else 0)
