"""The exposition on the admin port: Ray's names with Ray's labels, and the models' own."""

from __future__ import annotations

import pytest
import requests
from prometheus_client.samples import Sample
from support.exposition import samples, total
from support.server import Server
from support.waiting import wait_until

# Sample name -> the labels that Ray's dashboards group by.
PROXY: dict[str, set[str]] = {
    "ray_serve_num_http_requests_total": {"route", "method", "application", "status_code"},
    "ray_serve_num_http_error_requests_total": {"route", "error_code", "method", "application"},
    "ray_serve_http_request_latency_ms_bucket": {"method", "route", "application", "status_code"},
    "ray_serve_num_ongoing_http_requests": {"node_id", "node_ip_address"},
    "ray_serve_proxy_status": {"node_id", "node_ip_address"},
}
ROUTER: dict[str, set[str]] = {
    "ray_serve_handle_request_counter_total": {"deployment", "route", "application"},
    "ray_serve_num_router_requests_total": {"deployment", "route", "application"},
    "ray_serve_deployment_queued_queries": {"deployment", "application"},
    "ray_serve_num_ongoing_requests_at_replicas": {"deployment", "application"},
}
REPLICA: dict[str, set[str]] = {
    "ray_serve_deployment_request_counter_total": {"application", "deployment", "replica", "route"},
    "ray_serve_deployment_processing_latency_ms_bucket": {"application", "deployment", "replica"},
    "ray_serve_replica_processing_queries": {"application", "deployment", "replica"},
    "ray_serve_deployment_replica_starts_total": {"application", "deployment", "replica"},
    "ray_serve_actual_batch_size_bucket": {"application", "deployment", "replica"},
    "ray_serve_batch_execution_time_ms_bucket": {"application", "deployment", "replica"},
    "ray_serve_batch_wait_time_ms_bucket": {"application", "deployment", "replica"},
}
CONTROLLER: dict[str, set[str]] = {
    "ray_serve_application_status": {"application"},
    "ray_serve_deployment_status": {"deployment", "application"},
    "ray_serve_deployment_replica_healthy": {"deployment", "application", "replica"},
    "mobula_build_info": {"version", "commit", "protocol"},
    "mobula_head_members": {"role", "version"},
}
MODELS: dict[str, set[str]] = {
    "rag8s_inference_requests_total": {"model"},
    "rag8s_inference_latency_seconds_bucket": {"model"},
    "mobula_model_sessions": {"application", "deployment", "replica", "device"},
}
RUNNING, HEALTHY, PROXY_HEALTHY = 6, 6, 2


@pytest.fixture(scope="module")
def found(rag: Server) -> dict[str, list[Sample]]:
    """The samples after each kind of request was made once."""
    assert requests.get(f"{rag.url}/noop", timeout=10).status_code == 200
    for path, body in [
        ("/embed", {"inputs": "x"}),
        ("/rerank", {"query": "x", "texts": ["y"]}),
        ("/infer", {"inputs": ["x"]}),
    ]:
        assert requests.post(rag.url + path, json=body, timeout=60).status_code == 200
    assert requests.post(f"{rag.url}/embed", json={}, timeout=10).status_code >= 400
    return samples(rag.metrics())


@pytest.mark.parametrize(
    ("name", "labels"),
    [item for group in (PROXY, ROUTER, REPLICA, CONTROLLER, MODELS) for item in group.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_metric_appears_with_its_labels(
    found: dict[str, list[Sample]], name: str, labels: set[str]
) -> None:
    assert name in found, f"names that are there: {sorted(found)}"
    for sample in found[name]:
        assert labels <= set(sample.labels), sample


def test_status_gauges_say_what_the_document_says(found: dict[str, list[Sample]]) -> None:
    applications = {s.labels["application"]: s.value for s in found["ray_serve_application_status"]}
    names = ("rag", "side-echo", "side-noop", "side-sleep")
    assert applications == dict.fromkeys(names, RUNNING)
    assert {s.value for s in found["ray_serve_deployment_status"]} == {HEALTHY}
    assert {s.value for s in found["ray_serve_deployment_replica_healthy"]} == {1}
    assert {s.value for s in found["ray_serve_proxy_status"]} == {PROXY_HEALTHY}


def test_requests_are_counted_once_at_each_place(rag: Server) -> None:
    names = {
        "ray_serve_num_http_requests_total": {"route": "/noop", "status_code": "200"},
        "ray_serve_deployment_request_counter_total": {"application": "side-noop"},
        "ray_serve_num_router_requests_total": {"application": "side-noop"},
    }

    def counts() -> list[float]:
        text = rag.metrics()
        return [total(text, name, **labels) for name, labels in names.items()]

    before = counts()
    for _ in range(7):
        assert requests.get(f"{rag.url}/noop", timeout=10).status_code == 200
    wait_until(lambda: counts() == [count + 7 for count in before], "7 more at each place", 5)


def test_a_refused_request_counts_as_an_error_of_its_application(rag: Server) -> None:
    def errors() -> float:
        return total(rag.metrics(), "ray_serve_num_http_error_requests_total", application="rag")

    before = errors()
    assert requests.post(f"{rag.url}/embed", data=b"not json", timeout=10).status_code >= 400
    wait_until(lambda: errors() == before + 1, "one more error", 5)


def test_a_request_that_no_replica_answers_is_counted_by_its_reason(rag: Server) -> None:
    def counted() -> float:
        name = "mobula_router_problems_total"
        return total(rag.metrics(), name, ingress="http", reason="timed_out")

    before = counted()
    soon = {"x-request-timeout-seconds": "0.05"}
    assert requests.get(f"{rag.url}/sleep", headers=soon, timeout=10).status_code == 408
    wait_until(lambda: counted() == before + 1, "one more", 5)


def test_inference_is_counted_per_model(rag: Server) -> None:
    def count() -> float:
        return total(rag.metrics(), "rag8s_inference_requests_total")

    before = count()
    for _ in range(3):
        answer = requests.post(f"{rag.url}/embed", json={"inputs": ["a", "b"]}, timeout=60)
        assert answer.status_code == 200
    wait_until(lambda: count() >= before + 3, "three more", 5)


def test_liveness_and_readiness_answer_on_the_admin_port(rag: Server) -> None:
    for path in ("/livez", "/readyz"):
        assert requests.get(rag.admin + path, timeout=10).status_code == 200
