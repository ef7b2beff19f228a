"""A release of the chart, by helm and kubectl as people use them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from support.config import Json
from support.waiting import wait_until

from .control_plane import REPOSITORY, ControlPlane, fetched

CHART = REPOSITORY / "deploy" / "k8s" / "chart"
HELM_TIMEOUT = "240s"
WAIT_S = 120.0
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}

Done = subprocess.CompletedProcess[str]


class Release:
    """One release in a namespace of its own, which takes only pods of the restricted profile."""

    def __init__(self, plane: ControlPlane, name: str, namespace: str, folder: Path) -> None:
        self.plane, self.name, self.namespace, self.folder = plane, name, namespace, folder
        self.core = f"/api/v1/namespaces/{namespace}"
        plane.done(
            "POST",
            "/api/v1/namespaces",
            {"metadata": {"name": namespace, "labels": RESTRICTED}},
        )
        account = f"{self.core}/serviceaccounts/default"
        wait_until(lambda: plane.get(account, missing_ok=True), "the default account", WAIT_S)

    # ---- commands ----

    def helm(self, *args: str) -> Done:
        config = ("--kubeconfig", str(self.plane.kubeconfig), "--namespace", self.namespace)
        command = [str(fetched("fetch_client.sh", "helm")), *args, *config]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def kubectl(self, *args: str) -> Done:
        config = ("--kubeconfig", str(self.plane.kubeconfig), "--namespace", self.namespace)
        command = [str(fetched("fetch_client.sh", "kubectl")), *config, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def install(self, values: Json) -> Done:
        """Installs, or upgrades; waits for what helm waits for."""
        return self.upgrade(values, "--install")

    def upgrade(self, values: Json, *args: str) -> Done:
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        wait = ("--wait", "--wait-for-jobs", "--timeout", HELM_TIMEOUT)
        done = self.helm("upgrade", self.name, str(CHART), "--values", str(file), *wait, *args)
        # Of the restricted profile, and of fields that the API server does not know.
        assert "violate" not in done.stderr and "unknown field" not in done.stderr, done.stderr
        return done

    def rollback(self) -> Done:
        return self.helm("rollback", self.name, "--wait", "--timeout", HELM_TIMEOUT)

    def revision(self) -> Json:
        """The newest one in helm's history."""
        return json.loads(self.helm("history", self.name, "-o", "json").stdout)[-1]

    def described(self) -> str:
        """The pods and their events, for whoever reads a failure."""
        return self.kubectl("describe", "pods").stdout[-20000:]

    # ---- what is there ----

    def listed(self, kind: str, selector: str = "") -> list[Json]:
        done = self.kubectl("get", kind, "--selector", selector, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["items"]

    def pods(self, component: str) -> dict[str, Json]:
        """Pods of a role by uid, those on their way out included."""
        found = self.listed("pods", f"app.kubernetes.io/component={component}")
        return {pod["metadata"]["uid"]: pod for pod in found}

    def images(self, component: str) -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods(component).values()}

    def ready(self, name: str) -> bool:
        """Whether a pod is ready."""
        conditions = self.plane.get(f"{self.core}/pods/{name}")["status"]["conditions"]
        return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)

    def can_i(self, verb: str, resource: str, account: str | None = None, *args: str) -> bool:
        """Whether an account of this namespace, or else the administrator, may do that."""
        user = [f"--as=system:serviceaccount:{self.namespace}:{account}"] if account else []
        done = self.kubectl("auth", "can-i", verb, *resource.split(), *user, *args)
        assert done.stdout.strip() in ("yes", "no"), done.stderr
        return done.stdout.strip() == "yes"


def merged(base: Json, change: Json) -> Json:
    """Values as helm merges them."""
    result: dict[str, Any] = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
