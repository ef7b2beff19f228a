"""One container of a pod as a process: its image's root, its volumes, its probes."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import requests
from support import processes
from support.config import Json

from . import addresses
from .control_plane import REPOSITORY, ControlPlane
from .image import Image

IN_ROOTFS = REPOSITORY / "tests" / "chart" / "in_rootfs.sh"


class Place:
    """Where the containers of one pod run: what they share."""

    def __init__(
        self, plane: ControlPlane, pod: Json, volumes: dict[str, Path], folder: Path, mark: str
    ) -> None:
        self.plane, self.pod, self.volumes = plane, pod, volumes
        self.folder, self.mark = folder, mark
        meta = pod["metadata"]
        self.core = f"/api/v1/namespaces/{meta['namespace']}"
        self.address = addresses.of_pod(meta["namespace"], meta["name"])
        self.hosts = folder / "hosts"
        sets = plane.get(f"/apis/apps/v1/namespaces/{meta['namespace']}/statefulsets")["items"]
        services = plane.get(f"{self.core}/services")["items"]
        self.hosts.write_text(addresses.hosts(meta["namespace"], services, sets))

    def field(self, path: str) -> str:
        known = {"status.podIP": self.address, "spec.nodeName": self.pod["spec"]["nodeName"]}
        return known.get(path) or self.pod["metadata"][path.removeprefix("metadata.")]

    def value(self, source: Json) -> str:
        if field := source.get("fieldRef"):
            return self.field(field["fieldPath"])
        if ref := source.get("secretKeyRef"):
            data = self.plane.get(f"{self.core}/secrets/{ref['name']}")["data"]
            return base64.b64decode(data[ref["key"]]).decode()
        ref = source["configMapKeyRef"]
        return self.plane.get(f"{self.core}/configmaps/{ref['name']}")["data"][ref["key"]]


class Container:
    """A container, started as often as its pod wants."""

    def __init__(self, place: Place, spec: Json, image: Image) -> None:
        self.place, self.spec, self.image = place, spec, image
        self.name = spec["name"]
        self.ready = False
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {
            **self.image.env,
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.place.plane.port),
        }
        for entry in self.spec.get("env", []):
            value = entry["value"] if "value" in entry else self.place.value(entry["valueFrom"])
            env[entry["name"]] = value
        command = [*self.spec.get("command", self.image.entrypoint), *self.spec.get("args", [])]
        expanded = [self._expand(part, env) for part in command]
        # What is run inside is looked for in the image, what leads there on this machine.
        env["PATH"] = f"{env.get('PATH', '/usr/local/bin')}:{os.environ['PATH']}"
        env[processes.MARK] = self.place.mark
        log = self.place.folder / f"{self.name}.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(IN_ROOTFS), str(self.image.root), *self._mounts(), *expanded],
                stdout=out, stderr=subprocess.STDOUT, env=env,
            )  # fmt: skip
        threading.Thread(target=self._probe, args=(self.process,), daemon=True).start()

    def _expand(self, text: str, env: dict[str, str]) -> str:
        filled = re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], text)
        return addresses.own(filled, self.place.address)

    def _mounts(self) -> list[str]:
        parts = ["--bind", str(self.place.hosts), "/etc/hosts:ro"]
        for mount in self.spec.get("volumeMounts", []):
            end = ":ro" if mount.get("readOnly") else ""
            source = str(self.place.volumes[mount["name"]])
            parts += ["--bind", source, f"{mount['mountPath']}{end}"]
        return parts

    def _probe(self, process: subprocess.Popen[bytes]) -> None:
        """Readiness, after the start; a container without probes is ready when it runs."""
        probe = self.spec.get("readinessProbe")
        if probe is None:
            self.ready = True
            return
        started = False
        while process.poll() is None:
            if not started:
                started = self._answers(self.spec["startupProbe"])
            if started:
                self.ready = self._answers(probe)
            # A second at most, for the pace of the tests; the handlers are the chart's.
            time.sleep(min(probe.get("periodSeconds", 10), 1) if started else 0.1)
        self.ready = False

    def _answers(self, probe: Json) -> bool:
        get = probe["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self.spec["ports"]}
        url = f"http://{self.place.address}:{ports.get(get['port'], get['port'])}{get['path']}"
        try:
            return requests.get(url, timeout=probe.get("timeoutSeconds", 1)).ok
        except requests.RequestException:
            return False

    def exit_code(self) -> int | None:
        """Nothing while it runs."""
        assert self.process is not None
        return self.process.poll()

    def wait(self, until: float) -> bool:
        """Whether it ends by then."""
        assert self.process is not None
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, until: float) -> None:
        """As a kubelet does it: the hook, SIGTERM, and SIGKILL when the time is up."""
        hook = self.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        if self.wait(min(until, time.monotonic() + hook.get("seconds", 0))):
            return
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        if not self.wait(until):
            self.process.kill()
            self.process.wait()
