"""Adds the logs of what runs to a test that fails. A conftest imports both names."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

LIVE: list[Callable[[], list[tuple[str, str]]]] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, None]:
    """Adds the logs of what runs to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for logs in LIVE:
            report.sections.extend(logs())
