"""k6 beside the run: starts load.js, ends it, and reads what it counted and what failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from causes import Failure

K6 = Path(sys.executable).with_name("k6")
SCRIPT = Path(__file__).with_name("load.js")
END_SECONDS_MAX = 30.0


@dataclass
class Counts:
    """What k6 counted; cut off are requests under way when it was told to end."""

    sent: int
    answered: int
    dropped: int
    failures: list[Failure]

    def cut_off(self) -> int:
        return self.sent - self.answered - len(self.failures)


class Load:
    def __init__(self, folder: Path, routers: list[str], rate: int, seconds_max: int) -> None:
        self.summary, self.console = folder / "k6.json", folder / "k6-failures.log"
        self.output = folder / "k6.log"
        environ = {
            **os.environ,
            "ROUTERS": ",".join(routers),
            "RATE": str(rate),
            "DURATION": f"{seconds_max}s",
            "SUMMARY": str(self.summary),
        }
        command = [
            str(K6), "run", "--quiet", "--no-usage-report", "--address", "",
            "--log-format", "raw", "--console-output", str(self.console), str(SCRIPT),
        ]  # fmt: skip
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environ
            )

    def is_running(self) -> bool:
        return self.process.poll() is None

    def end(self) -> Counts:
        """Ends the load and reads its result."""
        told_ms = time.time() * 1000
        if self.is_running():
            self.process.send_signal(signal.SIGINT)
        self.process.wait(END_SECONDS_MAX)
        if not self.summary.exists():
            raise RuntimeError(f"k6 left no summary:\n{self.output.read_text()[-2000:]}")
        metrics = json.loads(self.summary.read_text())
        return Counts(
            sent=count(metrics, "sent_"),
            answered=count(metrics, "answered_"),
            dropped=count(metrics, "dropped_iterations"),
            # Most of the requests that k6 drops as it ends write no line, some just do.
            failures=[one for one in self.failures() if not one.is_of_the_end(told_ms)],
        )

    def failures(self) -> list[Failure]:
        lines = self.console.read_text().splitlines() if self.console.exists() else []
        return [Failure.read(json.loads(line)) for line in lines if line.startswith("{")]

    def kill(self) -> None:
        if self.is_running():
            self.process.kill()
            self.process.wait()


def count(metrics: dict[str, dict[str, dict[str, float]]], prefix: str) -> int:
    return sum(int(m["values"]["count"]) for name, m in metrics.items() if name.startswith(prefix))
