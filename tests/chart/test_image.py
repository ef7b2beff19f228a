"""The image's root file system is whole: roles start from it, where nothing else is and nothing
can be written. Made by the steps of the Dockerfile, without Docker."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import ROOT

DOCKER = ROOT / "deploy/docker"
IN_ROOTFS = Path(__file__).parent / "in_rootfs.sh"
START_SECONDS_MAX = 60

NOOP = """
http_options: {{host: 127.0.0.1, port: {http}}}
grpc_options: {{port: {grpc}}}
applications:
  - {{name: noop, route_prefix: /, import_path: "mobula.apps:noop"}}
"""


def cache() -> Path:
    env = os.environ
    base = env.get("XDG_CACHE_HOME") or f"{env['HOME']}/.cache"
    return Path(env.get("MOBULA_CACHE") or f"{base}/mobula")


def runtime() -> Path:
    """The newest one in the cache that computes on processors only."""
    found = sorted(cache().glob("runtime/onnxruntime-*/*/libonnxruntime.so.*"))
    return [path for path in found if not list(path.parent.glob("*_providers_*"))][-1]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image") / "rootfs"
    library = runtime()
    subprocess.run([DOCKER / "rootfs.sh", root, os.environ["MOBULA_BIN"], library], check=True)
    return root


def environment() -> dict[str, str]:
    """What the Dockerfile sets, and nothing of ours."""
    text = (DOCKER / "Dockerfile").read_text()
    found = re.findall(r"^(?:ENV| {3}) ((?:MOBULA|ORT)\w+)=(\S+)", text, re.MULTILINE)
    return {**dict(found), "HOME": "/var/lib/mobula"}


WRITABLE = ("/tmp", "/var/cache/mobula", "/var/lib/mobula")


def command(root: Path, *args: str) -> list[str]:
    places = [part for place in WRITABLE for part in ("--tmpfs", place)]
    return [str(IN_ROOTFS), str(root), *places, "/usr/local/bin/mobula", *args]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def ask(url: str) -> tuple[int, bytes] | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None


@contextmanager
def started(root: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    path = f"/usr/bin:/usr/sbin:/bin:/sbin:{os.environ['PATH']}"
    process = subprocess.Popen(command(root, *args), env={**environment(), "PATH": path})
    try:
        yield process
        process.terminate()
        assert process.wait(timeout=START_SECONDS_MAX) == 0
    finally:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    answer = None
    while answer is None or answer[0] != 200:
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{url}: {answer}"
        time.sleep(0.05)
        answer = ask(url)


def test_the_dockerfile_sets_what_the_binary_reads() -> None:
    assert environment().keys() == {"MOBULA_CACHE", "ORT_DYLIB_PATH", "HOME"}


def test_nothing_is_in_it_that_can_be_run_but_mobula(rootfs: Path) -> None:
    files = [path for path in rootfs.rglob("*") if path.is_file()]
    programs = {str(path.relative_to(rootfs)) for path in files if os.access(path, os.X_OK)}
    libraries = {path for path in programs if ".so" in Path(path).name}
    assert programs - libraries == {"usr/local/bin/mobula"}


def test_on_another_base_it_brings_only_what_is_mobulas(tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    library = runtime()
    models = tmp_path / "models"
    (models / "some--model").mkdir(parents=True)
    (models / "some--model" / "model.onnx").write_bytes(b"weights")
    command = [DOCKER / "rootfs.sh", root, os.environ["MOBULA_BIN"], library, models]
    subprocess.run(command, check=True, env={**os.environ, "LIBS": "base"})
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {
        "usr/local/bin/mobula",
        "usr/lib/libonnxruntime.so",
        "var/cache/mobula/models/some--model/model.onnx",
    }


def test_providers_of_the_runtime_come_along(tmp_path: Path) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in ("libonnxruntime.so.1.31.1", "libonnxruntime_providers_cuda.so"):
        (folder / name).write_bytes(name.encode())
    root = tmp_path / "rootfs"
    library = folder / "libonnxruntime.so.1.31.1"
    command = [DOCKER / "rootfs.sh", root, os.environ["MOBULA_BIN"], library]
    subprocess.run(command, check=True, env={**os.environ, "LIBS": "base"})
    # The library looks for them in its own folder.
    assert sorted(path.name for path in (root / "usr/lib").iterdir()) == [
        "libonnxruntime.so",
        "libonnxruntime_providers_cuda.so",
    ]


def test_the_binary_says_its_version(rootfs: Path) -> None:
    done = subprocess.run(command(rootfs, "--version"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"mobula \d+\.\d+\.\d+\n", done.stdout)


def test_a_machine_of_its_own_serves_from_it(rootfs: Path) -> None:
    http, grpc, admin = free_ports(3)
    (rootfs / "etc/serve.yaml").write_text(NOOP.format(http=http, grpc=grpc))
    with started(rootfs, "run", "/etc/serve.yaml", f"--admin-addr=127.0.0.1:{admin}") as process:
        wait_for(process, f"http://127.0.0.1:{http}/healthz")
        status, body = ask(f"http://127.0.0.1:{http}/") or (0, b"")
        assert status == 200 and body
        of_process = Path(f"/proc/{process.pid}")
        mounts = (line.split() for line in (of_process / "mountinfo").read_text().splitlines())
        [options] = [fields[5] for fields in mounts if fields[4] == "/"]
        assert "ro" in options.split(",")
        [uids] = re.findall(r"^Uid:\s+(.*)$", (of_process / "status").read_text(), re.MULTILINE)
        assert "0" not in uids.split() or os.getuid() != 0


def test_a_head_of_a_cluster_starts_from_it(rootfs: Path) -> None:
    admin, cluster = free_ports(2)
    flags = (f"--admin-addr=127.0.0.1:{admin}", f"--cluster-addr=127.0.0.1:{cluster}")
    with started(rootfs, "head", *flags) as process:
        wait_for(process, f"http://127.0.0.1:{admin}/readyz")


def test_onnx_runtime_finds_its_libraries_in_it(rootfs: Path) -> None:
    loader = next(rootfs.glob("lib64/ld-linux-*.so.*"))
    folders = {path.parent for path in rootfs.rglob("*.so*") if path.parent != loader.parent}
    search = ":".join(sorted(map(str, folders)))
    library = rootfs / "usr/lib/libonnxruntime.so"
    # The loader itself, and only our folders.
    listed = subprocess.run(
        [loader, "--inhibit-cache", "--library-path", search, "--list", library],
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert "not found" not in listed.stdout
    paths = re.findall(r"=> (\S+)", listed.stdout)
    assert paths and all(path.startswith(str(rootfs)) for path in paths), listed.stdout
