"""The admin API answers as Ray's head does: statuses, texts, the strict keys of the document."""

from __future__ import annotations

import re

import pytest
import requests
from conftest import NewServer
from ray.serve.schema import ServeInstanceDetails
from support.config import Json, deployment, noop
from support.server import APPLICATIONS, Server
from support.waiting import wait_until

NOT_RUNNING: Json = {
    "controller_info": {},
    "proxies": {},
    "applications": {},
    "target_capacity": None,
}
BROWSERS = [
    {"user-agent": "Mozilla/5.0 (X11; Linux x86_64)"},
    {"origin": "http://evil.example"},
    {"referer": "http://evil.example/page"},
    {"sec-fetch-mode": "cors"},
]


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> Server:
    made = new_module_server()
    secret = {"runtime_env": {"env_vars": {"TOKEN": "s3cret"}}}
    return made.start(made.config([{**noop(), **secret}]))


def ask(server: Server, method: str, path: str, **options: object) -> requests.Response:
    return requests.request(method, server.admin + path, timeout=10, **options)  # type: ignore[arg-type]


def test_the_version_is_one_that_rays_command_accepts(server: Server) -> None:
    for path in ("/api/ray/version", "/api/version"):
        body = ask(server, "GET", path).json()
        assert body["version"] == "4"
        assert re.fullmatch(r"\d+\.\d+\.\d+", body["ray_version"])
        assert {"ray_commit", "session_name"} <= set(body)


@pytest.mark.parametrize(
    "path", ["/api/gcs_healthz", "/api/local_raylet_healthz", "/livez", "/readyz"]
)
def test_health_paths_answer_200(server: Server, path: str) -> None:
    assert ask(server, "GET", path).status_code == 200


def test_the_document_parses_as_rays_own_class(server: Server) -> None:
    document = server.document()
    parsed = ServeInstanceDetails(**document)
    assert parsed.applications["noop"].status == "RUNNING"
    assert re.fullmatch(r"[0-9a-f]{56}", document["controller_info"]["node_id"])
    (replica,) = document["applications"]["noop"]["deployments"]["Noop"]["replicas"]
    assert re.fullmatch(r"[a-z0-9]{8}", replica["replica_id"])
    assert replica["actor_name"] == f"SERVE_REPLICA::noop#Noop#{replica['replica_id']}"
    assert replica["pid"] in server.pids()


def test_only_the_path_with_its_slash_exists(server: Server) -> None:
    assert ask(server, "GET", APPLICATIONS.rstrip("/")).status_code == 404
    assert ask(server, "GET", "/api/serve/deployments/").status_code == 404
    refused = ask(server, "POST", APPLICATIONS)
    assert refused.status_code == 405
    assert {"GET", "PUT", "DELETE"} <= set(re.findall("[A-Z]+", refused.headers["allow"]))


def test_applications_are_filtered_by_origin(server: Server) -> None:
    def names(api_type: str) -> list[str]:
        return list(
            ask(server, "GET", f"{APPLICATIONS}?api_type={api_type}").json()["applications"]
        )

    assert names("declarative") == names("DECLARATIVE") == ["noop"]
    assert names("imperative") == []
    wrong = ask(server, "GET", f"{APPLICATIONS}?api_type=other")
    assert wrong.status_code == 400
    assert "declarative" in wrong.text and "imperative" in wrong.text


@pytest.mark.parametrize("headers", BROWSERS, ids=lambda headers: next(iter(headers)))
def test_a_browser_may_not_write_and_sees_no_secret(
    server: Server, headers: dict[str, str]
) -> None:
    for method in ("PUT", "DELETE", "POST"):
        answer = ask(server, method, APPLICATIONS, headers=headers, json={"applications": []})
        assert answer.status_code == 405, method
    assert list(server.document()["applications"]) == ["noop"]
    seen = ask(server, "GET", APPLICATIONS, headers=headers)
    assert seen.status_code == 200
    assert "s3cret" not in seen.text
    assert "s3cret" in ask(server, "GET", APPLICATIONS).text


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", ""),
        (b"applications: []", ""),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
        (b"[]", ""),
        (b"{}", "applications"),
        (b'{"import_path": "mobula.apps:noop"}', "applications"),
        (b'{"applications": [{"name": "a"}]}', "import_path"),
        (b'{"applications": [], "http_options": {"port": "http"}}', "http_options.port"),
        (b'{"applications": [], "logging_config": {"colour": "red"}}', "colour"),
    ],
)
def test_a_refused_put_is_400_in_plain_text_and_changes_nothing(
    server: Server, body: bytes, named: str
) -> None:
    before = server.document()["applications"]
    answer = ask(server, "PUT", APPLICATIONS, data=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text and named in answer.text
    assert server.document()["applications"] == before


def test_the_scale_route_needs_the_applications_leave(server: Server) -> None:
    def scale(application: str, body: object) -> requests.Response:
        path = f"/api/v1/applications/{application}/deployments/Noop/scale"
        return ask(server, "POST", path, json=body)

    assert scale("nobody", {"target_num_replicas": 1}).status_code == 404
    refused = scale("noop", {"target_num_replicas": 2})
    assert refused.status_code == 412
    assert "error" in refused.json()
    assert len(server.replicas("noop", "Noop")) == 1


def test_delete_is_200_with_and_without_applications(server: Server) -> None:
    for _ in range(2):
        answer = ask(server, "DELETE", APPLICATIONS)
        assert (answer.status_code, answer.content) == (200, b"")
        assert server.document() == NOT_RUNNING
    wait_until(lambda: not _listens(server), "the ingress is closed")
    # And it opens again with the next config.
    again = noop()
    again["deployments"] = [deployment("Noop", num_replicas=2)]
    server.deploy(server.config([again]))
    server.wait_healthy()
    assert len(server.replicas("noop", "Noop")) == 2


def _listens(server: Server) -> bool:
    try:
        requests.get(f"{server.url}/-/healthz", timeout=2)
        return True
    except requests.ConnectionError:
        return False
