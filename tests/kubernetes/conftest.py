"""Fixtures: one control plane with two nodes for the whole run, a namespace and cluster a test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.house import House
from cluster.kubelet import NODES, Kubelet

LIVE: list[Callable[[], list[tuple[str, str]]]] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, None]:
    """Adds the logs of what runs to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for logs in LIVE:
            report.sections.extend(logs())


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Kubernetes."""
    mark = uuid.uuid4().hex
    plane = ControlPlane(tmp_path_factory.mktemp("kubernetes"), mark)
    kubelet = Kubelet(plane, NODES, mark)
    try:
        plane.start()
        kubelet.start()
        LIVE.append(lambda: [("pods", kubelet.log_tails())])
        yield plane
    finally:
        LIVE.clear()
        kubelet.stop()
        plane.stop()


@pytest.fixture
def house(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A namespace with everything that the head needs; the test starts the head."""
    mark = uuid.uuid4().hex
    house = House(plane, f"t-{mark[:8]}", tmp_path_factory.mktemp("house"), mark)

    def logs() -> list[tuple[str, str]]:
        return [(name, house.log_tail(name)) for name in ("head", "router")]

    LIVE.append(logs)
    try:
        yield house
    finally:
        LIVE.remove(logs)
        house.stop()
