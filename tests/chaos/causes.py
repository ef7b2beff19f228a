"""Why a request failed, and whether it may: pure, from k6's record and the times of the faults.

Allowed are only failures that no serving system can prevent: a connection to a router that was
killed, paused, or has closed its port, and a call that may not be repeated and was accepted by a
worker that was killed, or paused for longer than connections live. Everything else breaks the
promise that no request is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REFUSED = 1212  # k6's code for a connection that was refused
DROPPED_BY_K6 = "context canceled"
KILLED_ROUTER = "connection to a killed or paused router"
STOPPED_ROUTER = "connection refused by a stopped router"
KILLED_WORKER = "accepted non-idempotent call on a killed or paused worker"


@dataclass(frozen=True)
class Window:
    """A role was away: from the signal until the cluster was settled with it again."""

    kind: str
    index: int
    # Without a word: by SIGKILL, or SIGSTOP for a while.
    killed: bool
    start_ms: float
    end_ms: float

    def covers(self, failure: Failure) -> bool:
        # k6 rounds its times down to whole milliseconds.
        return failure.start_ms <= self.end_ms and failure.end_ms >= math.floor(self.start_ms)


@dataclass(frozen=True)
class Failure:
    """One line of load.js."""

    start_ms: float
    end_ms: float
    router: int
    app: str
    method: str
    status: int
    code: int
    error: str

    @staticmethod
    def read(line: dict[str, Any]) -> Failure:
        return Failure(**line)

    def is_of_the_end(self, told_ms: float) -> bool:
        """Whether k6 dropped the request itself, because it was told to end."""
        return self.error == DROPPED_BY_K6 and self.end_ms >= told_ms


def cause(failure: Failure, windows: Iterable[Window]) -> tuple[str, bool]:
    """The name of the cause, and whether it is allowed."""
    near = [window for window in windows if window.covers(failure)]
    of_router = [w for w in near if w.kind == "router" and w.index == failure.router]
    if failure.status == 0:
        if any(window.killed for window in of_router):
            return KILLED_ROUTER, True
        if of_router and failure.code == REFUSED:
            return STOPPED_ROUTER, True
        return f"no answer: {failure.error}", False
    killed_workers = [w for w in near if w.kind == "worker" and w.killed]
    if failure.method == "POST" and failure.status == 502 and killed_workers:
        return KILLED_WORKER, True
    return f"status {failure.status} of {failure.app}", False
