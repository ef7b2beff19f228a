"""A release with requests going through it, and what is done to it wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import requests
from support.config import Json
from support.load import Load
from support.waiting import wait_until

from .control_plane import ControlPlane
from .release import WAIT_S, Release, merged

NAME = "rag"
HTTP_PORT = 8000


def sleep_app(replicas: int) -> Json:
    """Answers after 20 ms, so that requests are always under way."""
    sleep = {
        "name": "Sleep",
        "num_replicas": replicas,
        "user_config": {"seconds": 0.02},
        "ray_actor_options": {"num_cpus": 1},
    }
    return {
        "name": "sleep",
        "route_prefix": "/sleep",
        "import_path": "mobula.apps:sleep",
        "deployments": [sleep],
    }


VALUES: Json = {
    "fullnameOverride": NAME,
    "image": {"tag": "1"},
    "serveConfig": {"applications": [sleep_app(3)]},
    "router": {"preStopSeconds": 1},
    "workerDefaults": {"minReplicas": 1, "maxReplicas": 3},
    # Whatever the head does below, it does within it.
    "admissionPolicy": {"enabled": True},
}
# What an upgrade changes.
CHANGES: dict[str, Json] = {
    "another serve config": {"serveConfig": {"applications": [sleep_app(4)]}},
    "another image": {"image": {"tag": "2"}},
    "other values": {
        "router": {"replicas": 3, "extraEnv": [{"name": "NOTE", "value": "router"}]},
        "head": {"replicas": 3},
        "workerDefaults": {"env": {"NOTE": "worker"}},
        "log": {"level": "debug"},
    },
}


class Installed(Release):
    """A release that clients reach."""

    def __init__(
        self, plane: ControlPlane, namespace: str, folder: Path, address: Callable[[], str]
    ) -> None:
        super().__init__(plane, "r", namespace, folder)
        self.address = address

    def serves(self) -> bool:
        """Whether the routers say that every application runs."""
        try:
            return requests.get(f"http://{self.address()}:{HTTP_PORT}/healthz", timeout=2).ok
        except requests.RequestException:
            return False

    def load(self) -> Load:
        return Load(HTTP_PORT, "/sleep", host=self.address())

    def settle(self, image: str, gone: frozenset[str] = frozenset()) -> None:
        """Waits until all pods are of that image, those on their way out included, and none of
        the workers, which helm does not know, is one of those."""
        for component in ("head", "router", "worker"):
            what = f"{component}s of {image} alone"
            wait_until(lambda: self.images(component) == {image}, what, WAIT_S)  # noqa: B023
        wait_until(lambda: not gone & self.pods("worker").keys(), "new workers alone", WAIT_S)
        wait_until(self.serves, "every application runs", WAIT_S)


def upgrade_and_go_back(release: Installed, base: Json, what: str) -> None:
    """From these values to changed ones and back, while requests go on, of which none is lost."""
    values = merged(base, CHANGES[what])
    image = lambda values: f"mobula:{values['image']['tag']}"  # noqa: E731
    assert release.upgrade(base).returncode == 0
    release.settle(image(base))
    before = frozenset(release.pods("worker"))
    with release.load() as clients:
        clients.wait_for_more()
        done = release.upgrade(values)
        assert done.returncode == 0, done.stdout + done.stderr
        release.settle(image(values), frozenset() if "serveConfig" in CHANGES[what] else before)
        routers = values["router"].get("replicas", 2)
        wait_until(lambda: len(release.pods("router")) == routers, "that many routers", WAIT_S)
        clients.wait_for_more()
        done = release.rollback()
        assert done.returncode == 0, done.stdout + done.stderr
        release.settle(image(base))
        clients.wait_for_more()
    failed = clients.failed()
    assert failed == [], failed[:5]
