"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback, as one user.

The binaries come from scripts/fetch_kubernetes.sh and scripts/fetch_etcd.sh. Nodes and what runs
on them are in kubelet.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support import processes
from support.config import Json, free_ports
from support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
ADMIN_TOKEN = "the-admin-of-the-tests"
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 10.0


def fetched(script: str, *args: str) -> Path:
    """What a script of scripts/ prints: where the thing lies."""
    command = [str(REPOSITORY / "scripts" / script), *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"{script} says why"
    return Path(done.stdout.strip())


class ControlPlane:
    """The processes, and calls as their administrator."""

    def __init__(self, folder: Path, mark: str, address: str | None = None) -> None:
        """With an address, real nodes reach the API there, and pods by its Service."""
        self.folder, self.mark, self.address = folder, mark, address
        self.binaries = fetched("fetch_kubernetes.sh")
        etcd_client, etcd_peer, port = free_ports(3)
        self.etcd_url = f"http://127.0.0.1:{etcd_client}"
        self.etcd_peer = f"http://127.0.0.1:{etcd_peer}"
        # By default, the chart lets heads speak to this port.
        self.port = 6443 if address else port
        self.url = f"https://{address or '127.0.0.1'}:{self.port}"
        self.certificate = folder / "certificates" / "apiserver.crt"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # ---- life ----

    def start(self) -> ControlPlane:
        self._write_files()
        etcd = str(fetched("fetch_etcd.sh"))
        self._spawn("etcd", [
            etcd, "--data-dir", str(self.folder / "etcd"),
            "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
            "--listen-peer-urls", self.etcd_peer,
            "--initial-advertise-peer-urls", self.etcd_peer,
            "--initial-cluster", f"default={self.etcd_peer}",
        ])  # fmt: skip
        self.start_apiserver()
        self.kubeconfig = self.write_kubeconfig("admin", ADMIN_TOKEN, "default")
        own = ["--kubeconfig", str(self.kubeconfig), "--leader-elect=false"]
        self._spawn("kube-controller-manager", [
            str(self.binaries / "kube-controller-manager"), *own,
            f"--controllers={self._controllers()}",
            "--service-account-private-key-file", str(self.folder / "accounts.key"),
            # Published in every namespace, for pods that speak to the API.
            "--root-ca-file", str(self.certificate),
            "--use-service-account-credentials=false", "--secure-port=0",
        ])  # fmt: skip
        self._spawn("kube-scheduler", [
            str(self.binaries / "kube-scheduler"), *own, "--secure-port=0",
        ])  # fmt: skip
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: self.get(path, missing_ok=True), "the controllers work", START_TIMEOUT_S)
        return self

    def _controllers(self) -> str:
        if self.address:
            return "*,-node-ipam-controller"
        # Nodes without machines have no kubelet that tells how they are.
        return "*,-node-lifecycle-controller,-node-ipam-controller"

    def _reached_at(self) -> list[str]:
        if self.address:
            return [f"--advertise-address={self.address}", "--bind-address=0.0.0.0"]
        local = "127.0.0.1"
        return [
            f"--advertise-address={local}",
            f"--bind-address={local}",
            "--endpoint-reconciler-type=none",
        ]

    def start_apiserver(self) -> None:
        keys = str(self.folder / "accounts.key")
        self._spawn("kube-apiserver", [
            str(self.binaries / "kube-apiserver"),
            "--etcd-servers", self.etcd_url, "--cert-dir", str(self.certificate.parent),
            "--secure-port", str(self.port), *self._reached_at(),
            "--kubelet-preferred-address-types=InternalIP",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file", keys, "--service-account-signing-key-file", keys,
            "--authorization-mode=RBAC", "--token-auth-file", str(self.folder / "tokens.csv"),
            "--audit-policy-file", str(self.folder / "audit-policy.json"),
            "--audit-log-path", str(self.folder / "audit.log"),
        ])  # fmt: skip
        wait_until(self._is_ready, "kube-apiserver is ready", START_TIMEOUT_S)

    def kill_apiserver(self) -> None:
        process = self.processes.pop("kube-apiserver")
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def stop(self) -> None:
        for pid in processes.marked(self.mark):
            processes.kill_9(pid)
        for process in self.processes.values():
            process.wait(10)

    def _is_ready(self) -> bool:
        process = self.processes["kube-apiserver"]
        assert process.poll() is None, self.log_tail("kube-apiserver")
        try:
            return self.call("GET", "/readyz").status_code == 200
        except (requests.RequestException, OSError):
            return False

    def _spawn(self, name: str, command: list[str]) -> None:
        environ = {**os.environ, processes.MARK: self.mark}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environ
            )

    def log_tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def _write_files(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (self.folder / "accounts.key").write_bytes(pem)
        (self.folder / "tokens.csv").write_text(f"{ADMIN_TOKEN},admin,admin,system:masters\n")
        # Accounts are those of heads: everybody else is an administrator.
        heads = {"level": "Metadata", "userGroups": ["system:serviceaccounts"]}
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [heads, {"level": "None"}],
        }
        (self.folder / "audit-policy.json").write_text(json.dumps(policy))

    def write_kubeconfig(self, name: str, token: str, namespace: str) -> Path:
        """A file by which a client reaches the API as somebody."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [
                {"name": "it", "context": {"cluster": "it", "user": "it", "namespace": namespace}}
            ],
            "clusters": [
                {
                    "name": "it",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.certificate),
                    },
                }
            ],
            "users": [{"name": "it", "user": {"token": token}}],
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def calls_of_head(self, namespace: str) -> list[tuple[str, float]]:
        """What the heads of a namespace asked for, such as "create pods", and when it came."""
        calls: dict[str, tuple[str, float]] = {}
        for line in (self.folder / "audit.log").read_text().splitlines():
            entry = json.loads(line)
            user = f"system:serviceaccount:{namespace}:"
            if entry["user"]["username"].startswith(user):
                came = entry["requestReceivedTimestamp"].replace("Z", "+00:00")
                at = datetime.fromisoformat(came).timestamp()
                resource = entry.get("objectRef", {}).get("resource", entry["requestURI"])
                calls[entry["auditID"]] = (f"{entry['verb']} {resource}", at)
        return sorted(calls.values(), key=lambda call: call[1])

    # ---- calls ----

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """One call to the API."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", **options.pop("headers", {})}
        data = None if body is None else json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
        return requests.request(
            method,
            f"{self.url}{path}",
            data=data,
            headers=headers,
            verify=str(self.certificate),
            timeout=options.pop("timeout", CALL_TIMEOUT_S),
            **options,
        )

    def done(self, method: str, path: str, body: Any = None, **options: Any) -> Json:
        """One call that must succeed; the answer."""
        answer = self.call(method, path, body, **options)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str, missing_ok: bool = False) -> Json:
        """An object; nothing where there is none and that is fine."""
        answer = self.call("GET", path)
        if missing_ok and answer.status_code == 404:
            return {}
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def patch(self, path: str, body: Json, kind: str = "strategic-merge-patch") -> Json:
        """Changes a part of an object."""
        return self.done("PATCH", path, body, headers={"Content-Type": f"application/{kind}+json"})
