"""Nothing is lost when processes die, stop or are changed under load."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from support import processes
from support.config import noop, sleep
from support.load import Load
from support.server import Server
from support.waiting import wait_until

QUICK_STOP_S = 5.0  # far below the 10 s after which a silent worker counts as lost

NewServer = Callable[..., Server]


def test_a_killed_worker_is_replaced_and_no_get_fails(new_server: NewServer) -> None:
    server = new_server(workers=2)
    server.start(server.config([noop(num_replicas=2)]))
    (before, _) = server.replicas("noop", "Noop")

    with Load(server.http_port, "/noop") as load:
        load.wait_for_more(50)
        processes.kill_9(before["pid"])

        def replaced() -> bool:
            replicas = server.replicas("noop", "Noop")
            pids = {replica["pid"] for replica in replicas}
            return len(replicas) == 2 and before["pid"] not in pids

        wait_until(replaced, "two replicas, none in the killed process")
        load.wait_for_more(50)

    assert load.failed() == []
    assert not processes.is_alive(before["pid"])
    # A stop that meets a worker which has just joined waits for nobody that is gone.
    server.signal(signal.SIGTERM)
    assert server.wait_exit(QUICK_STOP_S) == 0


def test_the_only_worker_is_replaced_and_no_get_fails(new_server: NewServer) -> None:
    server = new_server(workers=1)
    server.start(server.config([noop()]))
    (before,) = server.replicas("noop", "Noop")

    with Load(server.http_port, "/noop", clients=2) as load:
        load.wait_for_more(50)
        processes.kill_9(before["pid"])
        wait_until(
            lambda: [r for r in server.replicas("noop", "Noop") if r["pid"] != before["pid"]],
            "a replica in a new process",
        )
        load.wait_for_more(50)

    assert load.failed() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_stop_signal_answers_all_that_was_accepted(new_server: NewServer, number: int) -> None:
    server = new_server()
    server.start(server.config([sleep("slow", "/slow", 0.4, max_ongoing_requests=16)]))
    with Load(server.http_port, "/slow", clients=8) as load:
        load.wait_for_more(16)
        # What was sent this long ago has reached the server, even on a busy machine.
        safely_sent = time.monotonic() - 0.2
        server.signal(number)
        assert server.wait_exit() == 0, server.log_tail()

    in_flight = [o for o in load.outcomes if safely_sent - 0.4 < o.sent_at < safely_sent]
    assert in_flight, "the signal came while requests were in flight"
    assert load.failed(before=safely_sent) == []
    # Later ones are either answered or refused at the connection, never answered with an error.
    assert [o for o in load.failed() if o.status is not None] == []
    wait_until(lambda: server.pids() == [], "no process is left")


def test_the_deployed_config_comes_back_after_a_restart(new_server: NewServer) -> None:
    server = new_server()
    server.start(server.config([noop(), sleep("slow", "/slow", 0.01)]))
    before = server.document()["applications"]
    server.stop()
    assert server.pids() == []

    server.start()
    server.wait_app("noop", "RUNNING")
    server.wait_app("slow", "RUNNING")
    server.wait_healthy()
    after = server.document()["applications"]
    assert {name: entry["deployed_app_config"] for name, entry in after.items()} == {
        name: entry["deployed_app_config"] for name, entry in before.items()
    }


def test_user_config_changes_in_place_and_a_new_environment_replaces(
    new_server: NewServer,
) -> None:
    server = new_server()

    def config(seconds: float, **fields: object) -> dict:
        entry = sleep("slow", "/slow", seconds, num_replicas=2, max_ongoing_requests=8)
        return server.config([noop(), {**entry, **fields}])

    def ids() -> set:
        return {replica["replica_id"] for replica in server.replicas("slow", "Sleep")}

    server.start(config(0.01))
    first = ids()
    assert len(first) == 2

    with Load(server.http_port, "/slow") as load:
        server.deploy(config(0.02))
        wait_until(
            lambda: (
                server.document()["applications"]["slow"]["deployments"]["Sleep"][
                    "deployment_config"
                ]["user_config"]
                == {"seconds": 0.02}
            ),
            "the new user_config",
        )
        server.wait_app("slow", "RUNNING")
        assert ids() == first
        load.wait_for_more()

        assert (
            server.put(config(0.02, runtime_env={"env_vars": {"REVISION": "2"}})).status_code == 200
        )
        wait_until(lambda: len(ids()) == 2 and not ids() & first, "two other replicas")
        server.wait_app("slow", "RUNNING")
        load.wait_for_more()

    assert load.failed() == []
