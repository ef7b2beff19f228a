"""Whether the cluster is settled: what it shows is what was asked for, and all that runs is known.

Asked of every head that runs, because a following head answers for the leader. Returned is what
is still missing, so that a wait in vain can say it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests
from configs import APPLICATIONS, Ledger, Wanted, is_shown
from roles import Head, House, Role

# The lease, an election of etcd, joining again and a rollout on a busy machine, with room.
SETTLE_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1
ANSWER_SECONDS_MAX = 5.0
# What says that an accepted config was lost, rather than that something is slow.
NOT_SHOWN = "the last accepted config is not shown"


def wait(house: House, ledger: Ledger) -> None:
    """Waits until nothing is missing."""
    _wait(lambda: missing(house, ledger))


def wait_for_leader(house: House, other_than: Head | None) -> None:
    """Waits until another head says that it leads."""
    _wait(lambda: "" if house.leader() not in (None, other_than) else "no other head leads")


def _wait(gap: Callable[[], str]) -> None:
    start = time.monotonic()
    while found := gap():
        if time.monotonic() - start > SETTLE_SECONDS_MAX:
            raise TimeoutError(f"not settled after {SETTLE_SECONDS_MAX:g} s: {found}")
        time.sleep(POLL_SECONDS)


def _answered(gap: Callable[[], str]) -> str:
    try:
        return gap()
    except requests.RequestException as error:
        return f"no answer: {error}"


def missing(house: House, ledger: Ledger) -> str:
    """The first thing that is not as it should be; empty when all is."""

    def gap() -> str:
        return (
            _died(house)
            or _etcd(house)
            or ("" if house.leader() else "no head says that it leads")
            or _heads(house, ledger)
            or (_routers(house) if ledger.expected else "")
            or _orphans(house)
        )

    return _answered(gap)


def document(admin: str) -> dict[str, Any]:
    answer = requests.get(admin + APPLICATIONS, timeout=ANSWER_SECONDS_MAX)
    answer.raise_for_status()
    return answer.json()


def _running(roles: list[Any]) -> list[Any]:
    return [role for role in roles if role.answers()]


def _died(house: House) -> str:
    """A role that was started, not ended by a fault, and is gone."""
    gone: list[Role] = [r for r in house.roles() if r.expected and not r.is_running()]
    return f"{gone[0].name} ended by itself" if gone else ""


def _etcd(house: House) -> str:
    for member in _running(house.etcd):
        health = requests.get(member.url + "/health", timeout=ANSWER_SECONDS_MAX)
        if health.status_code != 200:
            return f"{member.name} is not healthy: {health.text}"
    return ""


def _heads(house: House, ledger: Ledger) -> str:
    for head in _running(house.heads):
        ready = requests.get(head.admin + "/readyz", timeout=ANSWER_SECONDS_MAX)
        if ready.status_code != 200:
            return f"{head.name} is not ready: {ready.text[:200]}"
        gap = of_document(document(head.admin), house, ledger.expected)
        gap = gap or ledger.missing(head.admin)
        if gap:
            return f"{head.name}: {gap}"
    return ""


def of_document(shown: dict[str, Any], house: House, wanted: Wanted | None) -> str:
    """What a status document lacks."""
    if wanted is None:
        return ""
    proxies = [p["status"] for p in shown["proxies"].values()]
    if proxies != ["HEALTHY"] * len(_running(house.routers)):
        return f"the routers are {proxies}"
    pids = {worker.pid() for worker in house.workers if worker.is_running()}
    for entry in wanted.document()["applications"]:
        gap = of_application(shown["applications"].get(entry["name"], {}), entry, pids)
        if gap:
            return f"{entry['name']}: {gap}"
    return ""


def of_application(found: dict[str, Any], entry: dict[str, Any], pids: set[int]) -> str:
    """What one application lacks."""
    if not is_shown(entry, found.get("deployed_app_config")):
        return f"{NOT_SHOWN}: {found.get('deployed_app_config')}"
    if found["status"] != "RUNNING":
        return f"{found['status']} {found.get('message', '')}"
    for settings in entry["deployments"]:
        deployment = found["deployments"][settings["name"]]
        if deployment["status"] != "HEALTHY":
            return f"{deployment['status']} {deployment.get('message', '')}"
        replicas = deployment["replicas"]
        if [r["state"] for r in replicas] != ["RUNNING"] * settings["num_replicas"]:
            return f"replicas {[r['state'] for r in replicas]}"
        if not {replica["pid"] for replica in replicas} <= pids:
            return "a replica is on a worker that is gone"
    return ""


def _routers(house: House) -> str:
    for router in _running(house.routers):
        health = requests.get(router.url + "/-/healthz", timeout=ANSWER_SECONDS_MAX)
        if health.status_code != 200:
            return f"{router.name} is not healthy: {health.text[:200]}"
    return ""


def _orphans(house: House) -> str:
    orphans = house.orphans()
    return f"processes that nobody knows: {orphans}" if orphans else ""
