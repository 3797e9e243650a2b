"""A headless Chromium for tests: opens a file, runs JavaScript in it, moves the mouse, looks."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")

LIMIT_S = 30.0
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-component-update"),
    *("--disable-background-networking", "--disable-breakpad", "--mute-audio"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe"),
)
# Chromium reads its commands from descriptor 3 and answers on 4.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Tab": 9}
_KEYS |= {"Home": 36, "End": 35, "Enter": 13}


class Browser:
    """One page of a browser.

    `errors` are the texts of exceptions and of errors on the console, `requests` the addresses
    that the page asked for, both since it was opened. Whatever is waited for has a limit.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._commands, self._answers = commands, answers
        self._bytes, self._sent = b"", 0
        self._loaded = False
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        to = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = to["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol; returns its result."""
        self._sent += 1
        number, message = self._sent, {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        _write(self._commands, json.dumps(message).encode() + b"\0", method)
        until = time.monotonic() + LIMIT_S
        while True:
            answer = self._read(until, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, page: Path | str) -> None:
        """Open a file, or an address, and wait until it is loaded."""
        self.errors, self.requests = [], []
        address = page if isinstance(page, str) else page.absolute().as_uri()
        # An address that differs only in its fragment would not be loaded again.
        self._go("about:blank")
        self.requests.clear()
        self._go(address)

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise; JSON types."""
        result = self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
            timeout=1000 * LIMIT_S,
        )
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait_until(self, script: str, limit_s: float = LIMIT_S) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + limit_s
        while not self.value(script):
            assert time.monotonic() < until, f"not true after {limit_s:g} s: {script}"
            time.sleep(0.02)

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first of the places, move over the others, let it go."""
        self._mouse("mouseMoved", places[0], buttons=0)
        self._mouse("mousePressed", places[0], button="left", buttons=1, clickCount=1)
        for place in places[1:]:
            self._mouse("mouseMoved", place, button="left", buttons=1)
        self._mouse("mouseReleased", places[-1], button="left", buttons=0, clickCount=1)

    def click(self, selector: str) -> None:
        """Click on the middle of the element that a selector of CSS finds."""
        self.drag(self.place(selector))

    def wheel(self, place: tuple[float, float], down: float) -> None:
        """Turn the mouse wheel, `down` in pixels."""
        self._mouse("mouseWheel", place, deltaX=0, deltaY=down)

    def key(self, name: str) -> None:
        """Press a key and let it go; `name` is that of KeyboardEvent.key."""
        code = _KEYS.get(name, ord(name[0].upper()))
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code)

    def place(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """A place in an element, as shares of its width and height, scrolled into view; pixels."""
        box = self.value(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'nearest'}); const at = found.getBoundingClientRect();"
            "return [at.x, at.y, at.width, at.height]; })()"
        )
        return box[0] + across * box[2], box[1] + down * box[3]

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Set the size of the window in CSS pixels, and the colours that the reader prefers."""
        metrics = {"width": width, "height": height, "mobile": phone}
        scale = 2 if phone else 1
        self.send("Emulation.setDeviceMetricsOverride", deviceScaleFactor=scale, **metrics)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def _go(self, address: str) -> None:
        self._loaded = False
        answer = self.send("Page.navigate", url=address)
        assert "errorText" not in answer, f"{address}: {answer['errorText']}"
        until = time.monotonic() + LIMIT_S
        while not self._loaded:
            self._read(until, f"loading {address}")

    def _mouse(self, kind: str, place: tuple[float, float], **how: Any) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **how)

    def _read(self, until: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._bytes:
            left = until - time.monotonic()
            assert left > 0, f"the browser did not answer within {LIMIT_S:g} s: {what}"
            if select.select([self._answers], [], [], left)[0]:
                got = os.read(self._answers, 1 << 20)
                assert got, f"the browser ended: {what}"
                self._bytes += got
        head, self._bytes = self._bytes.split(b"\0", 1)
        message = json.loads(head)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str([each.get("value") for each in params["args"]]))
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, in a window of 1280 x 800; ended, with all its processes, behind it."""
    assert CHROMIUM is not None
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        (reads, commands), (answers, writes) = _pipe(), _pipe()
        stack.callback(os.close, commands)
        stack.callback(os.close, answers)
        launch = [sys.executable, "-ESc", _LAUNCH, str(reads), str(writes), CHROMIUM]
        process = subprocess.Popen(
            [*launch, *_FLAGS, f"--user-data-dir={home}"],
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
            start_new_session=True,
        )
        stack.callback(_end, process)
        # Only the browser holds these ends now, so reading ends when it dies.
        os.close(reads)
        os.close(writes)
        page = Browser(commands, answers)
        page.look(1280, 800)
        yield page


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe, above the two descriptors that the browser wants."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return ends[0], ends[1]


def _write(end: int, data: bytes, what: str) -> None:
    until = time.monotonic() + LIMIT_S
    while data:
        left = until - time.monotonic()
        assert left > 0, f"the browser did not listen within {LIMIT_S:g} s: {what}"
        if select.select([], [end], [], left)[1]:
            # A pipe that can be written to takes this much without waiting.
            data = data[os.write(end, data[: select.PIPE_BUF]) :]


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LIMIT_S)
