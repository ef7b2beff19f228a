"""A real, headless Chromium, driven by its own protocol (CDP) over a WebSocket.

Everything that the page complains of or asks for is kept: errors, exceptions, addresses.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from .waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
ANSWER_S = 30.0
START_S = 60.0
# A page with thousands of rows answers with megabytes.
MESSAGE_BYTES_MAX = 64 * 1024 * 1024

FLAGS = [
    "--headless",
    "--remote-debugging-port=0",
    # Neither a container nor an ordinary user of every distribution may make namespaces, and the
    # only pages that are opened are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
]


def binary() -> str:
    """The browser of this machine, or the one that is fetched; fails and says why without one."""
    found = subprocess.run(
        [REPOSITORY / "scripts" / "fetch_browser.sh"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


class Browser:
    """One process; `open` makes tabs."""

    def __init__(self, folder: Path) -> None:
        self.log_path = folder / "browser.log"
        self._open = ExitStack()
        command = [binary(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        environ = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        with self.log_path.open("wb") as log:
            # A group of its own, so that all its processes end with it.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        try:
            url = wait_until(self._url, "the browser to start", START_S)
            # No limit on what waits: nobody reads while a test does something else.
            connection = connect(
                url, max_size=MESSAGE_BYTES_MAX, max_queue=None, ping_interval=None
            )
            self.socket: ClientConnection = self._open.enter_context(connection)
        except BaseException:
            self.stop()
            raise
        self._ids = itertools.count(1)
        self._tabs: dict[str, Tab] = {}

    def _url(self) -> str | None:
        log = self.log_path.read_text(errors="replace")
        assert self.process.poll() is None, f"the browser ended:\n{log}"
        found = re.search(r"DevTools listening on (ws://\S+)", log)
        return found and found[1]

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events that come before are kept."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self.socket.send(json.dumps(message))
        while True:
            said = json.loads(self.socket.recv(timeout=ANSWER_S))
            if said.get("id") == number:
                assert "error" not in said, f"{method}: {said['error']}"
                return said["result"]
            tab = self._tabs.get(said.get("sessionId", ""))
            if tab is not None and "method" in said:
                tab.heard(said["method"], said["params"])

    def open(self, url: str, width: int = 1280, height: int = 900) -> Tab:
        """A tab that shows that page; it may still be loading."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, attached["sessionId"])
        self._tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        # A tab counts as seen whichever of them is in front.
        tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.resize(width, height)
        tab.call("Page.navigate", url=url)
        return tab

    def stop(self) -> None:
        """Ends it and all its processes."""
        self._open.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session
        self.requests: list[str] = []
        self.errors: list[str] = []

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Keeps what matters of an event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command for this tab."""
        return self.browser.call(method, self.session, **params)

    def resize(self, width: int, height: int) -> None:
        """The size of what is seen."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """What a person reads there; empty while there is no such element."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def sees(self, selector: str) -> bool:
        """Whether that element is there and not hidden."""
        node = f"document.querySelector({json.dumps(selector)})"
        return self.evaluate(f"{node}?.checkVisibility() ?? false")

    def wait_text(self, wanted: str, selector: str = "body", timeout_s: float = 30.0) -> None:
        """Waits until it can be read there."""
        wait_until(lambda: wanted in self.text(selector), f"'{wanted}' in {selector}", timeout_s)

    def wait_for(self, expression: str, timeout_s: float = 30.0) -> Any:
        """Waits until an expression is true; its value."""
        return wait_until(lambda: self.evaluate(expression), expression, timeout_s)

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, as a mouse does."""
        where = self.evaluate(
            f"""(() => {{
              const node = document.querySelector({json.dumps(selector)});
              node.scrollIntoView({{block: 'center'}});
              const box = node.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=where[0],
                y=where[1],
                button="left",
                clickCount=1,
            )

    def type(self, text: str, *, enter: bool = False) -> None:
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)
        if enter:
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key="Enter",
                    code="Enter",
                    text="\r",
                    windowsVirtualKeyCode=13,
                )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes a PNG of what is seen, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
