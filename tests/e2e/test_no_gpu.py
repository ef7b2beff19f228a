"""GPUs that are asked for and not there: said, and never the processor instead."""

from __future__ import annotations

import subprocess

import requests
from conftest import NewServer
from support.config import app, deployment
from support.server import binary

FAILS_SECONDS_MAX = 60.0  # three starts of a worker's replica
# The runtime for processors, whatever the user's own environment names.
PROCESSORS_ONLY = {"MOBULA_RUNTIME": "cpu", "ORT_DYLIB_PATH": "", "CUDA_VISIBLE_DEVICES": "0"}


def test_a_replica_whose_runtime_has_no_cuda_fails_and_says_what_to_do(
    new_server: NewServer,
) -> None:
    server = new_server(num_gpus=1, environ=PROCESSORS_ONLY)
    asking = deployment("Embedder")
    asking["ray_actor_options"]["num_gpus"] = 1
    applications = [
        app("asks", "embedder", "/asks", asking),
        app("does-not", "embedder", "/does-not", deployment("Embedder")),
    ]
    server.spawn(server.config(applications))
    server.wait_ready()
    failed = server.wait_app("asks", "DEPLOY_FAILED", FAILS_SECONDS_MAX)
    message = failed["deployments"]["Embedder"]["message"]
    for words in ("cuda:0", "is an ONNX Runtime without CUDA", "MOBULA_RUNTIME=cuda"):
        assert words in message, message
    server.wait_app("does-not", "RUNNING")
    body = {"inputs": "x"}
    assert requests.post(f"{server.url}/does-not/embed", json=body, timeout=60).status_code == 200
    assert requests.post(f"{server.url}/asks/embed", json=body, timeout=60).status_code == 503


def test_gpus_that_workers_cannot_share_evenly_are_refused_at_the_start() -> None:
    command = [binary(), "run", "--num-gpus", "3", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "--num-gpus 3" in done.stderr and "evenly" in done.stderr
