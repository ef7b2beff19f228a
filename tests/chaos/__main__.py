"""A chaos run: a real cluster under load, and one fault after the other.

    "$(tests/setup.sh)/bin/python" tests/chaos --seed 7 --seconds 600

First every fault once, in an order that the seed gives, then random ones until the time is up.
After each the cluster must settle: the last accepted config is shown, every application RUNNING,
no process left over. The result goes to loadtest/out/. Exit code 1: a promise was broken.

The seed fixes what is done in which order, not how processes and requests interleave.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))

import settle  # noqa: E402
from causes import Window  # noqa: E402
from configs import NOT_COUNTED, Ledger, Wanted  # noqa: E402
from faults import FAULTS, Run  # noqa: E402
from load import Counts, Load  # noqa: E402
from result import Result, table  # noqa: E402
from roles import House  # noqa: E402
from support.server import binary  # noqa: E402

# The version that a cluster of three is tested with.
ETCD_VERSION = "3.4.23"
# Faults overrun the time that was asked for; the load must not end before them.
OVERRUN_SECONDS_MAX = 1800


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/chaos", description="faults under load")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--seconds", type=float, default=600, help="at least; one round is done")
    parser.add_argument("--outage-seconds", type=float, default=30, help="without any etcd")
    parser.add_argument("--pause-seconds-max", type=float, default=18, help="of one process")
    parser.add_argument("--rate", type=int, default=50, help="requests per second and router")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="only this fault")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "loadtest" / "out")
    parser.add_argument("--keep", type=Path, help="folder for logs; else gone when all is well")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, flush=True)


def fetch_etcd() -> str:
    script = str(REPOSITORY / "scripts" / "fetch_etcd.sh")
    done = subprocess.run([script, ETCD_VERSION], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


def start(house: House, ledger: Ledger) -> None:
    # All at once: who needs another one waits for it.
    for role in reversed(house.roles()):
        role.start()
    settle.wait(house, ledger)
    ledger.put([house.heads[0].admin], Wanted())
    settle.wait(house, ledger)


def names(options: argparse.Namespace, rng: random.Random, end: float) -> Iterator[str]:
    """One round in an order of its own, then whatever comes."""
    faults = options.only or list(FAULTS)
    yield from rng.sample(faults, len(faults))
    while time.monotonic() < end:
        yield rng.choice(faults)


def rounds(options: argparse.Namespace, run: Run, result: Result, load: Load) -> None:
    started = time.monotonic()
    for name in names(options, run.random, started + options.seconds):
        begin = time.monotonic()
        FAULTS[name](run)
        settle.wait(run.house, run.ledger)
        took = time.monotonic() - begin
        result.times[name].append(took)
        failed = len(load.failures())
        at = begin - started
        say(f"{at:7.1f} s  {name:<30} settled in {took:6.2f} s, failed so far {failed}")
        if not load.is_running():
            raise RuntimeError("k6 ended before the run")


def main() -> int:
    options = arguments()
    say(f"seed {options.seed}; the same again: {' '.join(replay(options))}")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mobula-chaos-", dir=options.keep))
    house = House(binary(), fetch_etcd(), folder)
    ledger, windows, begin = Ledger(), list[Window](), time.monotonic()
    result = Result(options.seed, 0)
    counts: Counts | None = None
    load: Load | None = None
    try:
        start(house, ledger)
        seconds_max = int(options.seconds) + OVERRUN_SECONDS_MAX
        load = Load(folder, [router.url for router in house.routers], options.rate, seconds_max)
        rng = random.Random(options.seed)
        outage, pause = options.outage_seconds, options.pause_seconds_max
        run = Run(house, ledger, rng, outage, pause, windows)
        rounds(options, run, result, load)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        # OSError is time-outs, and a head that does not answer when all should.
        result.broken.append(f"{type(error).__name__}: {error}")
        if any(lost in str(error) for lost in (settle.NOT_SHOWN, NOT_COUNTED)):
            ledger.lost.append(str(error))
    finally:
        counts = load.end() if load else None
        house.end()
    result.seconds = time.monotonic() - begin
    return report(options, result.document(counts, ledger, windows), folder)


def replay(options: argparse.Namespace) -> list[str]:
    command = ['"$(tests/setup.sh)/bin/python"', "tests/chaos", "--seed", str(options.seed)]
    command += ["--seconds", f"{options.seconds:g}", "--rate", str(options.rate)]
    command += ["--outage-seconds", f"{options.outage_seconds:g}"]
    command += ["--pause-seconds-max", f"{options.pause_seconds_max:g}"]
    return command + [word for name in options.only or [] for word in ("--only", f"'{name}'")]


def report(options: argparse.Namespace, document: dict[str, Any], folder: Path) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(document)
    (options.out / "chaos.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "chaos.txt").write_text(text + "\n")
    say(text)
    if document["broken"]:
        say(f"logs: {folder}")
    elif options.keep is None:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        os.rmdir(folder)
    return 1 if document["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
