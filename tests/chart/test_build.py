"""build_and_push.sh asks Docker and cosign for the right things; both only write down what they
got."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support import ROOT

SCRIPT = ROOT / "deploy/docker/build_and_push.sh"
DIGEST = f"sha256:{'5' * 64}"
DOCKER = f"""#!/bin/sh
echo "docker $*" >>"$CALLS"
while [ $# -gt 0 ]; do
    [ "$1" = --metadata-file ] && printf '{{"containerimage.digest": "{DIGEST}"}}' >"$2"
    shift
done
exit 0
"""
COSIGN = """#!/bin/sh
echo "cosign $*" >>"$CALLS"
"""


def built(
    folder: Path, *args: str, **env: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    for name, text in {"docker": DOCKER, "cosign": COSIGN}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), **env}
    done = subprocess.run([SCRIPT, *args], capture_output=True, text=True, env=environ)
    return done, calls.read_text().splitlines()


def test_it_builds_with_provenance_and_sbom_and_pushes(tmp_path: Path) -> None:
    done, calls = built(tmp_path, "registry.example:5000/mobula", "1", "--build-arg", "MODELS=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "registry.example:5000/mobula:1\n"
    [call] = calls
    for part in ("--sbom=true", "--provenance=true", "--push", "--build-arg MODELS=1"):
        assert part in call
    assert "hf_token" not in call


def test_the_hub_token_is_a_secret_of_the_build(tmp_path: Path) -> None:
    done, [call] = built(tmp_path, "mobula", "1", HF_TOKEN="hf_private", PUSH="0")
    assert done.returncode == 0, done.stderr
    assert "--secret id=hf_token,env=HF_TOKEN" in call and "hf_private" not in call
    assert "--load" in call and "--push" not in call


def test_what_is_signed_is_what_was_pushed(tmp_path: Path) -> None:
    done, calls = built(tmp_path, "registry.example:5000/mobula", "1", SIGN="1")
    assert done.returncode == 0, done.stderr
    assert calls[1:] == [f"cosign sign --yes registry.example:5000/mobula@{DIGEST}"]


def test_what_is_not_pushed_is_not_signed(tmp_path: Path) -> None:
    done, calls = built(tmp_path, "mobula", "1", SIGN="1", PUSH="0")
    assert done.returncode == 2 and calls == []
    assert "PUSH=0 is not allowed" in done.stderr


def test_the_gpu_variant_has_its_runtime_and_a_base_with_cuda(tmp_path: Path) -> None:
    done, [call] = built(tmp_path, "mobula", "1-gpu", GPU="1")
    assert done.returncode == 0, done.stderr
    for part in ("RUNTIME=cuda", "BASE=nvidia/cuda:13", "cudnn-runtime", "LIBS=base"):
        assert part in call
    (tmp_path / "calls").unlink()
    _, [call] = built(tmp_path, "mobula", "1-gpu", GPU="1", BASE="registry.example/cuda:13")
    assert "BASE=registry.example/cuda:13" in call
    (tmp_path / "calls").unlink()
    _, [call] = built(tmp_path, "mobula", "1")
    assert "RUNTIME" not in call and "BASE" not in call
