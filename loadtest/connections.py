"""What connections and streams cost the router in memory.

Idle: the proportional set size (PSS) of the router's process before and with 10,000 connections
that were each answered once and are kept alive, over HTTP and, with `--tls CERT KEY`, over HTTPS.
Streams: its highest resident set size while 10 MB bodies are echoed, many in a row and 20 at a
time. The router shares its process with the head (`mobula run`); the replicas are elsewhere.
Standard library only. Not here: throughput (noop.sh).
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from footprint import free_ports, pss_kib

CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))
CONNECTIONS_AT_ONCE = 200
BODY = bytes(range(256)) * (10 * 1024 * 1024 // 256)
IN_A_ROW = int(os.environ.get("IN_A_ROW", "100"))
AT_ONCE = 20
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


async def streams(server: Server) -> None:
    await echo(server)
    await asyncio.sleep(SETTLE_SECONDS)
    before = server.pss()
    print(f"10 MB echo streams: PSS {before} KiB before")
    for at_once, rounds in ((1, IN_A_ROW), (AT_ONCE, max(1, IN_A_ROW // AT_ONCE))):
        highest = []
        for _ in range(rounds):
            server.forget_highest_rss()
            await asyncio.gather(*(echo(server) for _ in range(at_once)))
            highest.append(server.highest_rss_kib())
        print(f"  {at_once} at a time, {rounds} rounds")
        print(f"    highest RSS  first {highest[0]} KiB, last {highest[-1]}, most {max(highest)}")
        print(f"    raw          {' '.join(map(str, highest))}", flush=True)
    await asyncio.sleep(SETTLE_SECONDS)
    print(f"  PSS after    {server.pss()} KiB")


def measure(binary: str, title: str, pair: tuple[str, str] | None) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, folder, pair)
        try:
            asyncio.run(streams(server))
            return asyncio.run(idle(server, title))
        finally:
            server.stop()


def main() -> None:
    binary, *rest = sys.argv[1:]
    ok = measure(binary, "HTTP", None)
    if rest[:1] == ["--tls"]:
        ok &= measure(binary, "HTTPS", (rest[1], rest[2]))
    sys.exit(0 if ok else "a connection takes more than the limit")


if __name__ == "__main__":
    main()
