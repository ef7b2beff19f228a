"""As much of a Kubernetes API as `helm template --dry-run=server` reads: what kinds there are, and
single objects by name."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KINDS = {
    "v1": {
        "configmaps": "ConfigMap",
        "pods": "Pod",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
    "batch/v1": {"jobs": "Job"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "rbac.authorization.k8s.io/v1": {"rolebindings": "RoleBinding", "roles": "Role"},
}


def path_of(item: dict[str, Any]) -> str:
    version, kind = item["apiVersion"], item["kind"]
    [plural] = [name for name, of in KINDS[version].items() if of == kind]
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    meta = item["metadata"]
    return f"{root}/namespaces/{meta['namespace']}/{plural}/{meta['name']}"


def owned(item: dict[str, Any]) -> dict[str, Any]:
    """The object as Helm leaves it: marked as its release's."""
    item = copy.deepcopy(item)
    annotations = item["metadata"].setdefault("annotations", {})
    annotations["meta.helm.sh/release-name"] = "r"
    annotations["meta.helm.sh/release-namespace"] = "ns"
    return item


def discovery(kinds: dict[str, dict[str, str]]) -> dict[str, Any]:
    groups = []
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
    }
    for version, names in kinds.items():
        listed = [
            {"name": name, "kind": kind, "namespaced": True, "verbs": ["get"], "singularName": ""}
            for name, kind in names.items()
        ]
        path = "/api/v1" if version == "v1" else f"/apis/{version}"
        answers[path] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": listed,
        }
        if version != "v1":
            entry = {"groupVersion": version, "version": version.partition("/")[2]}
            name = version.partition("/")[0]
            groups.append({"name": name, "versions": [entry], "preferredVersion": entry})
    answers["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return answers


@contextmanager
def cluster(
    folder: Path, *items: dict[str, Any], kinds: dict[str, dict[str, str]] | None = None
) -> Iterator[dict[str, str]]:
    """A cluster with these objects, and kinds beyond Kubernetes' own; gives the environment that
    points helm to it."""
    answers = discovery(KINDS | (kinds or {})) | {path_of(item): owned(item) for item in items}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, the name is the library's
            path = self.path.partition("?")[0]
            found = answers.get(path)
            missing = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    config = folder / "kubeconfig"
    url = f"http://127.0.0.1:{server.server_address[1]}"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {}}],
                "current-context": "c",
            }
        )
    )
    try:
        yield {"KUBECONFIG": str(config), "HOME": str(folder)}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
