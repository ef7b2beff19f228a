"""A Mobula cluster in a namespace of its own: the head with its Role and no more rights, a
router, and the pods that the head makes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import requests
import yaml
from support import processes
from support.config import Json, document, free_ports
from support.server import APPLICATIONS, binary
from support.waiting import wait_until

from .control_plane import ControlPlane

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
        "verbs": ["get"],
    },
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
]
WAIT_S = 60.0


def group(name: str = "small", **fields: Any) -> Json:
    """A worker group of pods with two CPUs."""
    return {"name": name, "max": 4, "idle_timeout_s": 600, "resources": {"cpus": 2}, **fields}


class House:
    """One cluster."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, mark: str) -> None:
        self.plane, self.namespace, self.folder, self.mark = plane, namespace, folder, mark
        self.http_port, self.admin_port, self.cluster_port = free_ports(3)
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.pods_path = f"/api/v1/namespaces/{namespace}/pods"
        self.head: subprocess.Popen[bytes] | None = None
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
        """The head and the router."""
        self.start_head(*groups)
        self._spawn("router", [
            binary(), "router", "--join", f"127.0.0.1:{self.cluster_port}",
            "--http-addr", f"127.0.0.1:{self.http_port}",
        ])  # fmt: skip
        return self

    def start_head(self, *groups: Json, version: str = "1") -> None:
        """The head alone, with templates of that version."""
        groups_file = self.folder / "groups.yaml"
        whole = [{"template": self._template(version), **group} for group in groups]
        groups_file.write_text(yaml.safe_dump({"workerGroups": whole}))
        self.head = self._spawn("head", [
            binary(), "head", "--admin-addr", f"127.0.0.1:{self.admin_port}",
            "--cluster-addr", f"127.0.0.1:{self.cluster_port}",
            "--state-dir", str(self.folder / "state"),
            "--kubernetes-groups", str(groups_file), "--kubernetes-cluster", CLUSTER,
        ])  # fmt: skip
        wait_until(self._is_ready, "the head is ready", WAIT_S)

    def stop_head(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.head is not None
        self.head.send_signal(how)
        self.head.wait(30)

    def stop(self) -> None:
        """Ends head and router; the pods go with their owner."""
        self.plane.call(
            "DELETE", f"/api/v1/namespaces/{self.namespace}/configmaps/{CLUSTER}-cluster"
        )
        for pid in processes.marked(self.mark):
            processes.kill_9(pid)

    def _template(self, version: str) -> Json:
        command = [binary(), "--log", "info"]
        args = ["worker", "--join", f"127.0.0.1:{self.cluster_port}"]
        worker = {"name": "worker", "image": "none", "command": command, "args": args}
        spec = {"containers": [worker], "terminationGracePeriodSeconds": 60}
        return {"metadata": {"annotations": {"version": version}}, "spec": spec}

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            processes.MARK: self.mark,
            "KUBECONFIG": str(self.kubeconfig),
            "MOBULA_LOG": "info",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environ)

    def _is_ready(self) -> bool:
        assert self.head is not None
        assert self.head.poll() is None, self.log_tail("head")
        try:
            return requests.get(f"{self.admin}/readyz", timeout=2).ok
        except requests.RequestException:
            return False

    def _is_routed(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.http_port}/healthz", timeout=2).ok
        except requests.RequestException:
            return False

    def log_tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-8000:]

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

    def message(self, name: str, deployment: str) -> str:
        """What a deployment says that it waits for."""
        return self.application(name).get("deployments", {}).get(deployment, {}).get("message", "")

    def wait_running(self, name: str) -> None:
        """Waits until an application runs and the router, which joins by itself, has it."""
        wait_until(
            lambda: self.application(name).get("status") == "RUNNING", f"{name} RUNNING", WAIT_S
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

    def budget(self, group: str) -> int | None:
        """minAvailable of a group's budget."""
        path = f"/apis/policy/v1/namespaces/{self.namespace}/poddisruptionbudgets/{CLUSTER}-{group}"
        return self.plane.get(path, missing_ok=True).get("spec", {}).get("minAvailable")

    def evict(self, pod: str) -> int:
        """Asks for an eviction; the status of the answer."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        return self.plane.call("POST", f"{self.pods_path}/{pod}/eviction", body).status_code
