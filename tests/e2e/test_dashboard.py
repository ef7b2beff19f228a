"""The dashboard, in a real browser: what it shows, when it changes, and what it never does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from conftest import NewServer
from support.browser import Browser, Tab
from support.config import app, deployment, noop
from support.server import Server, binary
from support.waiting import wait_until

HOSTILE = "<img src=x onerror=document.title='owned'>"
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests; each opens its own tab."""
    made = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield made
    finally:
        made.stop()


def only_from(tab: Tab, server: Server) -> None:
    """Nothing was asked of anybody else, and the page complained of nothing."""
    others = [url for url in tab.requests if not url.startswith(f"{server.admin}/")]
    assert [url for url in others if url != "about:blank"] == []
    assert tab.errors == []


def deploy_by_cli(server: Server, folder: Path, *applications: dict[str, object]) -> None:
    """As a person does it."""
    path = folder / "deployed.yaml"
    path.write_text(yaml.safe_dump(server.config(list(applications))))
    command = [binary(), "deploy", str(path), "--address", server.admin]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_a_deploy_by_the_command_line_appears_without_reloading(
    new_server: NewServer, browser: Browser, tmp_path: Path
) -> None:
    server = new_server().start(None)
    tab = browser.open(server.admin)
    tab.wait_text("Nothing is deployed.", "#headline")
    assert "mobula deploy my-serve.yaml" in tab.text("#empty")
    tab.evaluate("globalThis.notReloaded = true")

    deploy_by_cli(server, tmp_path, noop("first", num_replicas=2))
    tab.wait_text("1 of 1 applications run.", "#headline")
    tab.wait_text("2 / 2", "#applications")
    assert "first" in tab.text("#applications")
    assert "config a config was accepted" in tab.text("#decisions").replace("\n", " ")

    # What is open stays open, and what is typed stays there, while things change.
    tab.click(".disclose")
    tab.wait_for("document.querySelectorAll('.replicas tbody tr').length === 2")
    tab.evaluate("document.getElementById('filter').focus()")
    tab.type("first")
    deploy_by_cli(server, tmp_path, noop("first", num_replicas=3), noop("second", "/second"))
    tab.wait_text("2 of 2 applications run.", "#headline")
    tab.wait_text("3 / 3", "#applications")
    tab.wait_for("document.querySelectorAll('.replicas tbody tr').length === 3")
    assert tab.evaluate("document.getElementById('filter').value") == "first"
    assert "second" not in tab.text("#applications")
    assert "mobula rollback 1" in tab.text("#revisions")
    assert tab.evaluate("globalThis.notReloaded") is True
    only_from(tab, server)


def test_what_fails_is_said_with_its_reason(new_server: NewServer, browser: Browser) -> None:
    server = new_server(num_cpus=1).start(None)
    large = app("large", "noop", "/large", deployment("Noop", num_cpus=7))
    assert server.put(server.config([noop("small"), large])).status_code == 200
    tab = browser.open(server.admin)
    tab.wait_text("1 of 2 applications run; application large is DEPLOYING.", "#headline")
    tab.wait_text("waiting: 0 of 1 replicas placed; needs 7 CPU", "#concerns")
    tab.wait_text("waiting: 0 of 1 replicas placed", "#applications")
    tab.click("#only-unsettled")
    tab.wait_for("!document.getElementById('applications').innerText.includes('small')")
    only_from(tab, server)


def test_hostile_names_and_messages_are_shown_as_text(
    new_server: NewServer, browser: Browser
) -> None:
    server = new_server().start(None)
    hostile = noop(HOSTILE, "/hostile")
    # The error of its replica names the model.
    failing = app("bad", "reranker", "/bad", deployment("Reranker"), args={"model": HOSTILE})
    assert server.put(server.config([hostile, failing])).status_code == 200
    server.wait_app(HOSTILE, "RUNNING")
    tab = browser.open(server.admin)
    tab.wait_text(HOSTILE, "#applications")
    tab.wait_text(f"'{HOSTILE}' is not a model name", "#concerns")
    tab.wait_text(f"'{HOSTILE}' is not a model name", "#decisions")
    tab.click(".disclose")
    tab.wait_for("document.querySelectorAll('.replicas tbody tr').length === 1")
    # The one image of the page is its own.
    assert tab.evaluate("document.images.length") == 1
    assert "owned" not in tab.evaluate("document.title")
    only_from(tab, server)


def test_the_token_is_asked_for_and_a_wrong_one_is_refused(
    new_server: NewServer, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    server = new_server(more_args=["--admin-token-file", str(path)]).start(None)
    assert requests.get(f"{server.admin}/api/mobula/overview", timeout=5).status_code == 401
    tab = browser.open(server.admin)
    tab.wait_text("This head asks for a token", "#token-form")
    assert not tab.sees("#main")

    tab.wait_for("document.activeElement.id === 'token'")
    tab.type("wrong-horse-battery-staple", enter=True)
    tab.wait_text("The head refused this token.", "#token-form")
    tab.type(TOKEN, enter=True)
    tab.wait_text("Nothing is deployed.", "#headline")
    assert not tab.sees("#token-form")

    tab.click("#forget")
    tab.wait_text("This head asks for a token", "#token-form")
    assert not tab.sees("#main")
    assert tab.evaluate("sessionStorage.length") == 0
    # The browser itself notes each 401 and 403; the page has nothing to add.
    assert all("status of 40" in error for error in tab.errors), tab.errors
    assert all(url.startswith(server.admin) for url in tab.requests), tab.requests


def test_a_head_that_is_gone_is_said_and_one_that_is_back_too(
    new_server: NewServer, browser: Browser
) -> None:
    server = new_server()
    server.start(server.config([noop("steady")]))
    tab = browser.open(server.admin)
    tab.wait_text("1 of 1 applications run.", "#headline")
    assert not tab.sees("#away")
    server.stop()
    tab.wait_text("No head answers since", "#away")
    assert tab.sees("#away")
    assert "steady" in tab.text("#applications"), "what it said last stays there"
    server.start(None)
    wait_until(lambda: not tab.sees("#away"), "the banner to go")
    tab.wait_text("1 of 1 applications run.", "#headline")
    # The browser itself notes each request that nobody answered.
    assert all("ERR_CONNECTION" in error for error in tab.errors), tab.errors


def test_a_tab_that_nobody_sees_does_not_ask(new_server: NewServer, browser: Browser) -> None:
    server = new_server().start(None)
    hidden, seen = browser.open(server.admin), browser.open(server.admin)
    for tab in (hidden, seen):
        tab.wait_text("Nothing is deployed.", "#headline")
    hide = "Object.defineProperty(document, 'hidden', {{value: {0}, configurable: true}})"
    change = "document.dispatchEvent(new Event('visibilitychange'))"
    hidden.evaluate(f"{hide.format('true')}; {change}")

    def asked(tab: Tab) -> int:
        tab.evaluate("0")
        return sum(url.endswith("/overview") for url in tab.requests)

    at_first, wanted = asked(hidden), asked(seen) + 3
    wait_until(lambda: asked(seen) >= wanted, "the other tab to ask three times")
    assert at_first > 0
    assert asked(hidden) <= at_first + 1, "one may have been under way"
    server.deploy(server.config([noop("unseen")]))
    seen.wait_text("unseen", "#applications")
    assert "unseen" not in hidden.text("#applications")
    hidden.evaluate(f"{hide.format('false')}; {change}")
    hidden.wait_text("unseen", "#applications")
    only_from(hidden, server)
