"""The two autoscalers: Ray's own code from its wheel, and ours as a process.

Both see the load the way their own routers tell it: Ray's record a point every
`metrics_interval_s` (or a fifth of the look-back period, if that is shorter) and push the
window every `metrics_interval_s`; ours report a change within 250 ms.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from plant import ONGOING_MAX, State
from ray.serve import autoscaling_policy
from ray.serve._private import autoscaling_state
from ray.serve._private.common import DeploymentID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

REPORT_MS = 250
REPORTED = ("queued", "ongoing", "arrivals", "served", "service_us")
NEVER = -1_000_000


@dataclass(frozen=True)
class Settings:
    """An `autoscaling_config`."""

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    metrics_interval_s: float
    look_back_period_s: float
    upscale_delay_s: float
    downscale_delay_s: float


class Ray:
    """Ray's default policy, aggregation and delays, with the clock of the simulation."""

    def __init__(self, settings: Settings) -> None:
        self.config = AutoscalingConfig(**asdict(settings))
        policy = autoscaling_policy.default_autoscaling_policy
        self.policy = autoscaling_policy._apply_autoscaling_config(policy)
        self.state: dict[str, Any] = {}
        self.series: tuple[list[TimeStampedValue], list[TimeStampedValue]] = ([], [])
        self.pushed: list[list[TimeStampedValue]] = []
        self.recorded_ms = self.pushed_ms = NEVER
        self.now_s = 0.0
        clock = SimpleNamespace(time=lambda: self.now_s)
        autoscaling_policy.time = clock  # type: ignore[assignment]
        autoscaling_state.time = clock  # type: ignore[assignment]

    def decide(self, state: State) -> int:
        """One pass of Ray's control loop."""
        self.now_s = state.ms / 1000
        self._measure(state)
        total = autoscaling_state.DeploymentAutoscalingState._merge_and_aggregate_timeseries(
            SimpleNamespace(_config=self.config),  # type: ignore[arg-type]
            self.pushed,
        )
        wanted, self.state = self.policy(self._context(state, total))
        return max(self.config.min_replicas, min(self.config.max_replicas, wanted))

    def _measure(self, state: State) -> None:
        config = self.config
        record_s = min(0.2 * config.look_back_period_s, config.metrics_interval_s)
        if state.ms - self.recorded_ms >= record_s * 1000:
            self.recorded_ms = state.ms
            begin = self.now_s - config.look_back_period_s
            for series, value in zip(self.series, (state.queued, state.ongoing), strict=True):
                series.append(TimeStampedValue(self.now_s, float(value)))
                series[:] = [point for point in series if point.timestamp >= begin]
        if state.ms - self.pushed_ms >= config.metrics_interval_s * 1000:
            self.pushed_ms = state.ms
            self.pushed = [list(series) for series in self.series]

    def _context(self, state: State, total: float) -> AutoscalingContext:
        return AutoscalingContext(
            deployment_id=DeploymentID("D", "app"),
            deployment_name="D",
            app_name="app",
            current_num_replicas=state.running,
            target_num_replicas=state.target,
            running_replicas=[],
            total_num_requests=total,
            total_queued_requests=None,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=self.state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now_s,
            config=self.config,
        )

    def close(self) -> None:
        """Nothing to end."""


class Mobula:
    """`examples/autoscale`, told about the load as late as its routers may."""

    def __init__(self, settings: Settings, policy: str, binary: Path) -> None:
        self.process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.reported_ms = NEVER
        self.load: dict[str, int] = {}
        self._say({**asdict(settings), "policy": policy, "max_ongoing_requests": ONGOING_MAX})

    def decide(self, state: State) -> int:
        """One decision."""
        if state.ms - self.reported_ms >= REPORT_MS:
            self.reported_ms = state.ms
            self.load = {name: getattr(state, name) for name in REPORTED}
        self._say({**asdict(state), **self.load})
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def _say(self, line: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
