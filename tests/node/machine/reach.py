"""What a pod reaches of others, as a pod of a role or of none."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.installed import NAME
from cluster.release import WAIT_S, Release
from support.config import Json
from support.waiting import wait_until

from .node import PAUSE

# What is enforced for a new pod is in force within this many tries, a second apart.
TRIES = 20
CONNECT_S = 3
# Never fulfilled: no Service sends requests to a pod that is not ready.
GATE = "mobula.dev/never"


@dataclass(frozen=True)
class Port:
    """A port of a role."""

    component: str
    port: int


def address(release: Release, component: str) -> str:
    """Of a pod of the role that runs."""
    pods = release.pods(component).values()
    ips = [pod["status"]["podIP"] for pod in pods if pod["status"]["phase"] == "Running"]
    return min(ips)


def reached(
    release: Release, source: str | None, ports: list[Port], allowed: set[Port]
) -> set[Port]:
    """The ports that a pod with a role's labels connects to, once those that are allowed are open
    to it and the others closed, or that did not come."""
    connects = {
        port: f"/busybox nc -w {CONNECT_S} {address(release, port.component)} {port.port} "
        "-e /busybox true 2>/dev/null"
        for port in ports
    }
    lines = [
        f"n=0; until {'' if port in allowed else '! '}{connect} || [ $n -eq {TRIES} ]; "
        "do n=$((n + 1)); /busybox sleep 1; done"
        for port, connect in connects.items()
    ]
    lines += [
        f"if {connect}; then echo {ports.index(port)}; fi" for port, connect in connects.items()
    ]
    name = f"reach-{source or 'stranger'}"
    pod = f"{release.core}/pods/{name}"
    release.plane.done("POST", f"{release.core}/pods", made(name, source, "\n".join(lines)))
    wait_until(lambda: release.plane.get(pod)["status"]["phase"] == "Succeeded", name, 2 * WAIT_S)
    done = release.kubectl("logs", name)
    assert done.returncode == 0, done.stderr
    release.plane.done("DELETE", pod, {"gracePeriodSeconds": 0})
    wait_until(lambda: not release.plane.get(pod, missing_ok=True), f"{name} is gone", WAIT_S)
    return {ports[int(line)] for line in done.stdout.split()}


def made(name: str, source: str | None, script: str) -> Json:
    labels = {
        "app.kubernetes.io/name": "mobula",
        "app.kubernetes.io/instance": "r",
        "app.kubernetes.io/component": source,
    }
    container: Json = {
        "name": "reach",
        "image": PAUSE,
        "imagePullPolicy": "Never",
        "command": ["/busybox", "sh", "-c", script],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "metadata": {"name": name, "labels": labels if source else {"of": NAME}},
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "readinessGates": [{"conditionType": GATE}],
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }
