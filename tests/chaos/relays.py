"""The network between roles: TCP relays on loopback that can stop forwarding.

A relay that is cut keeps its connections open and forwards nothing, as a network does that loses
every packet; new connections are taken and get no answer. Once it is mended, what was kept back
arrives.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES_MAX = 64 * 1024
READY_SECONDS_MAX = 5.0


class Relays:
    """All relays of a run, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._open: dict[tuple[str, str], asyncio.Event] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def add(self, source: str, port: int, target: str, target_port: int) -> None:
        """What `source` sends to `port` goes to `target`, which listens on `target_port`."""

        async def listen() -> None:
            is_open = self._open.setdefault((source, target), asyncio.Event())
            is_open.set()

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await _forward(reader, writer, target_port, is_open)

            await asyncio.start_server(accept, "127.0.0.1", port)

        self._run(listen())

    def cut(self, source: str) -> None:
        """Nothing that the role sends arrives, and nothing that is sent to it."""
        self._set(source, False)

    def mend(self, source: str) -> None:
        self._set(source, True)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(READY_SECONDS_MAX)

    def _set(self, source: str, is_open: bool) -> None:
        async def change() -> None:
            for (of, _), event in self._open.items():
                if of == source:
                    event.set() if is_open else event.clear()

        self._run(change())

    def _run(self, task: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(task, self._loop).result(READY_SECONDS_MAX)


async def _forward(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    is_open: asyncio.Event,
) -> None:
    await is_open.wait()
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    both = [_copy(reader, far_writer, is_open), _copy(far_reader, writer, is_open)]
    # A connection is closed as a whole, with the first half that ends.
    tasks = [asyncio.ensure_future(one) for one in both]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for end in (writer, far_writer):
        end.close()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES_MAX):
            await is_open.wait()
            writer.write(data)
            await writer.drain()
        # Not even the end of a connection gets through.
        await is_open.wait()
    except OSError:
        pass
