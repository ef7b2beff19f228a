"""Services as listeners: each connection to one goes to one of its pods that are ready."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import suppress

import requests
from support.config import Json

from . import addresses
from .image_kubelet import ImageKubelet

LOOK_S = 0.1
CHUNK_BYTES = 65536


class ServiceProxy:
    """What kube-proxy does, in one thread. Where a Service has no pod that is ready, connections
    end at once."""

    def __init__(self, kubelet: ImageKubelet) -> None:
        self.kubelet = kubelet
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._run(),))
        self.stopping = asyncio.Event()
        self.listeners: dict[tuple[str, str, int], asyncio.Server] = {}
        self.turn = itertools.count()

    def start(self) -> ServiceProxy:
        self.thread.start()
        return self

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(10)

    async def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                listed = await asyncio.to_thread(self.kubelet.plane.get, "/api/v1/services")
                await self._follow(listed["items"])
            except (requests.RequestException, OSError, AssertionError):
                pass  # The API server is away: what listens stays.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), LOOK_S)
        for listener in self.listeners.values():
            listener.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _follow(self, services: list[Json]) -> None:
        wanted = {}
        for service in services:
            meta, spec = service["metadata"], service["spec"]
            if not addresses.is_headless(service) and spec.get("selector"):
                for port in spec["ports"]:
                    key = (meta["namespace"], meta["name"], port["port"])
                    wanted[key] = (spec["selector"], port["targetPort"])
        for key in self.listeners.keys() - wanted.keys():
            self.listeners.pop(key).close()
        for key in wanted.keys() - self.listeners.keys():
            self.listeners[key] = await self._listen(key, *wanted[key])

    async def _listen(
        self, key: tuple[str, str, int], selector: dict[str, str], target: str | int
    ) -> asyncio.Server:
        namespace, name, port = key

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            pods = self.kubelet.serving(namespace, selector)
            try:
                if pods:
                    pod = pods[next(self.turn) % len(pods)]
                    ports = pod.pod["spec"]["containers"][0]["ports"]
                    number = {one["name"]: one["containerPort"] for one in ports}.get(
                        target, target
                    )
                    there = await asyncio.open_connection(pod.address, number)
                    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
            except OSError:
                pass
            finally:
                writer.close()

        address = addresses.of_service(namespace, name)
        return await asyncio.start_server(connected, address, port)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, its end included."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
