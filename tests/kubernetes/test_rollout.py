"""A new pod template takes over, or is taken back, and no request is lost on the way."""

from __future__ import annotations

import signal

from cluster.house import WAIT_S, House, group, sleep, template
from cluster.kubelet import MISSING_IMAGE
from support.config import Json
from support.load import Load
from support.waiting import wait_until


def versions(house: House) -> list[str]:
    """Of which template the pods are."""
    pods = house.pods().values()
    return sorted(pod["metadata"]["annotations"]["version"] for pod in pods)


def said(house: House, words: str) -> bool:
    return any(words in note for note in house.events())


def two_busy_pods(house: House, groups: Json) -> set[str]:
    house.start(groups)
    house.deploy(sleep(4))
    house.wait_running("sleep")
    return set(house.wait_pods(2))


def restart(house: House, groups: Json) -> None:
    house.stop_head()
    house.start_head(groups)


def test_blue_green_goes_back_to_the_first_pods_when_the_second_ones_fail(house: House) -> None:
    groups = group(min=2, max=2, strategy="blueGreen", bake_s=600)
    before = two_busy_pods(house, groups)
    with Load(house.http_port, "/sleep") as load:
        restart(house, {**groups, "template": template("2")})
        wait_until(lambda: versions(house) == ["1", "1", "2", "2"], "both sets", WAIT_S)
        wait_until(lambda: house.log_says("empty pod"), "the switch", WAIT_S)
        house.wait_running("sleep")
        [bad, _] = sorted(set(house.pods()) - before)

        def ended_by_crashes() -> bool:
            house.kubelet.kill_9(bad)
            return said(house, "was restarted 3 times")

        wait_until(ended_by_crashes, "the roll-out is ended", WAIT_S)
        wait_until(lambda: set(house.pods()) == before, "the first pods alone", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)


def test_a_template_that_was_given_up_stays_so_when_the_leader_is_killed(big_house: House) -> None:
    house = big_house
    groups = group(min=2, startup_timeout_s=3)
    before = two_busy_pods(house, groups)
    bad = {**groups, "template": template("bad", image=MISSING_IMAGE)}
    with Load(house.http_port, "/sleep") as load:
        for head in house.heads:
            house.stop_head(head=head)
            house.start_head(bad, head=head)
        wait_until(lambda: said(house, "ErrImagePull"), "the roll-out is ended", WAIT_S)
        wait_until(lambda: set(house.pods()) == before, "the first pods alone", WAIT_S)
        made = house.made("bad")
        assert made
        house.stop_head(signal.SIGKILL, house.leader())
        house.leader()
        house.deploy(sleep(6))
        house.wait_running("sleep")
        assert versions(house) == ["1", "1", "1"]
        assert before < set(house.pods())
        assert house.made("bad") == made, "the next leader tried it again"
        load.wait_for_more()
    house.lost_nothing(load)
