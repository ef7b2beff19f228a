"""How fast pods come, and how many calls that takes, on a real control plane with workers as
processes (tests/kubernetes/cluster).

First, from nothing: no pod is there, one request comes, waits, and is answered. Then 200 workers at
once. The times of the head's calls are those of the API server's audit log.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import requests
from cluster.control_plane import ControlPlane
from cluster.house import House, group
from cluster.kubelet import NODES, Kubelet
from support.config import app, deployment
from support.waiting import wait_until

ROUNDS = int(os.environ.get("ROUNDS", "20"))
WORKERS = int(os.environ.get("WORKERS", "200"))
WAIT_S = 600.0


def line(what: str, seconds: list[float], goal_ms: float | None = None) -> None:
    ms = sorted(second * 1000 for second in seconds)
    goal = "" if goal_ms is None else f"   goal {goal_ms:.0f}"
    print(f"{what:<44} p50 {statistics.median(ms):7.0f} ms   max {ms[-1]:7.0f} ms{goal}")


def from_nothing(house: House) -> None:
    """A request makes the pod that answers it, again and again."""
    house.start(group(idle_timeout_s=0))
    scale = {
        "min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 0, "upscale_delay_s": 0,
        "look_back_period_s": 0.5, "metrics_interval_s": 0.1,
    }  # fmt: skip
    one = deployment("Noop", num_cpus=1, autoscaling_config=scale)
    house.deploy(app("noop", "noop", "/noop", one))
    house.wait_running("noop")
    create, ready, answer = [], [], []
    for _ in range(ROUNDS):
        house.wait_pods(0)
        known = set(house.kubelet.pods)
        sent = time.time()
        requests.get(f"{house.url}/noop", timeout=60).raise_for_status()
        answered = time.time()
        [pod] = [pod for uid, pod in house.kubelet.pods.items() if uid not in known]
        calls = house.plane.calls_of_head(house.namespace)
        created = next(at for call, at in calls if call == "create pods" and at >= sent)
        create.append(created - sent)
        wait_until(lambda pod=pod: pod.ready_at, "the pod is Ready", WAIT_S)
        ready.append(pod.ready_at - created)
        # A fast worker answers before the API server has heard that its pod is Ready.
        answer.append(max(0.0, answered - pod.ready_at))
    print(f"from nothing, {ROUNDS} times")
    line("  request sent -> pod create call", create, 300)
    line("  create call -> the process runs, pod Ready", ready)
    line("  pod Ready -> first request answered", answer, 300)


def at_once(house: House) -> None:
    """Many workers of none."""
    house.start(group(max=WORKERS, resources={"cpus": 1}))
    sent = time.time()
    house.deploy(app("noop", "noop", "/noop", deployment("Noop", num_cpus=1, num_replicas=WORKERS)))
    wait_until(lambda: house.replicas("noop", "Noop") == WORKERS, "all replicas", WAIT_S)
    took = time.time() - sent
    calls = house.plane.calls_of_head(house.namespace)
    since = Counter(call for call, at in calls if at >= sent)
    creations = [at for call, at in calls if call == "create pods"]
    print(f"{WORKERS} workers at once")
    print(f"  all replicas run after                     {took:7.1f} s")
    print(f"  first, last create call after              {creations[0] - sent:7.2f} s, {creations[-1] - sent:.2f} s")
    print(f"  calls of the head                          {sum(since.values()):7}     goal 500")
    for call, count in since.most_common():
        print(f"    {call:<40} {count:7}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mark = uuid.uuid4().hex
        plane = ControlPlane(Path(folder), mark)
        kubelet = Kubelet(plane, NODES, mark)
        try:
            plane.start()
            kubelet.start()
            for number, measure in enumerate((from_nothing, at_once)):
                home = Path(folder) / f"house-{number}"
                home.mkdir()
                house = House(plane, kubelet, f"m{number}-{mark[:8]}", home)
                try:
                    measure(house)
                    sys.stdout.flush()
                except BaseException:
                    print(house.log_tail("head-0"), file=sys.stderr)
                    raise
                finally:
                    house.stop()
        finally:
            kubelet.stop()
            plane.stop()


main()
