"""A Mobula cluster in a namespace of its own: one head or several with their Role and no more rights,
a router, and the pods that the leading head makes."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml
from support import processes
from support.config import Json, app, deployment, document, free_ports
from support.load import Load
from support.server import APPLICATIONS, binary
from support.waiting import wait_until

from .control_plane import ControlPlane
from .kubelet import Deletion, Kubelet

CLUSTER = "test"
HEAD_RULES = [
    {
        "apiGroups": [""],
        "resources": ["pods"],
        "verbs": ["create", "delete", "get", "list", "watch"],
    },
    {
        "apiGroups": ["policy"],
        "resources": ["poddisruptionbudgets"],
        "verbs": ["create", "delete", "get", "list", "patch"],
    },
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [f"{CLUSTER}-cluster"],
        "verbs": ["get", "patch"],
    },
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
]
WAIT_S = 60.0


def group(name: str = "small", **fields: Any) -> Json:
    """A worker group of pods with two CPUs."""
    return {"name": name, "max": 4, "idle_timeout_s": 600, "resources": {"cpus": 2}, **fields}


def sleep(replicas: int, name: str = "sleep") -> Json:
    """Answers after 50 ms, so that requests are always under way."""
    one = deployment("Sleep", num_cpus=1, num_replicas=replicas, user_config={"seconds": 0.05})
    return app(name, "sleep", f"/{name}", one)


def template(
    version: str = "1",
    *,
    image: str = "none",
    command: list[str] | None = None,
    resources: Json | None = None,
    **spec: Any,
) -> Json:
    """What pods are made from; House adds where the heads are."""
    worker: Json = {"name": "worker", "image": image, "resources": resources or {}}
    if command is not None:
        worker["command"] = command
    spec = {"containers": [worker], "terminationGracePeriodSeconds": 60, **spec}
    return {"metadata": {"annotations": {"version": version}}, "spec": spec}


class Head:
    """One head and its ports."""

    def __init__(self, number: int) -> None:
        self.name = f"head-{number}"
        self.admin_port, self.cluster_port = free_ports(2)
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.process: subprocess.Popen[bytes] | None = None
        # Where in its log this process begins.
        self.log_begins = 0

    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.admin}/readyz", timeout=2).ok
        except requests.RequestException:
            return False


class House:
    """One cluster."""

    def __init__(
        self, plane: ControlPlane, kubelet: Kubelet, namespace: str, folder: Path, heads: int = 1
    ) -> None:
        self.plane, self.kubelet, self.namespace, self.folder = plane, kubelet, namespace, folder
        self.mark = namespace
        self.deleted_by_hand: set[str] = set()
        self.heads = [Head(number) for number in range(heads)]
        [self.http_port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.pods_path = f"/api/v1/namespaces/{namespace}/pods"
        self._prepare_namespace()

    # ---- life ----

    def _prepare_namespace(self) -> None:
        self._post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        core = f"/api/v1/namespaces/{self.namespace}"
        self._post(f"{core}/configmaps", {"metadata": {"name": f"{CLUSTER}-cluster"}})
        self._post(f"{core}/serviceaccounts", {"metadata": {"name": "head"}})
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        self._post(f"{rbac}/roles", {"metadata": {"name": "head"}, "rules": HEAD_RULES})
        self._post(f"{rbac}/rolebindings", {
            "metadata": {"name": "head"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "head",
            },
            "subjects": [{
                "kind": "ServiceAccount", "name": "head", "namespace": self.namespace,
            }],
        })  # fmt: skip
        # Beyond the Role: cordons are seen before anything is evicted.
        everywhere = "/apis/rbac.authorization.k8s.io/v1"
        name = f"{self.namespace}-nodes"
        rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}
        self._post(f"{everywhere}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
        self._post(f"{everywhere}/clusterrolebindings", {
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name,
            },
            "subjects": [{
                "kind": "ServiceAccount", "name": "head", "namespace": self.namespace,
            }],
        })  # fmt: skip
        asked = {"spec": {"expirationSeconds": 3600}}
        answer = self._post(f"{core}/serviceaccounts/head/token", asked)
        token = answer["status"]["token"]
        self.kubeconfig = self.plane.write_kubeconfig(self.namespace, token, self.namespace)
        # Pods are refused until their namespace has this account.
        account = f"{core}/serviceaccounts/default"
        wait_until(lambda: self.plane.get(account, missing_ok=True), "the default account", WAIT_S)

    def _post(self, path: str, body: Json) -> Json:
        return self.plane.done("POST", path, body)

    def start(self, *groups: Json) -> House:
        """The heads and the router."""
        for head in self.heads:
            self.start_head(*groups, head=head)
        join = ",".join(f"127.0.0.1:{head.cluster_port}" for head in self.heads)
        self._spawn("router", [
            binary(), "router", "--join", join, "--http-addr", f"127.0.0.1:{self.http_port}",
        ])  # fmt: skip
        return self

    def start_head(self, *groups: Json, version: str = "1", head: Head | None = None) -> None:
        """One head, with templates of that version where a group brings none of its own."""
        head = head or self.heads[0]
        path = self.folder / "groups.yaml"
        whole = [self._whole(group, version) for group in groups]
        path.write_text(yaml.safe_dump({"workerGroups": whole}))
        if len(self.heads) == 1:
            state = ["--state-dir", str(self.folder / "state")]
        else:
            state = ["--etcd", self.plane.etcd_url, "--cluster", self.namespace]
            state += ["--lease-seconds", "2"]
        log = self.folder / f"{head.name}.log"
        head.log_begins = log.stat().st_size if log.exists() else 0
        head.process = self._spawn(head.name, [
            binary(), "head", "--admin-addr", f"127.0.0.1:{head.admin_port}",
            "--cluster-addr", f"127.0.0.1:{head.cluster_port}", *state,
            "--kubernetes-groups", str(path), "--kubernetes-cluster", CLUSTER,
        ])  # fmt: skip

        def ready() -> bool:
            assert head.is_up(), self.log_tail(head.name)
            return head.is_ready()

        wait_until(ready, "the head is ready", WAIT_S)

    def stop_head(self, how: signal.Signals = signal.SIGTERM, head: Head | None = None) -> None:
        head = head or self.heads[0]
        assert head.process is not None
        head.process.send_signal(how)
        head.process.wait(30)

    def leader(self) -> Head:
        """The head whose log says that it leads."""

        def leads(head: Head) -> bool:
            log = (self.folder / f"{head.name}.log").read_bytes()[head.log_begins :]
            return head.is_up() and b"this head leads now" in log

        return wait_until(
            lambda: next((head for head in self.heads if leads(head)), None), "a leader", WAIT_S
        )

    @property
    def admin(self) -> str:
        """The API of a head that is up; the others send on to the one that leads."""
        return next(head.admin for head in self.heads if head.is_up())

    def stop(self) -> None:
        """Ends head and router; the pods go with their owner."""
        self.plane.call(
            "DELETE", f"/api/v1/namespaces/{self.namespace}/configmaps/{CLUSTER}-cluster"
        )
        for pid in processes.marked(self.mark):
            processes.kill_9(pid)

    def _whole(self, group: Json, version: str) -> Json:
        """The group with a template whose worker finds the heads."""
        made = copy.deepcopy(group.get("template") or template(version))
        worker = made["spec"]["containers"][0]
        join = ",".join(f"127.0.0.1:{head.cluster_port}" for head in self.heads)
        if "command" not in worker:
            worker["command"] = [binary(), "--log", "info"]
            worker["args"] = ["worker", "--join", join]
        return {**group, "template": made}

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            processes.MARK: self.mark,
            "KUBECONFIG": str(self.kubeconfig),
            "MOBULA_LOG": "info",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ)

    def log_says(self, words: str) -> bool:
        """Whether one of the heads logged it."""
        return any(words in self.log_tail(head.name) for head in self.heads)

    def _is_routed(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.http_port}/healthz", timeout=2).ok
        except requests.RequestException:
            return False

    def log_tail(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace")[-8000:] if log.exists() else ""

    # ---- Mobula ----

    def deploy(self, *applications: Json) -> None:
        """Sends a config that must be accepted."""
        config = document(self.http_port, 0, list(applications))
        del config["grpc_options"]
        answer = requests.put(f"{self.admin}{APPLICATIONS}", json=config, timeout=10)
        assert answer.status_code == 200, answer.text

    def application(self, name: str) -> Json:
        document = requests.get(f"{self.admin}{APPLICATIONS}", timeout=10).json()
        return document["applications"].get(name, {})

    def replicas(self, name: str, deployment: str) -> int:
        """Replicas that run."""
        found = self.application(name).get("deployments", {}).get(deployment, {})
        return sum(replica["state"] == "RUNNING" for replica in found.get("replicas", []))

    def message(self, name: str, deployment: str) -> str:
        """What a deployment says that it waits for."""
        return self.application(name).get("deployments", {}).get(deployment, {}).get("message", "")

    def wait_running(self, name: str, timeout_s: float = WAIT_S) -> None:
        """Waits until an application runs and the router, which joins by itself, has it."""
        wait_until(
            lambda: self.application(name).get("status") == "RUNNING", f"{name} RUNNING", timeout_s
        )
        wait_until(self._is_routed, "the router serves", WAIT_S)

    # ---- Kubernetes ----

    def pods(self) -> dict[str, Json]:
        """The cluster's pods by name, those on their way out included."""
        listed = self.plane.get(f"{self.pods_path}?labelSelector=mobula.dev/cluster={CLUSTER}")
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    def wait_pods(self, count: int) -> dict[str, Json]:
        """Waits for that many pods."""
        wait_until(lambda: len(self.pods()) == count, f"{count} pods", WAIT_S)
        return self.pods()

    def made(self, version: str) -> set[str]:
        """The pods that were ever made of a template and got a node, by uid."""
        mine = (pod for pod in self.kubelet.pods.values() if pod.namespace == self.namespace)
        of = (pod for pod in mine if pod.pod["metadata"]["annotations"]["version"] == version)
        return {pod.uid for pod in of}

    def restarts(self, pod: str) -> int:
        """How often the worker of a pod was started again."""
        status = self.pods()[pod]["status"]
        return int(status["containerStatuses"][0]["restartCount"])

    @contextmanager
    def more_important_pod(self, cpu: str) -> Iterator[None]:
        """A pod of somebody else that gets its room before any other."""
        classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
        name = f"{self.namespace}-first"
        self._post(classes, {"metadata": {"name": name}, "value": 1000})
        other = {"name": "other", "image": "none", "resources": {"requests": {"cpu": cpu}}}
        spec = {"containers": [other], "priorityClassName": name}
        self._post(self.pods_path, {"metadata": {"name": "other"}, "spec": spec})
        try:
            yield
        finally:
            self.delete_pod("other", gracePeriodSeconds=0)
            self.plane.done("DELETE", f"{classes}/{name}")

    def budget(self, group: str) -> int | None:
        """minAvailable of a group's budget."""
        path = f"/apis/policy/v1/namespaces/{self.namespace}/poddisruptionbudgets/{CLUSTER}-{group}"
        return self.plane.get(path, missing_ok=True).get("spec", {}).get("minAvailable")

    def events(self) -> list[str]:
        """What the head said in events."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        return [event.get("note", "") for event in self.plane.get(path)["items"]]

    def deleted_while_busy(self) -> list[Deletion]:
        """Pods that the head deleted while requests were under way in them."""
        mine = [it for it in self.kubelet.deletions if it.namespace == self.namespace]
        by_head = [it for it in mine if not it.disrupted and it.name not in self.deleted_by_hand]
        return [it for it in by_head if it.ongoing > 0]

    def orphans(self) -> set[str]:
        """Processes whose pod does not exist, and pods that the owner would not take along."""
        pods = self.pods().values()
        running = self.kubelet.running(self.namespace)
        uids = {pod["metadata"]["uid"] for pod in pods}
        owned = [pod for pod in pods if pod["metadata"].get("ownerReferences")]
        return (running - uids) | (uids - {pod["metadata"]["uid"] for pod in owned})

    def lost_nothing(self, load: Load) -> None:
        """What must be true after everything: no request failed, no pod is left over, and none
        was deleted while it worked."""
        assert load.failed() == []
        assert self.deleted_while_busy() == []
        wait_until(lambda: not self.orphans(), "no orphan", WAIT_S)

    def delete_pod(self, pod: str, **options: Any) -> None:
        """As `kubectl delete pod`."""
        self.deleted_by_hand.add(pod)
        self.plane.done("DELETE", f"{self.pods_path}/{pod}", options)

    def set_quota(self, pods: int) -> None:
        """Pods that the namespace may have; in force when this returns."""
        quotas = f"/api/v1/namespaces/{self.namespace}/resourcequotas"
        hard = {"pods": str(pods)}
        if self.plane.get(f"{quotas}/q", missing_ok=True):
            self.plane.patch(f"{quotas}/q", {"spec": {"hard": hard}}, "merge-patch")
        else:
            self._post(quotas, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
        in_force = lambda: self.plane.get(f"{quotas}/q").get("status", {}).get("hard")  # noqa: E731
        wait_until(lambda: in_force() == hard, "the quota is in force", WAIT_S)

    def enforce(self, level: str) -> None:
        """What the namespace asks of the security of pods."""
        labels = {"pod-security.kubernetes.io/enforce": level}
        path = f"/api/v1/namespaces/{self.namespace}"
        self.plane.patch(path, {"metadata": {"labels": labels}})

    def evict(self, pod: str) -> int:
        """Asks for an eviction; the status of the answer."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        return self.plane.call("POST", f"{self.pods_path}/{pod}/eviction", body).status_code
