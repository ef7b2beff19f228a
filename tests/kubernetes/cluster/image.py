"""Images as root file systems: Mobula's by the steps of deploy/docker, etcd's of its program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.server import binary

from .control_plane import REPOSITORY, fetched

ETCD_VERSION = "3.6.4"  # of the chart's default image
DOCKER = REPOSITORY / "deploy" / "docker"


@dataclass(frozen=True)
class Image:
    """What a container is started from."""

    root: Path
    entrypoint: list[str]
    env: dict[str, str]


def cache() -> Path:
    """Where `mobula models fetch` keeps what it fetched."""
    environ = os.environ
    base = environ.get("XDG_CACHE_HOME") or f"{environ['HOME']}/.cache"
    return Path(environ.get("MOBULA_CACHE") or f"{base}/mobula")


def mobula(folder: Path, *models: str) -> Image:
    """Our image, with these models of the cache in it."""
    found = sorted(cache().glob("runtime/onnxruntime-*/*/libonnxruntime.so.*"))
    assert found, "`mobula models fetch` fetches ONNX Runtime"
    # A debug build is mostly symbols.
    program = folder / "mobula"
    subprocess.run(["strip", "-o", str(program), binary()], check=True)
    command = [str(DOCKER / "rootfs.sh"), str(folder / "mobula-root"), str(program), str(found[-1])]
    if models:
        chosen = folder / "models"
        chosen.mkdir()
        for model in models:
            (chosen / model).symlink_to(cache() / "models" / model)
        # Without the links: the image has the files.
        shutil.copytree(chosen, folder / "models-copied")
        command.append(str(folder / "models-copied"))
    subprocess.run(command, check=True)
    text = (DOCKER / "Dockerfile").read_text()
    env = dict(re.findall(r"^(?:ENV| {3}) ((?:MOBULA|ORT)\w+)=(\S+)", text, re.MULTILINE))
    return Image(folder / "mobula-root", ["/usr/local/bin/mobula"], env)


def etcd(folder: Path) -> Image:
    """An image with etcd alone, as the chart's default one has it."""
    root = folder / "etcd-root"
    for place in ("dev", "proc", "tmp", "usr/local/bin"):
        (root / place).mkdir(parents=True)
    shutil.copy(fetched("fetch_etcd.sh", ETCD_VERSION), root / "usr/local/bin/etcd")
    return Image(root, [], {"PATH": "/usr/local/bin"})
