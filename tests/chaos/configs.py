"""The configs of a run, and the ledger of those that were accepted.

The cluster must show the last config that was answered 200, whatever happened to its processes
since; and its history must have counted every one of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import requests
from support.config import Json, app, deployment

APPLICATIONS = "/api/serve/applications/"
ANSWER_SECONDS_MAX = 10.0
# A change is refused while nobody leads or etcd is away, and tried again for so long.
PUT_SECONDS_MAX = 60.0
PUT_PAUSE_SECONDS = 0.1
NOT_COUNTED = "an accepted revision is not in the history"


@dataclass(frozen=True)
class Wanted:
    """What varies between the configs of a run."""

    noop_replicas: int = 3
    sleep_version: int = 1
    sleep_seconds: float | str = 0.02

    def document(self) -> Json:
        version = {"env_vars": {"VERSION": str(self.sleep_version)}}
        sleep = deployment("Sleep", user_config={"seconds": self.sleep_seconds}, num_replicas=2)
        noop = deployment("Noop", num_replicas=self.noop_replicas)
        return {
            "http_options": {"host": "127.0.0.1"},
            "applications": [
                app("noop", "noop", "/noop", noop),
                app("sleep", "sleep", "/sleep", sleep, runtime_env=version),
                app("echo", "echo", "/echo", deployment("Echo", num_replicas=2)),
            ],
        }


@dataclass
class Ledger:
    """What was accepted, and what must be shown."""

    expected: Wanted | None = None
    accepted: int = 0
    revisions_min: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def put(self, admins: list[str], wanted: Wanted) -> None:
        """Puts a config to one head after the other until it is accepted."""
        end = time.monotonic() + PUT_SECONDS_MAX
        tries = 0
        while time.monotonic() < end:
            if self.put_once(admins[tries % len(admins)], wanted):
                return
            tries += 1
            time.sleep(PUT_PAUSE_SECONDS)
        raise TimeoutError(f"no head accepted a config for {PUT_SECONDS_MAX:g} s")

    def put_once(self, admin: str, wanted: Wanted) -> bool:
        """Whether it was answered 200."""
        try:
            answer = requests.put(
                admin + APPLICATIONS, json=wanted.document(), timeout=ANSWER_SECONDS_MAX
            )
        except requests.RequestException:
            self.refused += 1
            return False
        if answer.status_code != 200:
            self.refused += 1
            return False
        self.accepted += 1
        # The same config again is the same revision.
        self.revisions_min += wanted != self.expected
        self.expected = wanted
        return True

    def taken_back(self, before: Wanted) -> None:
        """The last config failed, and the cluster went back to the one before it."""
        self.expected = before
        self.revisions_min += 1

    def missing(self, admin: str) -> str:
        """What is wrong with the history: every accepted change is a revision of it."""
        history = requests.get(admin + "/api/mobula/history", timeout=ANSWER_SECONDS_MAX).json()
        current = history.get("current") or 0
        if current >= self.revisions_min:
            return ""
        return f"{NOT_COUNTED}: {self.revisions_min} were accepted, it is at {current}"


def is_shown(wanted: Any, shown: Any) -> bool:
    """Whether all that was wanted is in what is shown; defaults may be there besides."""
    if isinstance(wanted, dict):
        return isinstance(shown, dict) and all(
            key in shown and is_shown(value, shown[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(shown, list)
            and len(wanted) == len(shown)
            and all(is_shown(one, other) for one, other in zip(wanted, shown, strict=True))
        )
    return bool(wanted == shown)
