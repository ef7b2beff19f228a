"""What connections and streams cost the router in memory.

Idle: the proportional set size (PSS) of the router's process before and with 10,000 connections
that were each answered once and are kept alive, over HTTP and, with `--tls CERT KEY`, over HTTPS.
Streams: its highest resident set size while 10 MB bodies are echoed, many in a row and 20 at a
time; of those in a row it has to stay close to what it was before and, after the first fifth of
them, flat. The router shares its process with the head (`mobula run`); the replicas are elsewhere.
Standard library only. Not here: throughput (noop.sh).
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from footprint import free_ports, pss_kib

CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))
CONNECTIONS_AT_ONCE = 200
BODY = bytes(range(256)) * (10 * 1024 * 1024 // 256)
IN_A_ROW = int(os.environ.get("IN_A_ROW", "500"))
AT_ONCE = 20
ROUNDS_AT_ONCE = 5
STREAM_KIB_MAX = 10 * 1024  # its windows, and what the allocator keeps of those before
STREAM_GROWTH_KIB_MAX = 2 * 1024  # the last quarter against the first, after the warm-up
KIB_PER_CONNECTION_MAX = 15.0
SETTLE_SECONDS = 3.0  # the allocator gives back what it will
IDLE_SECONDS = 12.0  # an idle connection is taken apart within two looks, 2 s
OTHERS_PER_SECOND = 20
START_SECONDS_MAX = 60.0

CONFIG = """\
http_options: {{host: 127.0.0.1, port: {http}, keep_alive_timeout_s: 3600{tls}}}
grpc_options: {{port: {grpc}}}
applications:
  - {{name: noop, route_prefix: /, import_path: "mobula.apps:noop"}}
  - {{name: echo, route_prefix: /echo, import_path: "mobula.apps:echo"}}
"""


class Server:
    """One `mobula run`."""

    def __init__(self, binary: str, folder: str, pair: tuple[str, str] | None) -> None:
        self.http, grpc, admin = free_ports(3)
        tls = f", ssl_certfile: {pair[0]}, ssl_keyfile: {pair[1]}" if pair else ""
        self.tls = ssl._create_unverified_context() if pair else None
        config = Path(folder, "serve.yaml")
        config.write_text(CONFIG.format(http=self.http, grpc=grpc, tls=tls))
        command = [binary, "run", str(config), "--num-cpus", "8", "--workers", "1"]
        command += ["--admin-addr", f"127.0.0.1:{admin}", "--state-dir", f"{folder}/state"]
        self.log = Path(folder, "log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS_MAX
        while b"is serving" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"mobula did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.http, ssl=self.tls, limit=2**20)

    def pss(self) -> int:
        return pss_kib(self.process.pid)

    def highest_rss_kib(self) -> int:
        """Since the last time it was forgotten."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
        raise RuntimeError("no VmHWM")

    def forget_highest_rss(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


async def answered_once(server: Server) -> asyncio.StreamWriter:
    reader, writer = await server.connect()
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    await reader.readexactly(20)
    return writer


async def idle(server: Server, title: str) -> bool:
    # The first requests make what all others use.
    for _ in range(200):
        (await answered_once(server)).close()
    await asyncio.sleep(SETTLE_SECONDS)
    before = server.pss()
    kept: list[asyncio.StreamWriter] = []
    while len(kept) < CONNECTIONS:
        some = min(CONNECTIONS_AT_ONCE, CONNECTIONS - len(kept))
        kept += await asyncio.gather(*(answered_once(server) for _ in range(some)))
    at_once = server.pss()
    # The allocator gives memory back as it is used; a router that nobody uses at all is rare.
    for _ in range(int(IDLE_SECONDS * OTHERS_PER_SECOND)):
        (await answered_once(server)).close()
        await asyncio.sleep(1 / OTHERS_PER_SECOND)
    with_all = server.pss()
    each = (with_all - before) / CONNECTIONS
    print(f"{title}: {CONNECTIONS} keep-alive connections, each answered once")
    print(f"  PSS        {before} KiB without, {at_once} when the last was answered,")
    print(f"             {with_all} KiB after {IDLE_SECONDS:g} s with a few requests of others")
    print(f"  each       {each:.2f} KiB (limit {KIB_PER_CONNECTION_MAX:g})", flush=True)
    for writer in kept:
        writer.close()
    return each <= KIB_PER_CONNECTION_MAX


async def echo(server: Server) -> None:
    """One body up and down at the same time."""
    reader, writer = await server.connect()
    head = f"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\n\r\n"

    async def send() -> None:
        writer.write(head.encode())
        for at in range(0, len(BODY), 65536):
            writer.write(BODY[at : at + 65536])
            await writer.drain()

    async def receive() -> None:
        await reader.readuntil(b"\r\n\r\n")
        size = 0
        while chunk := int(await reader.readline(), 16):
            piece = await reader.readexactly(chunk + 2)
            assert piece[:-2] == BODY[size : size + chunk], f"garbled at {size}"
            size += chunk
        assert size == len(BODY), size

    await asyncio.gather(send(), receive())
    writer.close()


async def highest_rss(server: Server, at_once: int, rounds: int) -> list[int]:
    """In KiB, of each round."""
    highest = []
    for _ in range(rounds):
        server.forget_highest_rss()
        await asyncio.gather(*(echo(server) for _ in range(at_once)))
        highest.append(server.highest_rss_kib())
    print(f"  {at_once} at a time, {rounds} rounds")
    print(f"    highest RSS  first {highest[0]} KiB, last {highest[-1]}, most {max(highest)}")
    print(f"    raw          {' '.join(map(str, highest))}", flush=True)
    return highest


async def streams(server: Server) -> list[str]:
    """What is wrong with the memory."""
    await echo(server)
    await asyncio.sleep(SETTLE_SECONDS)
    server.forget_highest_rss()
    before = server.highest_rss_kib()
    print(f"10 MB echo streams: RSS {before} KiB before")
    highest = await highest_rss(server, 1, IN_A_ROW)
    warm = highest[IN_A_ROW // 5 :]
    quarter = max(1, len(warm) // 4)
    grown = round(statistics.mean(warm[-quarter:]) - statistics.mean(warm[:quarter]))
    most = max(highest) - before
    print(f"    grown        {grown} KiB (limit {STREAM_GROWTH_KIB_MAX}), the last quarter")
    print("                 against the first after the warm-up")
    print(f"    one stream   {most} KiB at most (limit {STREAM_KIB_MAX})")
    await highest_rss(server, AT_ONCE, ROUNDS_AT_ONCE)
    await asyncio.sleep(SETTLE_SECONDS)
    print(f"  PSS after    {server.pss()} KiB")
    wrong = []
    if grown > STREAM_GROWTH_KIB_MAX:
        wrong.append("the memory of 10 MB echoes in a row is not flat")
    if most > STREAM_KIB_MAX:
        wrong.append("a 10 MB echo takes more than the limit")
    return wrong


def measure(binary: str, title: str, pair: tuple[str, str] | None) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, folder, pair)
        try:
            wrong = asyncio.run(streams(server))
            if not asyncio.run(idle(server, title)):
                wrong.append("a connection takes more than the limit")
            return [f"{title}: {text}" for text in wrong]
        finally:
            server.stop()


def main() -> None:
    binary, *rest = sys.argv[1:]
    wrong = measure(binary, "HTTP", None)
    if rest[:1] == ["--tls"]:
        wrong += measure(binary, "HTTPS", (rest[1], rest[2]))
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
