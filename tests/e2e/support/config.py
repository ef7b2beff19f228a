"""Builds Serve configs, as Python objects that are dumped to YAML or sent as JSON."""

from __future__ import annotations

import itertools
import os
import socket
from typing import Any

Json = dict[str, Any]

PORT_FIRST, PORT_LAST = 10_000, 32_000
# Processes that run side by side begin at different places.
PORTS = (
    PORT_FIRST + (os.getpid() * 37 + n) % (PORT_LAST - PORT_FIRST) for n in itertools.count()
)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listened on a moment ago, none given twice.

    They lie below the range from which the system takes ports of clients: one of that range may be
    a client's by the time the server comes.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = next(PORTS)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    return ports


def deployment(name: str, num_cpus: float = 0.1, **fields: Any) -> Json:
    """One entry of `deployments`; small, so that many fit on any machine."""
    return {"name": name, "ray_actor_options": {"num_cpus": num_cpus}, **fields}


def app(name: str, kind: str, route_prefix: str | None, *deployments: Json, **fields: Any) -> Json:
    """One application of `mobula.apps:<kind>`."""
    entry: Json = {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": f"mobula.apps:{kind}",
        **fields,
    }
    if deployments:
        entry["deployments"] = list(deployments)
    return entry


def noop(name: str = "noop", route_prefix: str = "/noop", **fields: Any) -> Json:
    """The application that does nothing."""
    return app(name, "noop", route_prefix, deployment("Noop", **fields))


def sleep(name: str, route_prefix: str, seconds: float, **fields: Any) -> Json:
    """The application that answers after a while."""
    return app(
        name, "sleep", route_prefix, deployment("Sleep", user_config={"seconds": seconds}, **fields)
    )


def document(http_port: int, grpc_port: int, applications: list[Json], **http_options: Any) -> Json:
    """A whole config on loopback."""
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": http_port, **http_options},
        "grpc_options": {"port": grpc_port},
        "applications": applications,
    }
