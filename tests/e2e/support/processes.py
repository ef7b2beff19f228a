"""Looks at processes through /proc, so that a child is found even after its parent is gone.

Every server of the tests is started with its own value of one environment variable; whoever
carries that value belongs to it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

MARK = "MOBULA_TEST_SERVER"


def is_alive(pid: int) -> bool:
    """True unless the process is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def marked(value: str) -> list[int]:
    """The living processes that were started with this mark, parents first."""
    wanted = f"{MARK}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in environ and is_alive(int(entry.name)):
            found.append(int(entry.name))
    return sorted(found)


def kill_9(pid: int) -> None:
    """SIGKILL by pid; a process that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
