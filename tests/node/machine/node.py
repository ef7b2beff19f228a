"""containerd, kubelet, kube-proxy and what enforces NetworkPolicies, inside the machine that run.sh
makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from cluster.control_plane import ControlPlane, fetched
from cluster.image import Image
from support import processes
from support.config import Json
from support.waiting import wait_until

from . import oci

NAME = "node"
ADDRESS = "10.88.0.1"  # of the bridge that run.sh makes
PODS = "10.88.0.0/16"
SERVICES = "10.96.0.0/16"
START_TIMEOUT_S = 120.0
# Made and removed by run.sh.
CGROUP = os.environ.get("MOBULA_NODE_CGROUP", "")
DISK = Path(os.environ.get("MOBULA_NODE_DISK", ""))
PAUSE = "docker.io/library/pause:1"

# An older runc on control groups of version 1, without the right to lower the kernel's oom score:
# what machines that build this project have. Each line is there because nothing works without it.
CONTAINERD = """
version = 2
root = "{disk}/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{disk}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{binaries}/cni"
conf_dir = "{folder}/cni"
"""
NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": PODS}]]},
        }
    ],
}
NETWORK["plugins"][0]["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]  # type: ignore[index]


def kubelet_config(folder: Path) -> Json:
    nothing = {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": ["none"],
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd.sock",
        "evictionHard": nothing,
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": str(folder / "volume-plugins"),
    }


class Node:
    """One node with the images that it was given."""

    def __init__(self, plane: ControlPlane, folder: Path, mark: str) -> None:
        self.plane, self.folder, self.mark = plane, folder, mark
        self.binaries = fetched("fetch_node.sh")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> Node:
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "pods.conflist").write_text(json.dumps(NETWORK))
        config = CONTAINERD.format(
            folder=self.folder, disk=DISK, binaries=self.binaries, pause=PAUSE
        )
        (self.folder / "containerd.toml").write_text(config)
        self._spawn("containerd", "--config", str(self.folder / "containerd.toml"))
        version = lambda: self.ctr("version").returncode == 0  # noqa: E731
        wait_until(version, "containerd answers", START_TIMEOUT_S)
        self.add(PAUSE, self._pause())
        self._start_kubelet()
        self._spawn(
            "kube-proxy", "--kubeconfig", str(self.plane.kubeconfig), "--proxy-mode=nftables",
            f"--hostname-override={NAME}", f"--cluster-cidr={PODS}",
            # What is one for all of the kernel stays as it is.
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        )  # fmt: skip
        self._spawn(
            "policies", "--kubeconfig", str(self.plane.kubeconfig),
            f"--hostname-override={NAME}", f"--service-cluster-ip-range={SERVICES}",
        )  # fmt: skip
        return self

    def _start_kubelet(self) -> None:
        file = self.folder / "kubelet.json"
        file.write_text(json.dumps(kubelet_config(self.folder)))
        self._spawn(
            "kubelet", "--config", str(file), "--kubeconfig", str(self.plane.kubeconfig),
            "--root-dir", "/run/kubelet", "--cert-dir", str(self.folder / "pki"),
            f"--hostname-override={NAME}", f"--node-ip={ADDRESS}",
        )  # fmt: skip
        wait_until(self._is_ready, "the node is ready", START_TIMEOUT_S)

    def _is_ready(self) -> bool:
        assert self.processes["kubelet"].poll() is None, self.log_tail("kubelet")
        node = self.plane.get(f"/api/v1/nodes/{NAME}", missing_ok=True)
        conditions = node.get("status", {}).get("conditions", [])
        return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)

    def add(self, name: str, image: Image, user: str = oci.USER) -> None:
        """An image that can be run, and that nobody has to pull."""
        archive = oci.write(image, name, DISK / "image.tar", user)
        done = self.ctr("--namespace", "k8s.io", "images", "import", str(archive))
        assert done.returncode == 0, done.stderr
        archive.unlink()

    def also(self, name: str, known: str) -> None:
        """A second name of an image."""
        done = self.ctr("--namespace", "k8s.io", "images", "tag", known, name)
        assert done.returncode == 0, done.stderr

    def _pause(self) -> Image:
        """What holds a pod's namespaces while its containers come and go."""
        root = DISK / "pause"
        root.mkdir()
        shutil.copy(self.binaries / "busybox", root / "busybox")
        return Image(root, ["/busybox", "sleep", "2147483647"], {})

    def ctr(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.binaries / "ctr"), "--address", "/run/containerd.sock", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _spawn(self, name: str, *args: str) -> None:
        path = f"{self.binaries}:{os.environ['PATH']}"
        environ = {**os.environ, processes.MARK: self.mark, "PATH": path}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(self.binaries / name), *args],
                stdout=log, stderr=subprocess.STDOUT, env=environ,
            )  # fmt: skip

    def log_tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-6000:]
