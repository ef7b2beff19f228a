"""The cluster's DNS: A records of Services and of the pods behind those without an address."""

from __future__ import annotations

import socket
import struct
import threading

import requests
from cluster.control_plane import ControlPlane

DOMAIN = ".svc.cluster.local"
PACKET_BYTES_MAX = 512
TTL_S = 1
NAME_ERROR = 3
SERVER_FAILURE = 2
TYPE_A = 1


class Names:
    """Answers over UDP on one address; each question is asked of the API server, so that no
    answer is older than it."""

    def __init__(self, plane: ControlPlane, address: str) -> None:
        self.plane = plane
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))

    def start(self) -> Names:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        while True:
            packet, client = self.socket.recvfrom(PACKET_BYTES_MAX)
            threading.Thread(target=self._answer, args=(packet, client), daemon=True).start()

    def _answer(self, packet: bytes, client: tuple[str, int]) -> None:
        name, end = _question(packet)
        (kind,) = struct.unpack(">H", packet[end : end + 2])
        code, found = 0, list[str]()
        try:
            found = self._addresses(name)
            code = 0 if found else NAME_ERROR
        except (requests.RequestException, AssertionError):
            code = SERVER_FAILURE
        if kind != TYPE_A:
            found = []
        head = packet[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        records = [
            struct.pack(">HHHIH", 0xC00C, TYPE_A, 1, TTL_S, 4) + socket.inet_aton(address)
            for address in found
        ]
        self.socket.sendto(head + packet[12 : end + 4] + b"".join(records), client)

    def _addresses(self, name: str) -> list[str]:
        if not name.endswith(DOMAIN):
            return []
        *host, service, namespace = name.removesuffix(DOMAIN).split(".")
        core = f"/api/v1/namespaces/{namespace}"
        found = self.plane.get(f"{core}/services/{service}", missing_ok=True)
        if not found:
            return []
        if found["spec"]["clusterIP"] != "None":
            return [found["spec"]["clusterIP"]]
        slices = self.plane.get(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io/service-name={service}"
        )
        return [
            address
            for item in slices["items"]
            for endpoint in item["endpoints"] or []
            if endpoint["conditions"].get("ready")
            and (not host or endpoint.get("hostname") == host[0])
            for address in endpoint["addresses"]
        ]


def _question(packet: bytes) -> tuple[str, int]:
    """The name that is asked for, in lower case, and where it ends."""
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode().lower())
        at += 1 + packet[at]
    return ".".join(labels), at + 1
