"""Fixtures: one control plane with two nodes for the whole run, a namespace and cluster a test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.control_plane import ControlPlane
from cluster.house import House
from cluster.kubelet import NODES, Kubelet
from cluster.logs import LIVE, pytest_runtest_makereport  # noqa: F401


@pytest.fixture(scope="session")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """Kubernetes with its nodes."""
    mark = uuid.uuid4().hex
    plane = ControlPlane(tmp_path_factory.mktemp("kubernetes"), mark)
    kubelet = Kubelet(plane, NODES, mark)
    try:
        plane.start()
        kubelet.start()
        LIVE.append(lambda: [("pods", kubelet.log_tails())])
        yield kubelet
    finally:
        LIVE.clear()
        kubelet.stop()
        plane.stop()


@pytest.fixture(scope="session")
def plane(kubelet: Kubelet) -> ControlPlane:
    """Its control plane."""
    return kubelet.plane


def housed(kubelet: Kubelet, folder: Path, heads: int) -> Iterator[House]:
    """A namespace with everything that the heads need; the test starts them."""
    house = House(kubelet.plane, kubelet, f"t-{uuid.uuid4().hex[:8]}", folder, heads)

    def logs() -> list[tuple[str, str]]:
        names = [*(head.name for head in house.heads), "router"]
        return [(name, house.log_tail(name)) for name in names]

    LIVE.append(logs)
    try:
        yield house
    finally:
        LIVE.remove(logs)
        house.stop()


@pytest.fixture
def house(kubelet: Kubelet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A cluster with one head."""
    yield from housed(kubelet, tmp_path_factory.mktemp("house"), 1)


@pytest.fixture
def big_house(kubelet: Kubelet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A cluster with two heads."""
    yield from housed(kubelet, tmp_path_factory.mktemp("house"), 2)
