"""A headless Chromium that is driven by the DevTools protocol over a WebSocket.

Main types: `Chromium`, the process with a profile of its own; `Page`, one tab.
"""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from websockets.asyncio.client import connect

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--ignore-certificate-errors", "--remote-debugging-port=0",
    "--no-proxy-server",
]
PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]
STARTS, STEP = 30, 60


class Chromium:
    """A browser process; `async with` ends it, its children and its profile."""

    async def __aenter__(self):
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise RuntimeError("chromium is not installed (Debian: apt-get install chromium)")
        self.profile = tempfile.mkdtemp(prefix="pointsman-chromium-")
        self.log = open(pathlib.Path(self.profile) / "log", "wb")
        # A group of its own, so that the children end with it.
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )
        try:
            self.socket = await connect(await self._address(), max_size=None, ping_interval=None, proxy=None)
        except BaseException:
            self._end()
            raise
        self.numbers, self.waiting, self.listeners = itertools.count(1), {}, []
        self.reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_why):
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.send("Browser.close"), 5)
        self.reader.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.socket.close(), 5)
        self._end()

    async def send(self, method, session=None, **parameters):
        """Sends a command and waits for its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self.waiting[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps(message))
        return await asyncio.wait_for(self.waiting[number], STEP)

    async def page(self):
        """A new tab."""
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network"):
            await self.send(f"{domain}.enable", page.session)
        return page

    async def _address(self):
        file = pathlib.Path(self.profile) / "DevToolsActivePort"
        for _ in range(STARTS * 20):
            with contextlib.suppress(FileNotFoundError, ValueError):
                port, path = file.read_text().split()
                return f"ws://127.0.0.1:{port}{path}"
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.05)
        said = (pathlib.Path(self.profile) / "log").read_text(errors="replace")
        raise RuntimeError(f"chromium did not start: {said[-500:]}")

    async def _read(self):
        async for text in self.socket:
            message = json.loads(text)
            if (waiting := self.waiting.pop(message.get("id"), None)) and not waiting.done():
                if "error" in message:
                    waiting.set_exception(RuntimeError(message["error"]["message"]))
                else:
                    waiting.set_result(message["result"])
            elif "method" in message:
                for listener in self.listeners:
                    listener(message)

    def _end(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """A tab; `methods` are those of all its requests since the last `goto`."""

    def __init__(self, browser, session):
        self.browser, self.session = browser, session
        self.methods, self.loaded = [], asyncio.Event()
        browser.listeners.append(self._hears)

    def _hears(self, message):
        if message.get("sessionId") != self.session:
            return
        if message["method"] == "Page.loadEventFired":
            self.loaded.set()
        elif message["method"] == "Network.requestWillBeSent":
            self.methods.append(message["params"]["request"]["method"])

    async def goto(self, url):
        self.loaded.clear()
        self.methods.clear()
        result = await self.browser.send("Page.navigate", self.session, url=url)
        if "errorText" in result:
            raise RuntimeError(f"{url}: {result['errorText']}")
        await asyncio.wait_for(self.loaded.wait(), STEP)

    async def evaluate(self, expression):
        """The value of a JavaScript expression, once its promise is kept."""
        result = await self.browser.send(
            "Runtime.evaluate", self.session, expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")
