"""What `mobula run` prints can be pasted."""

from __future__ import annotations

import json
import subprocess

from support.server import Server


def printed_commands(rag: Server) -> list[str]:
    lines = rag.log_path.read_text().splitlines()
    return [line.strip() for line in lines if line.strip().startswith("curl ")]


def test_the_curl_lines_of_the_banner_work_as_printed(rag: Server) -> None:
    commands = printed_commands(rag)
    assert len(commands) >= 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        answer = json.loads(done.stdout)
        assert not (isinstance(answer, dict) and "error" in answer), f"{command}\n{done.stdout}"


def test_the_banner_names_its_addresses(rag: Server) -> None:
    said = rag.log_path.read_text()
    for address in (rag.admin, rag.url, rag.grpc_target):
        assert address in said
