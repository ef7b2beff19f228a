"""Measures the systems of `SYSTEMS` in turns and prints tables; raw output goes to the folder."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from measure import Measured, constant_rate, median, wrk
from systems import SYSTEMS, Running

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS_EACH = int(os.environ.get("SECONDS_EACH", "5"))
CONNECTIONS = [int(c) for c in os.environ.get("CONNECTIONS", "1 8 32 100 1000").split()]
PARTS = os.environ.get("PARTS", "noop echo bodies open").split()
SIZES = {"1 KB": 1 << 10, "100 KB": 100 << 10, "10 MB": 10 << 20}
# The constant rate is this share of what the slower of nginx and mobula reaches.
OPEN_SHARE = 0.5
OPEN_CONNECTIONS = 64


class Bench:
    def __init__(self, out: Path, work: Path) -> None:
        self.out, self.work = out, work
        self.running: dict[str, Running] = {}

    def start(self, names: list[str]) -> None:
        port = 0
        for name in ["bare", *names]:
            work = self.work / name
            work.mkdir()
            self.running[name] = SYSTEMS[name](work, port)
            if name == "bare":
                port = int(self.running[name].url.rsplit(":", 1)[1])

    def stop(self) -> None:
        for one in self.running.values():
            one.stop()

    def body(self, size: int) -> Path:
        path = self.work / f"body-{size}"
        path.write_text(json.dumps({"text": "x" * (size - len('{"text": ""}'))}))
        return path

    def rounds(self, part: str, path: str, connections: int, body: Path | None) -> dict[str, Measured]:
        measured: dict[str, list[Measured]] = {name: [] for name in self.running}
        for n in range(1, ROUNDS + 1):
            for name, system in self.running.items():
                raw = self.out / f"{part}-{name}-c{connections}-{n}.txt"
                one = wrk(system.url + path, connections, SECONDS_EACH, raw, body)
                measured[name].append(one)
                print(f"{part} c={connections} {name}: {one.rate:.0f}/s", file=sys.stderr)
        return {name: median(rounds) for name, rounds in measured.items()}


def table(title: str, first: str, rows: dict[str, dict[str, Measured]]) -> None:
    names = list(next(iter(rows.values())))
    others = [name for name in names if name not in ("bare", "mobula")]
    head = [first] + [f"{name} requests/s (p50, p99 ms)" for name in names]
    head += [f"mobula : {name}" for name in others]
    print(f"\n## {title}\n\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for label, row in rows.items():
        cells = [label]
        cells += [f"{row[n].rate:.0f} ({row[n].p50:.2f}, {row[n].p99:.2f})" for n in names]
        cells += [f"{row['mobula'].rate / row[n].rate:.2f}" for n in others]
        print("| " + " | ".join(cells) + " |")
    sys.stdout.flush()


def at_constant_rate(bench: Bench, at_32: dict[str, Measured]) -> None:
    slower = min(at_32[name].rate for name in ("nginx", "mobula") if name in at_32)
    rate = int(slower * OPEN_SHARE)
    print(f"\n## No-op at a constant {rate} requests/s over {OPEN_CONNECTIONS} connections\n")
    print("| system | latency |\n|---|---|")
    for name in ("bare", "nginx", "haproxy", "mobula"):
        if name in bench.running:
            url = bench.running[name].url + "/"
            raw = bench.out / f"open-{name}.txt"
            line = constant_rate(url, rate, 2 * SECONDS_EACH, OPEN_CONNECTIONS, raw)
            print(f"| {name} | {line} |", flush=True)


def measure(bench: Bench) -> None:
    noop: dict[str, dict[str, Measured]] = {}
    if "noop" in PARTS or "open" in PARTS:
        noop = {str(c): bench.rounds("noop", "/", c, None) for c in CONNECTIONS}
        table("No-op: a GET answered with 20 bytes", "connections", noop)
    if "echo" in PARTS:
        body = bench.body(4096)
        echo = {str(c): bench.rounds("echo", "/echo", c, body) for c in CONNECTIONS if c <= 100}
        table("Echo: a POST of 4 KB of JSON", "connections", echo)
    if "bodies" in PARTS:
        sizes = {}
        for label, size in SIZES.items():
            part = "body-" + label.replace(" ", "")
            sizes[label] = bench.rounds(part, "/echo", 8, bench.body(size))
        table("Echo over 8 connections", "body", sizes)
    if "open" in PARTS and "32" in noop:
        at_constant_rate(bench, noop["32"])


def main() -> None:
    names = os.environ["SYSTEMS"].split()
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown or "mobula" not in names:
        sys.exit(f"SYSTEMS: mobula and any of {', '.join(SYSTEMS)}; not {unknown}")
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(sys.argv[1]).resolve(), Path(work))
        try:
            bench.start(names)
            measure(bench)
        finally:
            bench.stop()


main()
