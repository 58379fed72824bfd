"""A headless Chromium, told what to do by its DevTools protocol over a websocket."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 30.0


def found() -> str | None:
    """Path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a browser, and what it complained about."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.complaints: list[str] = []
        """Errors of the console, exceptions, and what was loaded from elsewhere."""
        self._socket = self._loop.run_until_complete(self._connect(port))
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.say(f"{domain}.enable")

    async def _connect(self, port: int) -> WebSocketClientConnection:
        listed = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json/list")
        target = next(one for one in json.loads(listed.body) if one["type"] == "page")
        return await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=100 * 2**20)

    def say(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and give its result; what happens meanwhile is noted."""
        self._number += 1
        message = json.dumps({"id": self._number, "method": method, "params": params})
        return self._loop.run_until_complete(self._said(message, self._number))

    async def _said(self, message: str, number: int) -> dict[str, Any]:
        await self._socket.write_message(message)
        while True:
            text = await asyncio.wait_for(self._socket.read_message(), _SECONDS)
            assert text is not None, "the browser has gone"
            told = json.loads(text)
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.complaints.append(str(params["args"]))
            case "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("data:", "file:")):
                    self.complaints.append(f"asked for {url}")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.say("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path, *, width: int, height: int, dark: bool = False) -> None:
        """Show a file at a size of the window, as a phone where it is narrow."""
        phone = width < 600
        self.say(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.say("Emulation.setEmulatedMedia", features=[scheme])
        self.say("Page.navigate", url=path.absolute().as_uri())
        until = time.monotonic() + _SECONDS
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < until, f"{path} does not load"
            time.sleep(0.05)

    def key(self, name: str) -> None:
        """Press and release a key."""
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.say(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name,
                windowsVirtualKeyCode=code,
            )  # fmt: skip

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Press the mouse at one place and release it at another."""
        for kind, (x, y) in (
            ("mousePressed", start),
            ("mouseMoved", stop),
            ("mouseReleased", stop),
        ):
            self.say(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1,
                clickCount=1,
            )  # fmt: skip

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as a PNG."""
        shot = self.say("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()
        self._loop.close()


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Start a Chromium with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory(prefix="geothresh-browser-") as profile:
        command = [
            executable, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}",
            "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(profile) / "DevToolsActivePort"
            until = time.monotonic() + _SECONDS
            while not (told.is_file() and told.read_text().strip()):
                assert time.monotonic() < until and process.poll() is None, "no browser starts"
                time.sleep(0.1)
            page = Browser(int(told.read_text().splitlines()[0]))
            try:
                yield page
            finally:
                page.close()
        finally:
            process.terminate()
            process.wait()
