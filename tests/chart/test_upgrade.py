"""What an upgrade keeps of what is in the cluster: tokens, and the Job that has deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster import cluster
from support import CHART, Object, objects, run

# Labels that Kubernetes gives to a Job's pod; a new Job with those of another is refused.
OF_THE_JOB = {
    "controller-uid": "1",
    "job-name": "j",
    "batch.kubernetes.io/controller-uid": "1",
    "batch.kubernetes.io/job-name": "j",
}


def upgrade(folder: Path, *args: str, there: list[Object]) -> Any:
    folder.mkdir(exist_ok=True)
    with cluster(folder, *there) as env:
        command = ["template", "r", str(CHART), "--namespace", "ns"]
        server = ("--dry-run=server", "--disable-openapi-validation")
        return run(*command, *server, *args, env=env)


def made(folder: Path, kind: str, *args: str, there: list[Object]) -> Object:
    done = upgrade(folder, *args, there=there)
    assert done.returncode == 0, done.stderr
    [item] = [item for item in objects(done.stdout) if item["kind"] == kind]
    return item


def test_random_tokens_are_made_once(tmp_path: Path) -> None:
    first = made(tmp_path, "Secret", there=[])
    assert all(len(token) >= 16 for token in first["data"].values())
    assert made(tmp_path, "Secret", there=[])["data"] != first["data"]
    assert made(tmp_path, "Secret", there=[first])["data"] == first["data"]


def test_another_image_leaves_the_job_as_it_is(tmp_path: Path) -> None:
    first = made(tmp_path, "Job", there=[])
    there = {**first, "metadata": {**first["metadata"]}}
    there["spec"] = {**first["spec"], "template": {**first["spec"]["template"]}}
    labels = first["spec"]["template"]["metadata"]["labels"]
    there["spec"]["template"]["metadata"] = {"labels": labels | OF_THE_JOB}
    newer = ("--set", "image.tag=9.9.9")
    assert made(tmp_path, "Job", *newer, there=[])["spec"] != first["spec"]
    assert made(tmp_path, "Job", *newer, there=[there])["spec"] == first["spec"]


def test_another_config_is_another_job(tmp_path: Path) -> None:
    first = made(tmp_path, "Job", there=[])
    other = ("--set", "serveConfig.applications[0].name=other")
    second = made(tmp_path, "Job", *other, there=[first])
    assert second["metadata"]["name"] != first["metadata"]["name"]


def test_the_number_of_etcd_members_cannot_change(tmp_path: Path) -> None:
    [etcd] = [
        item
        for item in objects(upgrade(tmp_path, there=[]).stdout)
        if item["kind"] == "StatefulSet" and item["metadata"]["name"].endswith("-etcd")
    ]
    done = upgrade(tmp_path, "--set", "etcd.replicas=5", there=[etcd])
    assert done.returncode != 0
    assert "etcd.replicas: this cluster was made with 3 members" in done.stderr
