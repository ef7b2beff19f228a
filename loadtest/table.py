"""Prints k6 summaries as one table: `table.py out/infer out/embed` reads out/infer.json, ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEADER = [
    "scenario",
    "requests",
    "requests/s",
    "dropped",
    "avg ms",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "failed",
    "held",
]


def row(stem: str) -> list[str]:
    """One summary as cells."""
    metrics = json.loads(Path(stem + ".json").read_text())["metrics"]
    latency = metrics["http_req_duration"]["values"]
    thresholds = [
        t["ok"] for metric in metrics.values() for t in metric.get("thresholds", {}).values()
    ]
    return [
        Path(stem).name,
        f"{metrics['http_reqs']['values']['count']:.0f}",
        f"{metrics['http_reqs']['values']['rate']:.1f}",
        f"{metrics.get('dropped_iterations', {}).get('values', {}).get('count', 0):.0f}",
        *(f"{latency[name]:.1f}" for name in ("avg", "med", "p(95)", "p(99)")),
        f"{100 * metrics['http_req_failed']['values']['rate']:.2f} %",
        "yes" if all(thresholds) else "NO",
    ]


def main() -> None:
    print("| " + " | ".join(HEADER) + " |")
    print("|---" * len(HEADER) + "|")
    for stem in sys.argv[1:]:
        print("| " + " | ".join(row(stem)) + " |")


main()
