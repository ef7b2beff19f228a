"""Fixtures: a server with the models for the whole run, and a factory for servers of one test.

Every server is ended by pid, and its log is printed with a test that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.config import app, deployment, noop, sleep
from support.server import Server

NewServer = Callable[..., Server]

LIVE: list[Server] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, None]:
    """Adds the logs of the living servers to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for server in LIVE:
            report.sections.append((f"mobula log {server.log_path}", server.log_tail()))


@contextmanager
def _servers(folders: pytest.TempPathFactory) -> Iterator[NewServer]:
    mine: list[Server] = []

    def make(**options: Any) -> Server:
        server = Server(folders.mktemp("mobula"), **options)
        mine.append(server)
        LIVE.append(server)
        return server

    try:
        yield make
    finally:
        for server in mine:
            server.stop()
            LIVE.remove(server)


@pytest.fixture
def new_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewServer]:
    """Makes servers that end with the test."""
    with _servers(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def new_module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewServer]:
    """Makes servers that end with the module."""
    with _servers(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="session")
def rag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with the three default models, and beside them echo, no-op and one that is late."""
    with _servers(tmp_path_factory) as make:
        server = make()
        applications = [
            app("rag", "rag", "/"),
            app("side-echo", "echo", "/echo", deployment("Echo")),
            noop("side-noop"),
            sleep("side-sleep", "/sleep", 3600),
        ]
        yield server.start(server.config(applications))
