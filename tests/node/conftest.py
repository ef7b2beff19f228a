"""One node for the whole run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from cluster import image
from cluster.control_plane import ControlPlane
from cluster.logs import LIVE, pytest_runtest_makereport  # noqa: F401
from machine.names import Names
from machine.node import ADDRESS, CGROUP, Node

ETCD = "registry.k8s.io/etcd:3.6.4-0"
MODEL = "sentence-transformers--all-MiniLM-L6-v2"


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with our image, under two tags, and etcd's. What runs ends with run.sh."""
    assert CGROUP and os.getuid() == 0, "make test-node runs this, as root"
    mark = uuid.uuid4().hex
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), mark, ADDRESS)
    plane.start()
    Names(plane, ADDRESS).start()
    node = Node(plane, tmp_path_factory.mktemp("node"), mark)
    LIVE.append(lambda: [(name, node.log_tail(name)) for name in node.processes])
    node.start()
    node.add("docker.io/library/mobula:1", image.mobula(tmp_path_factory.mktemp("image"), MODEL))
    node.also("docker.io/library/mobula:2", "docker.io/library/mobula:1")
    node.add(ETCD, image.etcd(tmp_path_factory.mktemp("etcd-image")))
    yield node
    LIVE.clear()
    plane.stop()
