"""What is done to the cluster, one thing at a time: ends of processes, changes of the config.

Each fault leaves everything running again; whether the cluster has settled is asked by the caller
(run.py), and in between by the faults that wait with the restart until the others have coped.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import settle
from causes import Window
from configs import Ledger, Wanted
from roles import Head, House, Role

# How long an ended process stays away, when it comes back before the others have coped.
AWAY_SECONDS_MAX = 1.0
# How long a process is paused or cut off: less than anybody notices, as long as a head waits for
# a report, and longer than a connection lives that nobody answers on, and a worker is waited for.
PAUSES_SECONDS = (1.0, 6.0, 18.0)
NOOP_REPLICAS = (1, 5)


@dataclass
class Run:
    """The state of a run: what the faults act on, and what they leave for the result."""

    house: House
    ledger: Ledger
    random: Random
    outage_seconds: float
    pause_seconds_max: float
    windows: list[Window]

    def admins(self) -> list[str]:
        """The heads that run, in random order."""
        admins = [head.admin for head in self.house.heads if head.answers()]
        return self.random.sample(admins, len(admins))

    def wanted(self) -> Wanted:
        if self.ledger.expected is None:
            raise RuntimeError("no config was deployed yet")
        return self.ledger.expected


Fault = Callable[[Run], None]


def end(run: Run, role: Role, index: int, how: signal.Signals) -> None:
    """Ends a process, starts it again; before that or after, the others cope without it."""
    start = time.time() * 1000
    role.end(how)
    if run.random.random() < 0.5:
        settle.wait(run.house, run.ledger)
    else:
        time.sleep(run.random.uniform(0, AWAY_SECONDS_MAX))
    role.start()
    settle.wait(run.house, run.ledger)
    killed = how == signal.SIGKILL
    run.windows.append(Window(role.kind, index, killed, start, time.time() * 1000))


def end_one(kind: str, how: signal.Signals) -> Fault:
    def fault(run: Run) -> None:
        roles: list[Role] = {
            "etcd": run.house.etcd,
            "router": run.house.routers,
            "worker": run.house.workers,
        }[kind]
        index = serving_worker(run) if kind == "worker" else run.random.randrange(len(roles))
        end(run, roles[index], index, how)

    return fault


def serving_worker(run: Run) -> int:
    """A worker with replicas on it: the end of an idle one is no loss."""
    shown = settle.document(run.admins()[0])["applications"].values()
    deployments = [d for application in shown for d in application["deployments"].values()]
    hosts = {replica["pid"] for found in deployments for replica in found["replicas"]}
    workers = range(len(run.house.workers))
    return run.random.choice([n for n in workers if run.house.workers[n].pid() in hosts])


def end_head(leading: bool, how: signal.Signals) -> Fault:
    def fault(run: Run) -> None:
        leader = run.house.leader()
        heads = [head for head in run.house.heads if (head is leader) == leading]
        head = run.random.choice(heads)
        end(run, head, run.house.heads.index(head), how)

    return fault


@contextmanager
def paused(run: Run, role: Role, index: int) -> Iterator[None]:
    """The process stops where it is, and goes on when the block ends."""
    start = time.time() * 1000
    role.pause()
    try:
        yield
    finally:
        role.resume()
    settle.wait(run.house, run.ledger)
    run.windows.append(Window(role.kind, index, True, start, time.time() * 1000))


@contextmanager
def cut_off(run: Run, role: Role) -> Iterator[None]:
    """Nothing gets through between the role and those that it dials."""
    run.house.relays.cut(role.name)
    try:
        yield
    finally:
        run.house.relays.mend(role.name)


def pause_leader(run: Run) -> None:
    """Longer than its lease: another one leads and takes a config, and the one that wakes up
    must not write over it."""
    leader = leading(run)
    with paused(run, leader, run.house.heads.index(leader)):
        settle.wait_for_leader(run.house, leader)
        run.ledger.put(run.admins(), another_version(run))
        settle.wait(run.house, run.ledger)


def pause_worker(run: Run) -> None:
    """For a moment, or until the others have replaced its replicas and broken connections."""
    index = serving_worker(run)
    with paused(run, run.house.workers[index], index):
        time.sleep(a_while(run))


def pause_router(run: Run) -> None:
    index = run.random.randrange(len(run.house.routers))
    with paused(run, run.house.routers[index], index):
        time.sleep(a_while(run))


def cut_leader_off_etcd(run: Run) -> None:
    leader = leading(run)
    with cut_off(run, leader):
        settle.wait_for_leader(run.house, leader)
        leader.silenced = True
        run.ledger.put(run.admins(), another_version(run))
        settle.wait(run.house, run.ledger)
    leader.silenced = False
    settle.wait(run.house, run.ledger)


def cut_worker_off_heads(run: Run) -> None:
    """Routers reach it, and it goes on serving until its replicas are replaced."""
    index = serving_worker(run)
    with cut_off(run, run.house.workers[index]):
        time.sleep(a_while(run))


def a_while(run: Run) -> float:
    return run.random.choice([s for s in PAUSES_SECONDS if s <= run.pause_seconds_max])


def leading(run: Run) -> Head:
    leader = run.house.leader()
    if leader is None:
        raise RuntimeError("no head leads")
    return leader


def accept_and_kill_leader(run: Run) -> None:
    """The leader dies in the moment that it accepted a config."""
    leader = leading(run)
    run.ledger.put(run.admins(), another_version(run))
    end(run, leader, run.house.heads.index(leader), signal.SIGKILL)


def etcd_outage(run: Run) -> None:
    """All members die and stay away; a change must be refused meanwhile, not taken lightly."""
    for member in run.house.etcd:
        member.end(signal.SIGKILL)
    until = time.monotonic() + run.outage_seconds
    if run.ledger.put_once(run.admins()[0], another_version(run)):
        run.ledger.lost.append("a config was answered 200 while all of etcd was away")
    time.sleep(max(0.0, until - time.monotonic()))
    for member in run.house.etcd:
        member.start()
    # Whether the refused change came through all the same is open: ask for what is expected.
    run.ledger.put(run.admins(), run.wanted())


def another_version(run: Run) -> Wanted:
    wanted = run.wanted()
    return replace(wanted, sleep_version=wanted.sleep_version + 1)


def redeploy(run: Run) -> None:
    run.ledger.put(run.admins(), run.wanted())


def rollout(run: Run) -> None:
    """New code: all replicas of an application are replaced."""
    before = sleepers(run)
    run.ledger.put(run.admins(), another_version(run))
    settle.wait(run.house, run.ledger)
    if before & sleepers(run):
        raise RuntimeError("a rollout is over, and a replica of the old version still runs")


def sleepers(run: Run) -> set[str]:
    """The replicas of the application that is rolled out."""
    found = settle.document(run.admins()[0])["applications"]["sleep"]
    return {replica["replica_id"] for replica in found["deployments"]["Sleep"]["replicas"]}


def scale(run: Run) -> None:
    wanted = run.wanted()
    low, high = NOOP_REPLICAS
    others = [n for n in range(low, high + 1) if n != wanted.noop_replicas]
    run.ledger.put(run.admins(), replace(wanted, noop_replicas=run.random.choice(others)))


def bad_rollout(run: Run) -> None:
    """A version that does not start is taken back by the cluster; then the good one is put."""
    before = run.wanted()
    bad = replace(another_version(run), sleep_seconds="never")
    run.ledger.put(run.admins(), bad)
    until = time.monotonic() + settle.SETTLE_SECONDS_MAX
    while True:
        found = settle.document(run.admins()[0])["applications"]["sleep"]
        if found["status"] == "DEPLOY_FAILED" and "rolled back" in found["message"]:
            break
        if time.monotonic() > until:
            raise TimeoutError(f"a bad version was not taken back: {found['message']}")
        time.sleep(settle.POLL_SECONDS)
    run.ledger.taken_back(before)
    run.ledger.put(run.admins(), before)


KILL, TERM = signal.SIGKILL, signal.SIGTERM
FAULTS: dict[str, Fault] = {
    "leader killed": end_head(True, KILL),
    "leader stopped": end_head(True, TERM),
    "standby killed": end_head(False, KILL),
    "standby stopped": end_head(False, TERM),
    "leader killed as it accepts": accept_and_kill_leader,
    "router killed": end_one("router", KILL),
    "router stopped": end_one("router", TERM),
    "worker killed": end_one("worker", KILL),
    "worker stopped": end_one("worker", TERM),
    "etcd member killed": end_one("etcd", KILL),
    "etcd member stopped": end_one("etcd", TERM),
    "etcd away": etcd_outage,
    "leader paused": pause_leader,
    "router paused": pause_router,
    "worker paused": pause_worker,
    "leader cut off from etcd": cut_leader_off_etcd,
    "worker cut off from heads": cut_worker_off_heads,
    "redeploy": redeploy,
    "rollout": rollout,
    "bad rollout": bad_rollout,
    "scale": scale,
}
