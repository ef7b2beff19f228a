"""The built-in applications on a real GPU: `make test-gpu`. Without one, every test fails and says
so; nothing here is part of `make test`.

Needed: NVIDIA's driver, CUDA 13 and cuDNN 9 where the loader finds them (LD_LIBRARY_PATH), and the
runtime with CUDA (`mobula models fetch --runtime cuda`, or ORT_DYLIB_PATH).
"""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.config import Json, app, deployment
from support.exposition import samples
from support.server import Server

ALIKE = 1e-3
CRASHES_LOOKED_FOR = 10  # each end is another order of threads and destructors
FAILS_SECONDS_MAX = 120.0  # three starts
TEXTS = [
    "What is deep learning?",
    "Cheese is made of milk.",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "I love this!",
    "Ein Satz auf Deutsch, der anders zerlegt wird.",
    *(f"Sentence number {n} is a little longer than the one before it." * n for n in range(1, 12)),
]


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """A machine without a GPU fails here, in one line."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        pytest.fail("these tests need an NVIDIA GPU: there is no nvidia-smi", pytrace=False)
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True)
    if listed.returncode != 0 or not listed.stdout.startswith("GPU 0"):
        pytest.fail(f"these tests need an NVIDIA GPU: {listed.stdout}{listed.stderr}", pytrace=False)


def on(name: str, kind: str, prefix: str, deployed: str, num_gpus: float, replicas: int = 1) -> Json:
    """An application whose one deployment asks for that much of a GPU."""
    entry = deployment(deployed, num_cpus=1, num_replicas=replicas)
    entry["ray_actor_options"]["num_gpus"] = num_gpus
    return app(name, kind, prefix, entry)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each kind of model on the GPU and, beside it, on the processor."""
    server = Server(tmp_path_factory.mktemp("gpu"), num_gpus=1)
    applications = [
        on("embed-gpu", "embedder", "/embed-gpu", "Embedder", 0.25),
        on("embed-cpu", "embedder", "/embed-cpu", "Embedder", 0),
        on("classify-gpu", "classifier", "/classify-gpu", "Classifier", 0.25),
        on("classify-cpu", "classifier", "/classify-cpu", "Classifier", 0),
    ]
    try:
        server.start(server.config(applications))
        yield server
    finally:
        server.stop()
        print(server.log_tail())


def ask(server: Server, path: str, body: Json) -> list:
    answer = requests.post(server.url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def devices(server: Server, application: str) -> list[str]:
    """Where the sessions of an application compute, by its metrics."""
    found = samples(server.metrics())["mobula_model_sessions"]
    mine = [sample for sample in found if sample.labels["application"] == application]
    return sorted(sample.labels["device"] for sample in mine if sample.value > 0)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def test_vectors_of_the_gpu_are_those_of_the_processor(server: Server) -> None:
    assert devices(server, "embed-gpu") == ["cuda:0"]
    assert devices(server, "embed-cpu") == ["cpu"]
    body = {"inputs": TEXTS, "truncate": True}
    by_gpu = ask(server, "/embed-gpu/embed", body)
    by_cpu = ask(server, "/embed-cpu/embed", body)
    assert len(by_gpu) == len(TEXTS)
    worst = max(abs(x - y) for a, b in zip(by_gpu, by_cpu, strict=True) for x, y in zip(a, b))
    least = min(cosine(a, b) for a, b in zip(by_gpu, by_cpu, strict=True))
    print(f"vectors: largest difference {worst:.2e}, least cosine {least:.8f}")
    assert worst < ALIKE and least > 1 - ALIKE
    # Not the same numbers to the last bit, or nothing was computed elsewhere.
    assert worst > 0


def test_labels_of_the_gpu_are_those_of_the_processor(server: Server) -> None:
    assert devices(server, "classify-gpu") == ["cuda:0"]
    body = {"inputs": [[text] for text in TEXTS], "truncate": True}
    by_gpu = ask(server, "/classify-gpu/predict", body)
    by_cpu = ask(server, "/classify-cpu/predict", body)
    for mine, theirs in zip(by_gpu, by_cpu, strict=True):
        assert {label["label"] for label in mine} == {"NEGATIVE", "POSITIVE"}
        scores = {label["label"]: label["score"] for label in theirs}
        for label in mine:
            assert label["score"] == pytest.approx(scores[label["label"]], abs=5 * ALIKE)


def test_a_worker_that_ends_gives_the_gpu_back_and_does_not_crash(tmp_path: Path) -> None:
    for n in range(CRASHES_LOOKED_FOR):
        folder = tmp_path / str(n)
        folder.mkdir()
        server = Server(folder, num_gpus=1)
        applications = [
            on("a", "embedder", "/a", "Embedder", 0.5),
            on("b", "embedder", "/b", "Embedder", 0),
        ]
        try:
            server.start(server.config(applications))
            ask(server, "/a/embed", {"inputs": TEXTS, "truncate": True})
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 0
        finally:
            server.stop()
        assert "its worker ended (signal" not in server.log_tail()


def test_halves_of_a_gpu_are_two_replicas_on_it_and_a_third_waits(tmp_path: Path) -> None:
    server = Server(tmp_path, num_gpus=1)
    try:
        server.start(server.config([on("halves", "embedder", "/", "Embedder", 0.5, replicas=2)]))
        assert devices(server, "halves") == ["cuda:0", "cuda:0"]
        assert len(server.replicas("halves", "Embedder")) == 2
        assert len(ask(server, "/embed", {"inputs": TEXTS, "truncate": True})) == len(TEXTS)
        third = server.config([on("halves", "embedder", "/", "Embedder", 0.5, replicas=3)])
        assert server.put(third).status_code == 200
        server.wait_app("halves", "DEPLOYING")
        assert len(server.replicas("halves", "Embedder")) == 2
    finally:
        server.stop()
        print(server.log_tail(3000))


def test_an_int8_graph_is_refused_by_name(tmp_path: Path) -> None:
    server = Server(tmp_path, num_gpus=1)
    try:
        server.spawn(server.config([on("rerank", "reranker", "/", "Reranker", 1)]))
        server.wait_ready()
        failed = server.wait_app("rerank", "DEPLOY_FAILED", FAILS_SECONDS_MAX)
        message = failed["deployments"]["Reranker"]["message"]
        print(message)
        assert "MatMulInteger" in message and "num_gpus: 0" in message
    finally:
        server.stop()
        print(server.log_tail(3000))


def test_a_device_that_does_not_exist_is_an_error_and_not_the_processor(tmp_path: Path) -> None:
    server = Server(tmp_path, num_gpus=64)
    try:
        server.spawn(server.config([on("many", "embedder", "/", "Embedder", 64)]))
        server.wait_ready()
        failed = server.wait_app("many", "DEPLOY_FAILED", FAILS_SECONDS_MAX)
        message = failed["deployments"]["Embedder"]["message"]
        print(message)
        assert "cuda:" in message and "nvidia-smi" in message
    finally:
        server.stop()
        print(server.log_tail(3000))


def test_hidden_devices_are_an_error_that_names_the_variable(tmp_path: Path) -> None:
    server = Server(tmp_path, num_gpus=1, environ={"CUDA_VISIBLE_DEVICES": ""})
    try:
        process = server.spawn(server.config([on("x", "embedder", "/", "Embedder", 1)]))
        server.wait_ready()
        server.wait_log("CUDA_VISIBLE_DEVICES names 0")
        assert process.poll() is None
    finally:
        server.stop()
