"""What a GPU gains: the same model on the processor and on a GPU, in several settings.

For each setting one `mobula run`; then one connection with one text at a time (latency), then many
connections with 32 texts each (throughput), with short and with long texts. `nvidia-smi` is asked
meanwhile. Standard library only; the clients run on the same machine.

    gpu.py SETTING...        see SETTINGS; default: all
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from footprint import answers_200, free_ports

SECONDS = float(os.environ.get("SECONDS_EACH", "6"))
START_SECONDS_MAX = 120.0
CLIENT_PROCESSES, CONNECTIONS_EACH = 4, 16
ROWS = 32
WORDS = "deep learning is a kind of machine learning that uses networks with many layers".split()
SHORT = " ".join(WORDS[:14] * 2)  # about 30 tokens
LONG = " ".join(WORDS * 17)  # about 240 tokens

CPUS = os.cpu_count() or 1


def gpu(num_cpus: int = 1, num_gpus: float = 1, replicas: int = 1, **args: Any) -> dict[str, Any]:
    return {"num_cpus": num_cpus, "num_gpus": num_gpus, "replicas": replicas, "args": args}


SETTINGS: dict[str, dict[str, Any]] = {
    "processor, all cores": gpu(CPUS, 0),
    "gpu": gpu(),
    "gpu, 512 tokens": gpu(max_batch_tokens=512, max_batch_size=32),
    "gpu, 2048 tokens": gpu(max_batch_tokens=2048, max_batch_size=64),
    "gpu, 16384 tokens": gpu(max_batch_tokens=16384, max_batch_size=256),
    "gpu, 2 sessions": gpu(2),
    "gpu, 4 sessions": gpu(4),
    "gpu, 2 replicas of 0.5": gpu(num_gpus=0.5, replicas=2),
}
MODELS = {
    "embedder": ("Embedder", "/v1/embeddings"),
    "classifier": ("Classifier", "/infer"),
}


def body(kind: str, texts: list[str]) -> bytes:
    if kind == "embedder":
        return json.dumps({"input": texts, "encoding_format": "base64"}).encode()
    return json.dumps({"inputs": texts}).encode()


def drive(port: int, path: str, sent: bytes, seconds: float) -> list[float]:
    """One connection, one request after the other; the time of each in ms."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.request("POST", path, sent, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text[:300]!r}")
        times.append((time.perf_counter() - began) * 1e3)
    return times


def drive_many(port: int, path: str, sent: bytes, seconds: float) -> list[float]:
    times: list[float] = []
    run = lambda: times.extend(drive(port, path, sent, seconds))  # noqa: E731
    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS_EACH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def watch_gpu(stop: threading.Event, seen: list[tuple[float, float]]) -> None:
    """Utilisation in percent and memory in MiB, as often as the tool answers."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    while not stop.is_set():
        text = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
        if text:
            used, memory = text[0].split(",")
            seen.append((float(used), float(memory)))
        stop.wait(0.3)


def percentile(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1] if len(times) > 1 else times[0]


def measure(kind: str, port: int) -> str:
    path = MODELS[kind][1]
    drive(port, path, body(kind, [SHORT]), 1)
    single = drive(port, path, body(kind, [SHORT]), SECONDS / 2)
    shown = f"1 text of {len(SHORT.split())} words: p50 {percentile(single, 50):7.2f} ms, p99 {percentile(single, 99):7.2f} ms"
    for name, text in (("short", SHORT), ("long", LONG)):
        sent = body(kind, [text] * ROWS)
        stop, seen = threading.Event(), []
        watcher = threading.Thread(target=watch_gpu, args=(stop, seen))
        with multiprocessing.Pool(CLIENT_PROCESSES) as pool:
            jobs = [(port, path, sent, SECONDS)] * CLIENT_PROCESSES
            pool.starmap(drive_many, [(port, path, sent, 1.0)] * CLIENT_PROCESSES)
            watcher.start()
            began = time.monotonic()
            times = [ms for each in pool.starmap(drive_many, jobs) for ms in each]
            took = time.monotonic() - began
        stop.set()
        watcher.join()
        busy = statistics.mean(used for used, _ in seen) if seen else 0.0
        memory = max((memory for _, memory in seen), default=0.0)
        shown += (
            f" | {name}: {len(times) * ROWS / took:8.0f} texts/s, p50 {percentile(times, 50):6.1f} ms,"
            f" gpu {busy:3.0f} %, {memory:5.0f} MiB"
        )
    return shown


def run(kind: str, setting: dict[str, Any]) -> str:
    http_port, grpc_port, admin_port = free_ports(3)
    options = {key: setting[key] for key in ("num_cpus", "num_gpus")}
    config = {
        "http_options": {"host": "127.0.0.1", "port": http_port},
        "grpc_options": {"port": grpc_port},
        "applications": [
            {
                "name": kind,
                "route_prefix": "/",
                "import_path": f"mobula.apps:{kind}",
                "args": setting["args"],
                "deployments": [
                    {
                        "name": MODELS[kind][0],
                        "num_replicas": setting["replicas"],
                        "ray_actor_options": options,
                        "max_ongoing_requests": 64,
                    }
                ],
            }
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "serve.json"
        path.write_text(json.dumps(config))
        command = [os.environ["MOBULA_BIN"], "run", str(path), "--num-cpus", str(CPUS)]
        command += ["--num-gpus", "1" if setting["num_gpus"] else "0"]
        command += ["--admin-addr", f"127.0.0.1:{admin_port}", "--state-dir", f"{folder}/state"]
        with (Path(folder) / "log").open("w+b") as log:
            began = time.monotonic()
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                while not answers_200(http_port, "/healthz"):
                    if process.poll() is not None or time.monotonic() - began > START_SECONDS_MAX:
                        raise SystemExit(f"it does not serve:\n{Path(log.name).read_text()[-3000:]}")
                    time.sleep(0.05)
                started = time.monotonic() - began
                return f"start {started:5.2f} s | {measure(kind, http_port)}"
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def main() -> None:
    kind = os.environ.get("KIND", "embedder")
    for name in sys.argv[1:] or SETTINGS:
        print(f"{kind:10} {name:24} {run(kind, SETTINGS[name])}", flush=True)


if __name__ == "__main__":
    main()
