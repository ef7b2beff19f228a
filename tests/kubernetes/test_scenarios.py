"""scenarios.yaml on a real control plane, under constant load where something serves."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.house import WAIT_S, House, group, sleep, template
from cluster.kubelet import MISSING_IMAGE
from support.config import Json
from support.load import Load
from support.waiting import wait_until

# Compaction waits for a minute of rest.
STEP_WAIT_S = 2.5 * WAIT_S
SCENARIOS = yaml.safe_load((Path(__file__).parent / "scenarios.yaml").read_text())
SPECIAL = {
    "no-image": template("no-image", image=MISSING_IMAGE),
    "crashes": template("crashes", command=["/bin/false"]),
    "unsafe": template("unsafe", hostNetwork=True),
}


class Run:
    """One scenario on its way."""

    def __init__(self, house: House, fields: Json) -> None:
        self.house, self.fields = house, fields
        self.before: set[str] = set()
        self.victim = ""
        self.replicas: dict[str, int] = {}
        house.start(self.group("1"))

    def group(self, name: str) -> Json:
        return group(**self.fields, template=SPECIAL.get(name, template(name)))

    def do(self, what: str, value: Any) -> None:
        house = self.house
        match what:
            case "replicas":
                self.replicas = wanted(value)
                house.deploy(*(sleep(count, name) for name, count in self.replicas.items()))
            case "quota":
                house.set_quota(value)
            case "level":
                house.enforce(value)
            case "template":
                house.stop_head()
                house.start_head(self.group(value))
            case "head":
                house.stop_head()
                house.start_head(self.group("1"))
            case "evict":
                assert house.evict(self.victim) == 201
            case "delete":
                house.delete_pod(self.victim)
            case "kill":
                restarts = house.restarts(self.victim)
                assert house.kubelet.kill_9(self.victim)
                wait_until(lambda: house.restarts(self.victim) > restarts, "a restart", WAIT_S)
            case _:
                raise AssertionError(f"do: {what} is unknown")

    def is_so(self, what: str, value: Any) -> bool:
        house = self.house
        pods = house.pods()
        match what:
            case "pods":
                return len(pods) == value
            case "versions":
                of = (pod["metadata"]["annotations"]["version"] for pod in pods.values())
                return sorted(of) == value
            case "message":
                return value in house.message("sleep", "Sleep")
            case "event":
                return any(value in note for note in house.events())
            case "kept":
                return self.before <= set(pods)
            case "gone":
                return self.victim not in pods
            case "never":
                # Looked at when all the rest is so.
                return True
            case _:
                raise AssertionError(f"expect: {what} is unknown")

    def step(self, step: Json) -> None:
        pods = self.house.pods()
        self.before, self.victim = set(pods), min(pods, default="")
        never = step.get("expect", {}).get("never")
        made = self.house.made(never)
        for what, value in step["do"].items():
            self.do(what, value)
        expected = step.get("expect", {})
        wait_until(
            lambda: all(self.is_so(*one) for one in expected.items()), f"{expected}", STEP_WAIT_S
        )
        # Whoever waits is not there yet, and whoever is told that nothing shall run has nothing.
        if "message" not in expected:
            for name in self.replicas:
                self.house.wait_running(name)
        assert self.house.made(never) == made, f"a pod of {never} was made"


def wanted(replicas: Any) -> dict[str, int]:
    """How many replicas of each deployment a step asks for."""
    each = replicas if isinstance(replicas, dict) else {"sleep": replicas}
    return {name: count for name, count in each.items() if count}


def serving(steps: list[Json]) -> tuple[set[str], int]:
    """The deployments that serve until the last ones are taken away, and when that is."""
    last = max(at for at, step in enumerate(steps) if step["do"] != {"replicas": 0})
    asked = [step["do"]["replicas"] for step in steps[: last + 1] if "replicas" in step["do"]]
    return set(wanted(asked[-1])), last


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_scenario(house: House, scenario: Json) -> None:
    run = Run(house, scenario["group"])
    steps = scenario["steps"]
    names, last = serving(steps)
    loads: dict[str, Load] = {}
    with ExitStack() as stack:
        for step in steps[: last + 1]:
            run.step(step)
            for name in names & run.replicas.keys() - loads.keys():
                if "message" not in step.get("expect", {}):
                    loads[name] = stack.enter_context(Load(house.http_port, f"/{name}"))
            for load in loads.values():
                load.wait_for_more()
    assert loads.keys() == names, "every scenario serves at some time"
    for load in loads.values():
        house.lost_nothing(load)
    for step in steps[last + 1 :]:
        run.step(step)
