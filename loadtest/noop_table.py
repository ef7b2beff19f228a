"""Makes the table of noop.sh from wrk's raw output: medians of the rounds, and ratios to nginx."""

from __future__ import annotations

import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
Runs = dict[tuple[str, int], list[tuple[float, float]]]


def read(folder: Path) -> Runs:
    """(system, connections) -> (requests/s, p99 in ms) of every round."""
    runs: Runs = defaultdict(list)
    for path in sorted(folder.glob("*-c*-*.txt")):
        system, connections, _ = path.stem.split("-")
        text = path.read_text()
        if re.search(r"Non-2xx|Socket errors", text):
            sys.exit(f"{path.name} has errors:\n{text}")
        rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
        if not rate or not p99:
            sys.exit(f"{path.name} is not wrk's output:\n{text}")
        runs[system, int(connections[1:])].append((float(rate[1]), float(p99[1]) * UNIT_MS[p99[2]]))
    return runs


def main() -> None:
    runs = read(Path(sys.argv[1]))
    systems = [name for name in ("bare", "nginx", "mobula") if any(key[0] == name for key in runs)]
    header = ["connections"]
    for name in systems:
        header += [f"{name} requests/s", "p99 ms"]
    ratio = "nginx" in systems
    if ratio:
        header.append("mobula : nginx")
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for connections in sorted({key[1] for key in runs}):
        cells, rates = [str(connections)], {}
        for name in systems:
            rounds = runs[name, connections]
            rates[name] = statistics.median(rate for rate, _ in rounds)
            cells += [f"{rates[name]:.0f}", f"{statistics.median(p for _, p in rounds):.2f}"]
        if ratio:
            cells.append(f"{rates['mobula'] / rates['nginx']:.2f}")
        print("| " + " | ".join(cells) + " |")


main()
