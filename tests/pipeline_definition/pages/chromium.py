"""Drives a headless Chromium through its DevTools pipe, with the standard library alone.

The protocol: https://chromedevtools.github.io/devtools-protocol/ : JSON messages that end in a NUL, over the file
descriptors 3 (in) and 4 (out) of the browser.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


def find_browser() -> str | None:
    """Return where Chromium is, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Page:
    """What a browser saw of one page."""

    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, data: ones left out."""
    complaints: list[str] = field(default_factory=list)
    """Console errors, warnings and refused resources."""


class Browser:
    """One browser with one tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._number = 0
        self._buffer = b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(
        self, page: Path | str, width_px: int, height_px: int = 900, dark: bool = False, paper: bool = False
    ) -> Page:
        """Show a file or an address at a width, in light or dark, or as on paper, and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=height_px,
            deviceScaleFactor=1,
            mobile=width_px < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        return self.seen()

    def seen(self) -> Page:
        """Return what the browser saw of the page since it was opened."""
        return _page(self._events)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of the promise that it is, in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 60.0) -> Any:
        """Return the first true value of an expression."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline_s, f"it never came: {expression}"
            time.sleep(0.05)
        return value

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._receive()
            if answer.get("id") != self._number:
                self._events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def close(self) -> None:
        """Ask the browser to end."""
        self._session = None
        self.call("Browser.close")
        self._out.close()
        self._in.close()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._in.fileno(), 1 << 20)
            if not piece:
                raise RuntimeError("the browser ended")
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        content: dict[str, Any] = json.loads(message)
        return content


@contextmanager
def browser(executable: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile, and end it."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    # The shell moves the two pipes to where the browser looks for them; bash takes descriptors of two digits.
    moved = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", *command]
    process = subprocess.Popen(
        moved, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(from_write)
    opened = Browser(to_write, from_read)
    try:
        yield opened
    finally:
        opened.close()
        process.wait(timeout=20)


def _page(events: list[dict[str, Any]]) -> Page:
    page = Page()
    for event in events:
        values = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent" and not values["request"]["url"].startswith("data:"):
            page.requests.append(values["request"]["url"])
        elif event["method"] == "Log.entryAdded":
            page.complaints.append(values["entry"]["text"])
        elif event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            page.complaints.append(json.dumps(values))
    return page


# What a reader of the page would not see whole: the texts of table cells that are cut, or stand outside their place.
CLIPPED = """
[...document.querySelectorAll(".scroll table")].flatMap(table => {
  const place = table.parentElement.getBoundingClientRect();
  const isOut = box => box.width > 0 && (box.left < place.left - 1 || box.right > place.right + 1);
  return [...table.querySelectorAll("th, td")].filter(cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return [...range.getClientRects()].some(isOut);
  }).map(cell => cell.textContent);
})
"""
