"""Nodes without machines: a pod's container `worker` becomes a real process on this one.

What a kubelet does that the head and its workers notice: phases and conditions, the downward API,
restarts, containers that wait, SIGTERM and SIGKILL, and the object's end. All pods have this
machine's loopback address, and each a port of its own for its metrics. What a pod was doing when it
was deleted is kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from support import processes
from support.config import Json, free_ports

from .control_plane import ControlPlane

NODES = ["node-one", "node-two"]
POD_IP = "127.0.0.1"
RESTART_PAUSE_S = 0.5
WATCH_PAUSE_S = 0.2
# An image that no registry has.
MISSING_IMAGE = "missing"
ONGOING = "ray_serve_replica_processing_queries"


@dataclass(frozen=True)
class Deletion:
    """What a pod was doing when its deletion was seen."""

    namespace: str
    name: str
    # Evicted, preempted: somebody else decided, and it finishes what it has.
    disrupted: bool
    ongoing: float


class Pod:
    """One pod's process and the thread that looks after it."""

    def __init__(self, kubelet: Kubelet, pod: Json) -> None:
        self.kubelet, self.pod = kubelet, pod
        meta = pod["metadata"]
        self.name, self.uid, self.namespace = meta["name"], meta["uid"], meta["namespace"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.told_to_end = threading.Event()
        # The process has ended, or the pod shall.
        self.news = threading.Event()
        self.ready_at = 0.0
        self.grace_s = 0.0
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        [self.port] = free_ports(1)
        threading.Thread(target=self._live, daemon=True).start()

    def end(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.told_to_end.set()
        self.news.set()

    def ongoing(self) -> float:
        """Requests that its worker is working on; 0 when there is none any more."""
        try:
            text = requests.get(f"http://{POD_IP}:{self.port}/metrics", timeout=2).text
        except requests.RequestException:
            return 0.0
        lines = [line for line in text.splitlines() if line.startswith(ONGOING)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def _live(self) -> None:
        if self._container()["image"] == MISSING_IMAGE:
            waiting = {"reason": "ErrImagePull", "message": f"{MISSING_IMAGE}: not found"}
            self._say("Pending", False, {"waiting": waiting})
            self.told_to_end.wait()
            self._remove()
            return
        restarts = self.pod["spec"].get("restartPolicy") != "Never"
        code: int | None = None
        while not self.told_to_end.is_set():
            self.process = self._start()
            self._say("Running", True, {"running": {}})
            self.ready_at = time.time()
            code = self._watch(self.process)
            if code == 0 or not restarts:
                break
            self.restarts += 1
            waiting = {"reason": "CrashLoopBackOff", "message": f"exit code {code}"}
            self._say("Running", False, {"waiting": waiting})
            self.told_to_end.wait(RESTART_PAUSE_S)
        if not self.told_to_end.is_set():
            ended = {"terminated": {"exitCode": code or 0}}
            self._say("Succeeded" if code == 0 else "Failed", False, ended)
            self.told_to_end.wait()
        self._remove()

    def _container(self) -> Json:
        [container] = [c for c in self.pod["spec"]["containers"] if c["name"] == "worker"]
        return container

    def _start(self) -> subprocess.Popen[bytes]:
        container = self._container()
        command = [*container.get("command", []), *container.get("args", [])]
        if "worker" in command:
            command += ["--admin-addr", f"{POD_IP}:{self.port}"]
        environ = {**os.environ, processes.MARK: self.kubelet.mark, **self._env(container)}
        with (self.kubelet.folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ)

    def _env(self, container: Json) -> dict[str, str]:
        facts = {
            "metadata.uid": self.uid,
            "metadata.name": self.name,
            "status.podIP": POD_IP,
            "spec.nodeName": self.pod["spec"]["nodeName"],
        }
        return {
            entry["name"]: entry["value"]
            if "value" in entry
            else facts[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for entry in container.get("env", [])
        }

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        """Until the process has ended, by itself or because the pod shall."""

        def wait() -> None:
            process.wait()
            self.news.set()

        ended = threading.Thread(target=wait, daemon=True)
        ended.start()
        while not self.told_to_end.is_set():
            self.news.wait()
            self.news.clear()
            if process.poll() is not None:
                return process.returncode
        process.send_signal(signal.SIGTERM)
        ended.join(self.grace_s)
        if ended.is_alive():
            process.kill()
            ended.join()
        return process.returncode

    def _say(self, phase: str, ready: bool, state: Json) -> None:
        container = self._container()
        worker = {
            "name": "worker", "image": container["image"], "imageID": "", "ready": ready,
            "restartCount": self.restarts, "state": state,
        }  # fmt: skip
        is_ready = "True" if ready else "False"
        self.kubelet.insist("PATCH", f"{self.path}/status", {
            "metadata": {"uid": self.uid},
            "status": {
                "phase": phase,
                "containerStatuses": [worker],
                "podIP": POD_IP,
                "podIPs": [{"ip": POD_IP}],
                "conditions": [
                    {"type": kind, "status": is_ready} for kind in ("Ready", "ContainersReady")
                ],
            },
        })  # fmt: skip

    def _remove(self) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        self.kubelet.insist("DELETE", self.path, body)


class Kubelet:
    """All nodes."""

    def __init__(self, plane: ControlPlane, nodes: list[str], mark: str) -> None:
        self.plane, self.nodes, self.mark = plane, nodes, mark
        self.folder: Path = plane.folder / "pods"
        self.folder.mkdir()
        self.pods: dict[str, Pod] = {}
        self.deletions: list[Deletion] = []
        self.stopping = threading.Event()

    def start(self) -> Kubelet:
        for name in self.nodes:
            self.plane.done("POST", "/api/v1/nodes", {"metadata": {"name": name}})
            room = {"cpu": "64", "memory": "64Gi", "pods": "200"}
            ready = {"type": "Ready", "status": "True"}
            status = {"capacity": room, "allocatable": room, "conditions": [ready]}
            self.plane.patch(f"/api/v1/nodes/{name}/status", {"status": status})
            # Every new node is tainted until somebody says that it is ready.
            self.plane.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, "merge-patch")
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        for pod in list(self.pods.values()):
            pod.end(0)

    def kill_9(self, name: str) -> bool:
        """Ends what runs in a pod, as the kernel does when memory is short; False: nothing does."""
        [pod] = [pod for pod in self.pods.values() if pod.name == name]
        process = pod.process
        if process is None or process.poll() is not None:
            return False
        process.kill()
        return True

    def running(self, namespace: str) -> set[str]:
        """The uids of the pods that have a process."""
        pods = [pod for pod in self.pods.values() if pod.namespace == namespace]
        alive = [pod for pod in pods if pod.process is not None and pod.process.poll() is None]
        return {pod.uid for pod in alive}

    def log_tails(self) -> str:
        """The ends of what the pods printed."""
        tails = []
        for log in sorted(self.folder.glob("*.log")):
            tails.append(f"--- {log.name}\n{log.read_text(errors='replace')[-800:]}")
        return "\n".join(tails)

    def insist(self, method: str, path: str, body: Json) -> None:
        """A call that is repeated while the API server is away."""
        kind = "strategic-merge-patch+json" if method == "PATCH" else "json"
        headers = {"Content-Type": f"application/{kind}"}
        while not self.stopping.is_set():
            try:
                answer = self.plane.call(method, path, body, headers=headers)
                # Gone or another pod of that name: nothing is left to say.
                if answer.ok or answer.status_code in (404, 409, 422):
                    return
            except (requests.RequestException, OSError):
                pass
            self.stopping.wait(WATCH_PAUSE_S)

    def _follow(self) -> None:
        """Lists and watches; a break starts over, and what is known already stays as it is."""
        while not self.stopping.is_set():
            try:
                listed = self.plane.get("/api/v1/pods")
                for pod in listed["items"]:
                    self._see(pod)
                version = listed["metadata"]["resourceVersion"]
                path = f"/api/v1/pods?watch=1&resourceVersion={version}"
                with self.plane.call("GET", path, stream=True, timeout=(5, 300)) as stream:
                    for line in stream.iter_lines(chunk_size=None):
                        event = json.loads(line)
                        if event["type"] in ("ADDED", "MODIFIED"):
                            self._see(event["object"])
                        elif event["type"] == "DELETED":
                            self._miss(event["object"])
            except (requests.RequestException, OSError, AssertionError):
                self.stopping.wait(WATCH_PAUSE_S)

    def _see(self, pod: Json) -> None:
        meta = pod["metadata"]
        if pod["spec"].get("nodeName") not in self.nodes:
            return
        # Only workers are run: other pods are of tests that look at what was made of a chart.
        if not any(container["name"] == "worker" for container in pod["spec"]["containers"]):
            return
        mine = self.pods.get(meta["uid"])
        if mine is None:
            mine = self.pods[meta["uid"]] = Pod(self, pod)
        if "deletionTimestamp" in meta and not mine.told_to_end.is_set():
            conditions = pod.get("status", {}).get("conditions", [])
            disrupted = any(it["type"] == "DisruptionTarget" for it in conditions)
            self.deletions.append(
                Deletion(meta["namespace"], meta["name"], disrupted, mine.ongoing())
            )
            mine.end(meta.get("deletionGracePeriodSeconds", 30))

    def _miss(self, pod: Json) -> None:
        """The object is gone: by us at a pod's end, or by force before it."""
        mine = self.pods.get(pod["metadata"]["uid"])
        if mine is not None and not mine.told_to_end.is_set():
            mine.end(0)
