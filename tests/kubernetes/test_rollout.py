"""A new pod template takes over, or is taken back, and no request is lost on the way."""

from __future__ import annotations

from cluster.house import WAIT_S, House, group, sleep, template
from cluster.kubelet import MISSING_IMAGE
from support.config import Json
from support.load import Load
from support.waiting import wait_until

CRASHES = template("crashes", command=["/bin/false"])
NO_IMAGE = template("no image", image=MISSING_IMAGE)


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


def test_a_new_template_replaces_pod_by_pod_and_loses_no_request(house: House) -> None:
    groups = group(min=2, max=2)
    before = two_busy_pods(house, groups)
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        restart(house, {**groups, "template": template("2")})
        wait_until(lambda: versions(house) == ["2", "2"], "two pods of the new template", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)
    assert before.isdisjoint(house.pods())


def test_a_template_without_an_image_is_taken_back_and_a_good_one_takes_over(house: House) -> None:
    groups = group(min=2, max=4, startup_timeout_s=3)
    before = two_busy_pods(house, groups)
    with Load(house.http_port, "/sleep") as load:
        restart(house, {**groups, "template": NO_IMAGE})
        wait_until(lambda: said(house, "ErrImagePull"), "the reason is in an event", WAIT_S)
        wait_until(lambda: set(house.pods()) == before, "the bad pod is gone", WAIT_S)
        # What is needed meanwhile is made from the template before.
        house.deploy(sleep(6))
        wait_until(lambda: versions(house) == ["1", "1", "1"], "a third pod", WAIT_S)
        house.wait_running("sleep")
        restart(house, {**groups, "template": template("3")})
        wait_until(lambda: versions(house) == ["3", "3", "3"], "the good template", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)


def test_a_template_whose_worker_crashes_is_taken_back(house: House) -> None:
    groups = group(min=2, max=4, surge=2)
    before = two_busy_pods(house, groups)
    with Load(house.http_port, "/sleep") as load:
        restart(house, {**groups, "template": CRASHES})
        wait_until(lambda: said(house, "CrashLoopBackOff"), "the reason is in an event", WAIT_S)
        wait_until(lambda: set(house.pods()) == before, "the bad pods are gone", WAIT_S)
        load.wait_for_more()
    house.lost_nothing(load)


def test_a_template_that_the_namespace_refuses_is_taken_back(house: House) -> None:
    groups = group(min=2, max=4)
    before = two_busy_pods(house, groups)
    house.enforce("baseline")
    with Load(house.http_port, "/sleep") as load:
        restart(house, {**groups, "template": template("2", hostNetwork=True)})
        wait_until(lambda: said(house, "violates PodSecurity"), "the reason is told", WAIT_S)
        wait_until(lambda: said(house, "is in force again"), "it is taken back", WAIT_S)
        house.deploy(sleep(6))
        wait_until(lambda: versions(house) == ["1", "1", "1"], "pods of the one before", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)
    assert before < set(house.pods())


def test_blue_green_moves_everything_at_once_and_keeps_the_first_pods_for_a_while(
    house: House,
) -> None:
    groups = group(min=2, max=2, strategy="blueGreen", bake_s=3)
    two_busy_pods(house, groups)
    with Load(house.http_port, "/sleep") as load:
        load.wait_for_more()
        restart(house, {**groups, "template": template("2")})
        wait_until(lambda: versions(house) == ["1", "1", "2", "2"], "both sets", WAIT_S)
        wait_until(lambda: versions(house) == ["2", "2"], "the second set alone", WAIT_S)
        house.wait_running("sleep")
        load.wait_for_more()
    house.lost_nothing(load)


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
