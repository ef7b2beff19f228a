"""The no-op and the echo as Ray Serve applications; runs until SIGTERM."""

import os
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=1024)
class Noop:
    async def __call__(self, request: Request) -> str:
        return "mobula no-op is fine"


@serve.deployment(max_ongoing_requests=1024)
class Echo:
    async def __call__(self, request: Request) -> Response:
        return Response(await request.body())


ray.init(include_dashboard=False, logging_level="ERROR")
serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["HOP_PORT"])})
serve.run(Noop.bind(), name="noop", route_prefix="/")
serve.run(Echo.bind(), name="echo", route_prefix="/echo")
signal.sigwait({signal.SIGTERM, signal.SIGINT})
serve.shutdown()
ray.shutdown()
