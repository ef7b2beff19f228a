"""Replays four shapes of load against Ray's autoscaler and ours, in the same model.

    replay.py BINARY FOLDER     writes table.txt and one CSV per shape and profile
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from controllers import Mobula, Ray, Settings
from plant import ONGOING_MAX, SERVICE_MS, Run, simulate

SECONDS = 600
REQUESTS_PER_REPLICA = ONGOING_MAX * 1000 / SERVICE_MS
Shape = Callable[[float], float]

# Requests per second. A replica takes 8, and is meant to have 2 in progress: 4 per second.
SHAPES: dict[str, Shape] = {
    "step": lambda t: 8 if t < 60 else 80,
    "spike": lambda t: 120 if 60 <= t < 75 or 300 <= t < 315 else 8,
    "sine": lambda t: 44 - 36 * math.cos(2 * math.pi * t / 200),
    "sawtooth": lambda t: 8 + 72 * (t % 150) / 150,
}

DEFAULTS = Settings(
    min_replicas=1,
    max_replicas=40,
    target_ongoing_requests=2,
    metrics_interval_s=10,
    look_back_period_s=30,
    upscale_delay_s=30,
    downscale_delay_s=600,
)
TUNED = replace(
    DEFAULTS,
    metrics_interval_s=1,
    look_back_period_s=5,
    upscale_delay_s=2,
    downscale_delay_s=30,
)
PROFILES = {"defaults": DEFAULTS, "tuned": TUNED}


@dataclass(frozen=True)
class Figures:
    """What is compared."""

    reaction_s: float | None
    overshoot: int
    replica_s: int
    flaps: int
    wait_p99_ms: int
    wait_max_ms: int


def figures(run: Run, shape: Shape) -> Figures:
    """Reads the figures off a run."""
    targets = [state.target for state in run.states]
    needed = [math.ceil(shape(state.ms / 1000) * SERVICE_MS / 1000 / 2) for state in run.states]
    jump = next((i for i in range(1, len(needed)) if needed[i] >= 2 * needed[i - 1]), None)
    reached = None
    if jump is not None:
        times = [s.ms for s in run.states[jump:] if s.target >= needed[jump]]
        reached = (times[0] - run.states[jump].ms) / 1000 if times else math.inf
    moves = [b > a for a, b in zip(targets, targets[1:], strict=False) if a != b]
    flaps = sum(1 for a, b in zip(moves, moves[1:], strict=False) if a != b)
    waits = sorted(run.waits_ms)
    return Figures(
        reaction_s=reached,
        overshoot=max(targets) - max(needed),
        replica_s=round(sum(targets) / 10),
        flaps=flaps,
        wait_p99_ms=waits[len(waits) * 99 // 100],
        wait_max_ms=waits[-1],
    )


def main(binary: Path, folder: Path) -> None:
    """Runs everything."""
    rows = [("profile", "shape", "autoscaler", *Figures.__dataclass_fields__)]
    for profile, settings in PROFILES.items():
        for name, shape in SHAPES.items():
            eager = replace(settings, upscale_delay_s=0)
            contenders = {
                "ray 2.60": Ray(settings),
                "mobula": Mobula(settings, "default", binary),
                "mobula reactive": Mobula(eager, "reactive", binary),
            }
            runs = {}
            for who, controller in contenders.items():
                runs[who] = simulate(shape, SECONDS, controller)
                controller.close()
                found = figures(runs[who], shape)
                rows.append((profile, name, who, *(str(v) for v in vars(found).values())))
            write_csv(folder / f"{profile}-{name}.csv", runs, shape)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    (folder / "table.txt").write_text(text)
    print(text)


def write_csv(path: Path, runs: dict[str, Run], shape: Shape) -> None:
    """One line a second."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["second", "requests_per_s", *runs])
        for index in range(0, SECONDS * 10, 10):
            targets = [run.states[index].target for run in runs.values()]
            second = index // 10
            writer.writerow([second, round(shape(second), 2), *targets])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
