"""What `mobula run`, the README and the documents show can be pasted; links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.config import Json
from support.server import REPOSITORY, Server, binary

DOCUMENTS = [
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "loadtest/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
]
# Samples that are something else than a Serve config.
OTHER_KINDS = {"workerGroups", "kind"}


def curl_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("curl ")]


def paste(command: str) -> None:
    """Runs a line as a shell would, and expects an answer that is no error."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    answer = json.loads(done.stdout)
    assert not (isinstance(answer, dict) and "error" in answer), f"{command}\n{done.stdout}"


def test_the_curl_lines_of_the_banner_work_as_printed(rag: Server) -> None:
    commands = curl_lines(rag.log_path.read_text())
    assert len(commands) >= 3
    for command in commands:
        paste(command)


def test_the_curl_lines_of_the_readme_work(rag: Server) -> None:
    commands = curl_lines((REPOSITORY / "README.md").read_text())
    assert len(commands) >= 3
    for command in commands:
        # The README speaks of the default ports.
        paste(command.replace("127.0.0.1:8000", rag.url.removeprefix("http://")))


def test_the_banner_names_its_addresses(rag: Server) -> None:
    said = rag.log_path.read_text()
    for address in (rag.admin, rag.url, rag.grpc_target):
        assert address in said


def anchors(document: Path) -> set[str]:
    """What a link to a heading may say, as GitHub makes it of the heading."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_of_the_documents_leads_somewhere(document: Path) -> None:
    here = REPOSITORY / document
    for link in re.findall(r"\]\(([^)\s]+)\)", here.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (here.parent / path) if path else here
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def whole(sample: Json) -> Json:
    """A Serve config around what a sample shows of one."""
    application = {"name": "sample", "route_prefix": "/", "import_path": "mobula.apps:rag"}
    if "args" in sample:
        application["import_path"] = "mobula.apps:embedder"
    if "ray_actor_options" in sample:
        sample = {"deployments": [{"name": "Embedder", **sample}]}
    if "deployments" in sample or "args" in sample:
        sample = {"applications": [sample]}
    shown = sample.get("applications", [{}])
    return {**sample, "applications": [{**application, **one} for one in shown]}


SAMPLES = [
    pytest.param(sample, id=f"{document}-{number}")
    for document in DOCUMENTS
    for number, text in enumerate(
        re.findall(r"```yaml\n(.*?)```", (REPOSITORY / document).read_text(), re.DOTALL)
    )
    # Alternatives stand below each other, each a line.
    for sample in map(yaml.safe_load, text.splitlines() if text.startswith("args:") else [text])
    if not OTHER_KINDS & sample.keys()
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_sample_of_a_config_is_valid_and_acts(sample: Json, tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump(whole(sample)))
    done = subprocess.run(
        [binary(), "validate", str(config)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("0 warning(s)"), done.stdout + done.stderr
