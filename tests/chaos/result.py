"""The result of a run: a table to read, the same as JSON, and whether the promises were kept."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from typing import Any

from causes import Window, cause
from configs import Ledger
from load import Counts

EXAMPLES_MAX = 5


class Result:
    def __init__(self, seed: int, seconds: float) -> None:
        self.seed, self.seconds = seed, seconds
        self.times: dict[str, list[float]] = defaultdict(list)
        self.broken: list[str] = []

    def document(self, counts: Counts | None, ledger: Ledger, windows: list[Window]) -> Any:
        """Everything that is known, as JSON has it."""
        causes: Counter[str] = Counter()
        broken = list(self.broken) + [f"config lost: {loss}" for loss in ledger.lost]
        unanswered: list[Any] = []
        for failure in counts.failures if counts else []:
            name, allowed = cause(failure, windows)
            causes[name] += 1
            if not allowed:
                unanswered.append({"cause": name, **vars(failure)})
        if unanswered:
            broken.append(f"{len(unanswered)} requests failed that had to be answered")
        if counts is None or counts.answered == 0:
            broken.append("no request was answered")
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "requests": {
                "sent": counts.sent if counts else 0,
                "answered": counts.answered if counts else 0,
                "cut_off_at_the_end": counts.cut_off() if counts else 0,
                "not_sent_for_want_of_clients": counts.dropped if counts else 0,
                "failed_by_cause": dict(causes),
                "failed_and_not_allowed": len(unanswered),
                "examples": unanswered[:EXAMPLES_MAX],
            },
            "configs": {
                "accepted": ledger.accepted,
                "refused": ledger.refused,
                "lost": len(ledger.lost),
            },
            "faults": {name: [round(t, 2) for t in times] for name, times in self.times.items()},
            "broken": broken,
        }


def table(document: Any) -> str:
    """The document for people."""
    requests, configs = document["requests"], document["configs"]
    rows = [
        ("seed", document["seed"]),
        ("seconds", document["seconds"]),
        ("requests sent", requests["sent"]),
        ("  answered", requests["answered"]),
        ("  cut off at the end of the run", requests["cut_off_at_the_end"]),
        ("  not sent for want of clients", requests["not_sent_for_want_of_clients"]),
    ]
    rows += [(f"  failed: {name}", n) for name, n in sorted(requests["failed_by_cause"].items())]
    rows += [
        ("requests failed that had to be answered", requests["failed_and_not_allowed"]),
        ("configs accepted", configs["accepted"]),
        ("  refused, and asked again", configs["refused"]),
        ("accepted configs lost", configs["lost"]),
    ]
    lines = [f"{name:<52} {value:>8}" for name, value in rows]
    lines += ["", f"{'fault':<34} {'times':>5} {'median s':>9} {'max s':>8}"]
    for name, times in sorted(document["faults"].items()):
        lines.append(
            f"{name:<34} {len(times):>5} {statistics.median(times):>9.2f} {max(times):>8.2f}"
        )
    lines += ["", *(f"BROKEN: {line}" for line in document["broken"])]
    lines += [f"  {example}" for example in requests["examples"]]
    lines.append("the promises were broken" if document["broken"] else "all promises were kept")
    return "\n".join(lines)
