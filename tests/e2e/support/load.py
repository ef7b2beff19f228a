"""Constant load from keep-alive clients, every outcome kept."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field

from .waiting import wait_until

REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """One request: when it was sent, and its status or the error instead."""

    sent_at: float
    status: int | None
    text: str


@dataclass
class Load:
    """Threads that GET one path, one after the other, over one connection each."""

    port: int
    path: str
    clients: int = 4
    outcomes: list[Outcome] = field(default_factory=list)
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, daemon=True) for _ in range(self.clients)
        ]

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=REQUEST_TIMEOUT_S)
        while not self._stop.is_set():
            sent_at = time.monotonic()
            try:
                connection.request("GET", self.path)
                response = connection.getresponse()
                text = response.read(500).decode(errors="replace")
                self.outcomes.append(Outcome(sent_at, response.status, text))
            except (OSError, http.client.HTTPException) as error:
                self.outcomes.append(Outcome(sent_at, None, repr(error)))
                connection.close()
                self._stop.wait(0.01)
        connection.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT_S + 5)

    def answered(self) -> int:
        """How many were answered 200 so far."""
        return sum(outcome.status == 200 for outcome in list(self.outcomes))

    def wait_for_more(self, count: int = 20) -> None:
        """Waits until that many more are answered 200."""
        wanted = self.answered() + count
        wait_until(lambda: self.answered() >= wanted, f"{count} more answers")

    def failed(self, before: float = float("inf")) -> list[Outcome]:
        """Those sent before a moment that did not end with 200."""
        return [o for o in list(self.outcomes) if o.status != 200 and o.sent_at < before]
