"""What `mobula run` and the README print can be pasted."""

from __future__ import annotations

import json
import subprocess

from support.server import REPOSITORY, Server


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
