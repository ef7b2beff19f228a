"""Nodes without machines on which whole pods run: all containers, from their images.

Beside what kubelet.py's nodes do: init containers, volumes, environment from Secrets, readiness,
the preStop sleep, an address for each pod, and images that cannot be pulled. A liveness probe is
not asked; the tests on a real node have it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import requests
from support.config import Json

from . import addresses
from .container import Container, Place
from .control_plane import ControlPlane
from .image import Image
from .kubelet import Kubelet
from .volumes import Volumes

LOOK_S = 0.02
RESTART_PAUSE_S = 0.5


class ImagePod:
    """One pod and the thread that looks after it."""

    def __init__(self, kubelet: ImageKubelet, pod: Json) -> None:
        self.kubelet, self.pod = kubelet, pod
        meta = pod["metadata"]
        self.name, self.uid, self.labels = meta["name"], meta["uid"], meta.get("labels", {})
        self.namespace = meta["namespace"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.address = addresses.of_pod(self.namespace, self.name)
        self.folder: Path = kubelet.folder / f"{self.name}-{self.uid[:8]}"
        self.told_to_end = threading.Event()
        self.grace_s = 0.0
        self.ready = False
        self.containers: list[Container] = []
        threading.Thread(target=self._live, daemon=True).start()

    def end(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.told_to_end.set()

    def serves(self) -> bool:
        """Whether a Service may send connections here."""
        return self.ready and not self.told_to_end.is_set()

    def _live(self) -> None:
        try:
            self._run()
        finally:
            until = time.monotonic() + self.grace_s
            stops = [
                threading.Thread(target=container.stop, args=(until,))
                for container in self.containers
                if container.process is not None
            ]
            for stop in stops:
                stop.start()
            for stop in stops:
                stop.join()
            body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
            self.kubelet.insist("DELETE", self.path, body)

    def _run(self) -> None:
        spec = self.pod["spec"]
        every = spec.get("initContainers", []) + spec["containers"]
        missing = [item for item in every if item["image"] not in self.kubelet.images]
        if missing:
            self._say("Pending", waiting=missing)
            self.told_to_end.wait()
            return
        place = self._place()
        if place is None:
            return
        for item in spec.get("initContainers", []):
            self._run_one_after_the_other(Container(place, item, self._image(item)))
        if self.told_to_end.is_set():
            return
        self.containers = [Container(place, item, self._image(item)) for item in spec["containers"]]
        for container in self.containers:
            container.start()
        self._watch(spec.get("restartPolicy", "Always"))

    def _image(self, item: Json) -> Image:
        return self.kubelet.images[item["image"]]

    def _place(self) -> Place | None:
        """Waits for what the volumes are made of, as a kubelet does; nothing if told to end."""
        plane = self.kubelet.plane
        while not self.told_to_end.is_set():
            try:
                self.folder.mkdir(exist_ok=True)
                volumes = Volumes(plane, self.pod, self.folder / f"volumes-{time.monotonic_ns()}")
                return Place(plane, self.pod, volumes.make(), self.folder, self.kubelet.mark)
            except (requests.RequestException, AssertionError):
                self.told_to_end.wait(RESTART_PAUSE_S)
        return None

    def _run_one_after_the_other(self, container: Container) -> None:
        """An init container, until it has ended well."""
        self.containers = [container]
        while not self.told_to_end.is_set():
            container.start()
            while container.exit_code() is None and not self.told_to_end.wait(LOOK_S):
                pass
            if container.exit_code() == 0:
                return
            self.told_to_end.wait(RESTART_PAUSE_S)

    def _watch(self, policy: str) -> None:
        """Until the pod shall end; says what changes, and starts again what ended."""
        again: dict[str, float] = {}
        said: tuple[str, bool] | None = None
        while not self.told_to_end.is_set():
            codes = {container.name: container.exit_code() for container in self.containers}
            restart = [
                container
                for container in self.containers
                if policy == "Always" and codes[container.name] is not None
                or policy == "OnFailure" and codes[container.name] not in (None, 0)
            ]  # fmt: skip
            ended = None not in codes.values() and not restart
            well = not any(codes.values())
            phase = ("Succeeded" if well else "Failed") if ended else "Running"
            self.ready = not ended and all(
                container.ready or codes[container.name] == 0 for container in self.containers
            )
            if said != (phase, self.ready):
                said = (phase, self.ready)
                self._say(phase)
            if ended:
                self.told_to_end.wait()
            for container in restart:
                due = again.setdefault(container.name, time.monotonic() + RESTART_PAUSE_S)
                if time.monotonic() >= due:
                    del again[container.name]
                    container.start()
            self.told_to_end.wait(LOOK_S)

    def _say(self, phase: str, waiting: list[Json] | None = None) -> None:
        is_ready = "True" if self.ready else "False"
        status: Json = {
            "phase": phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [
                {"type": kind, "status": is_ready} for kind in ("Ready", "ContainersReady")
            ],
        }
        if waiting:
            status["containerStatuses"] = [
                {
                    "name": item["name"],
                    "image": item["image"],
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"waiting": {"reason": "ErrImagePull"}},
                }
                for item in waiting
            ]
        body = {"metadata": {"uid": self.uid}, "status": status}
        self.kubelet.insist("PATCH", f"{self.path}/status", body)


class ImageKubelet(Kubelet):
    """All nodes; `images` are those that can be pulled."""

    def __init__(
        self, plane: ControlPlane, nodes: list[str], mark: str, images: dict[str, Image]
    ) -> None:
        super().__init__(plane, nodes, mark)
        self.images = images
        self.live: dict[str, ImagePod] = {}

    def stop(self) -> None:
        self.stopping.set()
        for pod in list(self.live.values()):
            pod.end(0)

    def log_tails(self) -> str:
        tails = []
        for log in sorted(self.folder.glob("*/*.log")):
            name = log.relative_to(self.folder)
            tails.append(f"--- {name}\n{log.read_text(errors='replace')[-1500:]}")
        return "\n".join(tails)

    def serving(self, namespace: str, selector: dict[str, str] | None) -> list[ImagePod]:
        """The pods of a Service that take connections."""
        pods = [pod for pod in list(self.live.values()) if pod.namespace == namespace]
        return [pod for pod in pods if addresses.selects(selector, pod.labels) and pod.serves()]

    def _see(self, pod: Json) -> None:
        meta = pod["metadata"]
        if pod["spec"].get("nodeName") not in self.nodes:
            return
        mine = self.live.get(meta["uid"])
        if mine is None:
            mine = self.live[meta["uid"]] = ImagePod(self, pod)
        if "deletionTimestamp" in meta:
            mine.end(meta.get("deletionGracePeriodSeconds", 30))
