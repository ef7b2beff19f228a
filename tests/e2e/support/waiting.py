"""Waits on conditions, never on time alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


def wait_until(condition: Callable[[], T | None], what: str, timeout_s: float = 30.0) -> T:
    """Polls until `condition` returns something true, and returns that."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {timeout_s:g} s in vain for: {what}; last seen: {value!r}"
            )
        time.sleep(POLL_S)
