"""Who has which address where nodes are no machines.

Every pod and every Service has an address of its own in 127.0.0.0/8, which Linux lets anybody use
without asking, made of its name: nothing has to be configured, kept or given back, and a host file
written when a container starts stays true. What a real cluster would do otherwise (a pod that
comes back with another address) is for the tests on a real node.
"""

from __future__ import annotations

import hashlib
import socket
from typing import Any

from support.config import Json


def _address(first: int, *names: str) -> str:
    """One of 2^20: two names that get the same one are not to be expected."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return f"127.{first + digest[0] % 16}.{digest[1]}.{1 + digest[2] % 254}"


def of_pod(namespace: str, name: str) -> str:
    return _address(64, namespace, name)


def of_service(namespace: str, name: str) -> str:
    return _address(96, namespace, name)


# What pods of the chart listen on.
PORTS = (2379, 2380, 2381, 6380, 6381, 8000, 8265, 9000, 9102)


def check_ports() -> None:
    """Says which port is taken by a process that listens on all addresses, also those of pods."""
    for port in PORTS:
        try:
            socket.create_server((of_pod("check", "ports"), port)).close()
        except OSError as error:
            raise AssertionError(f"pods need port {port}: {error}") from error


def is_headless(service: Json) -> bool:
    return service["spec"].get("clusterIP") == "None"


def hosts(namespace: str, services: list[Json], sets: list[Json]) -> str:
    """/etc/hosts for a pod: what the cluster's DNS would answer for names of its namespace."""
    lines = ["127.0.0.1 localhost"]

    def add(address: str, name: str) -> None:
        lines.append(f"{address} {name} {name}.{namespace} {name}.{namespace}.svc")

    for service in services:
        if not is_headless(service):
            name = service["metadata"]["name"]
            add(of_service(namespace, name), name)
    for item in sets:
        for ordinal in range(item["spec"]["replicas"]):
            pod = f"{item['metadata']['name']}-{ordinal}"
            add(of_pod(namespace, pod), f"{pod}.{item['spec']['serviceName']}")
    return "\n".join(lines) + "\n"


def own(text: str, address: str) -> str:
    """An argument as a pod with its own network would take it: all addresses are its one."""
    return text.replace("0.0.0.0:", f"{address}:")


def selects(selector: dict[str, str] | None, labels: dict[str, Any]) -> bool:
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())
