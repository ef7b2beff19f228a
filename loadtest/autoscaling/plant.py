"""A deployment as a model: arrivals, one line, replicas that take a while to start.

Deterministic: the same shape and the same controller give the same run. Time goes in steps of
50 ms; a controller is asked every 100 ms, as both controllers are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

STEP_MS = 50
CONTROL_MS = 100
SERVICE_MS = 500  # of every request
START_MS = 2000  # of every replica
ONGOING_MAX = 4  # per replica, strict


@dataclass(frozen=True)
class State:
    """What a controller may see at one moment."""

    ms: int
    queued: int
    ongoing: int
    arrivals: int  # so far
    served: int  # so far
    service_us: int  # of those, summed up
    running: int
    target: int
    start_ms: int  # of the last replica that became ready; 0: none did


class Controller(Protocol):
    """Says how many replicas there shall be."""

    def decide(self, state: State) -> int:
        """The new target."""


@dataclass
class Run:
    """What happened: one entry for each time the controller was asked."""

    states: list[State] = field(default_factory=list)
    waits_ms: list[int] = field(default_factory=list)


def simulate(rate_of: Callable[[float], float], seconds: int, controller: Controller) -> Run:
    """Lets `rate_of(second)` requests per second arrive."""
    run = Run()
    line: list[int] = []  # arrival times
    busy: list[int] = []  # end times
    starting: list[int] = []  # times at which replicas become ready
    running, target, arrivals = 1, 1, 0.0
    arrived = served = start_ms = 0
    for ms in range(0, seconds * 1000, STEP_MS):
        ready = sum(1 for at in starting if at <= ms)
        start_ms = START_MS if ready else start_ms
        running += ready
        starting = [ready for ready in starting if ready > ms]
        served += sum(1 for end in busy if end <= ms)
        busy = [end for end in busy if end > ms]
        arrivals += rate_of(ms / 1000) * STEP_MS / 1000
        line += [ms] * int(arrivals)
        arrived += int(arrivals)
        arrivals -= int(arrivals)
        while line and len(busy) < running * ONGOING_MAX:
            run.waits_ms.append(ms - line.pop(0))
            busy.append(ms + SERVICE_MS)
        if ms % CONTROL_MS == 0:
            service_us = served * SERVICE_MS * 1000
            state = State(
                ms, len(line), len(busy), arrived, served, service_us, running, target, start_ms
            )
            run.states.append(state)
            target = controller.decide(state)
            excess = running + len(starting) - target
            if excess < 0:
                starting += [ms + START_MS] * -excess
            while excess > 0 and starting:
                starting.pop()
                excess -= 1
            # A replica that leaves finishes what it has, so nothing is lost.
            running -= max(excess, 0)
    return run
