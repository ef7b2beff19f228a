"""A config that was answered 200 survives kill -9 of everything at any moment."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import requests
from support import processes
from support.config import Json, noop
from support.server import Server
from support.waiting import wait_until

ROUNDS = 12
DELAY_MS_MAX = 400  # beyond the time in which a no-op deployment is up


def revision(server: Server, number: int) -> Json:
    """A config that can be told from the one before it."""
    environ = {"env_vars": {"REVISION": str(number)}}
    return server.config([{**noop(), "runtime_env": environ}])


def deployed_revision(server: Server) -> int:
    """The number of the config that the server knows."""
    found = server.document()["applications"]["noop"]["deployed_app_config"]
    return int(found["runtime_env"]["env_vars"]["REVISION"])


def test_an_accepted_config_survives_kill_9_and_leaves_no_process(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    moments = random.Random(20)
    accepted = 0
    for number in range(1, ROUNDS + 1):
        server.spawn()
        server.wait_ready()
        if accepted:
            assert deployed_revision(server) == accepted, f"round {number}"
        assert server.put(revision(server, number)).status_code == 200
        accepted = number
        time.sleep(moments.randrange(DELAY_MS_MAX) / 1000)  # the random moment is the point
        server.signal(signal.SIGKILL)
        server.wait_exit(10)
        wait_until(lambda: server.pids() == [], f"no process is left in round {number}", 10)

    server.start()
    server.wait_app("noop", "RUNNING")
    assert deployed_revision(server) == ROUNDS


def test_kill_9_during_a_put_keeps_the_old_or_the_new_config_whole(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    moments = random.Random(21)
    server.start(revision(server, 0))
    accepted = 0
    for number in range(1, 6):
        victim = server.process
        assert victim is not None
        killer = threading.Timer(moments.randrange(20) / 1000, processes.kill_9, [victim.pid])
        killer.start()
        try:
            if server.put(revision(server, number)).status_code == 200:
                accepted = number
        except requests.RequestException:
            pass  # the client cannot know the outcome: both are right
        killer.join()
        server.wait_exit(10)
        wait_until(lambda: server.pids() == [], "no process is left", 10)
        server.spawn()
        server.wait_ready()
        found = deployed_revision(server)
        assert found in (accepted, number)
        accepted = found
        server.wait_app("noop", "RUNNING")
