"""A real browser, spoken to in its own protocol over two pipes: what a page asks for, and complains of.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)

PATIENCE = 60.0
"""Seconds that an answer may take."""


@dataclass
class Seen:
    """What a page did.

    Attributes:
        requests: Addresses that it asked for, itself included.
        complaints: What it, or the browser, wrote into the console.
        values: What the scripts of the test came to.
        picture: A screenshot, PNG.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    picture: bytes = b""


class Browser:
    """One browser process.

    Args:
        program: The browser.
        profile: An empty folder for it.
    """

    def __init__(self, program: str, profile: Path) -> None:
        its_input, self._to = os.pipe()
        self._from, its_output = os.pipe()
        script = f'exec "$@" 3<&{its_input} 4>&{its_output}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "browser", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(its_input, its_output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        self._number = 0
        self._rest = b""
        self._events: list[dict[str, Any]] = []

    def close(self) -> None:
        self.call("Browser.close")
        self._process.wait(timeout=PATIENCE)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._events.append(answer)

    def wait_for(self, method: str) -> None:
        """Wait for an event."""
        while not any(event.get("method") == method for event in self._events):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(
        self,
        path: Path,
        *scripts: str,
        width: int = 1280,
        height: int = 1000,
        dark: bool = False,
        touch: str = "",
    ) -> Seen:
        """Open a file in a new tab, ask it what scripts say, and take a picture of all of it.

        Args:
            path: The file.
            scripts: Expressions whose values are wanted.
            width: Width of the window.
            height: Its height.
            dark: Whether the user prefers dark colours.
            touch: A selector of what is clicked on before.
        """
        self._events.clear()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable", session)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._events.clear()
        self.call("Page.navigate", session, url=path.as_uri())
        self.wait_for("Page.loadEventFired")
        if touch:
            self._value(session, f"document.querySelector({json.dumps(touch)}).click()")
        seen = Seen(values=[self._value(session, script) for script in scripts])
        shot = self.call("Page.captureScreenshot", session, captureBeyondViewport=True)
        seen.picture = base64.b64decode(shot["data"])
        for event in self._events:
            _note(seen, event.get("method"), event.get("params", {}))
        self.call("Target.closeTarget", targetId=target)
        return seen

    def _value(self, session: str, script: str) -> Any:
        answer = self.call("Runtime.evaluate", session, expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")


def _note(seen: Seen, method: str | None, said: dict[str, Any]) -> None:
    if method == "Network.requestWillBeSent":
        seen.requests.append(said["request"]["url"])
    elif method == "Log.entryAdded":
        seen.complaints.append(said["entry"]["text"])
    elif method == "Runtime.consoleAPICalled":
        seen.complaints.append(" ".join(str(each.get("value")) for each in said["args"]))
    elif method == "Runtime.exceptionThrown":
        seen.complaints.append(said["exceptionDetails"]["text"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for the whole session; skips where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no chromium (sudo apt-get install chromium)")
    started = Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
