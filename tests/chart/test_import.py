"""What `mobula import` writes is taken by the chart, and by Mobula where no Python is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT, objects, template
from test_binary import mobula

MANIFESTS = ROOT / "crates/mobula/src/client/import/testdata"


def imported(name: str, folder: Path) -> Path:
    done = mobula("import", str(MANIFESTS / f"{name}.yaml"), "--output-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["embedder-reranker", "classifier-gpu", "python"])
def test_the_chart_renders_with_imported_values(name: str, tmp_path: Path) -> None:
    folder = imported(name, tmp_path)
    config = f"serveConfig={folder / 'serve.yaml'}"
    done = template("--values", str(folder / "values.yaml"), "--set-file", config)
    assert done.returncode == 0, done.stderr
    services = {item["metadata"]["name"] for item in objects(done.stdout)}
    assert any(service.endswith("-serve-svc") for service in services)


@pytest.mark.parametrize("name", ["embedder-reranker", "classifier-gpu"])
def test_an_imported_config_can_be_deployed(name: str, tmp_path: Path) -> None:
    done = mobula("validate", str(imported(name, tmp_path) / "serve.yaml"))
    assert done.returncode == 0, done.stderr


def test_python_that_is_left_is_named(tmp_path: Path) -> None:
    done = mobula("validate", str(imported("python", tmp_path) / "serve.yaml"))
    assert done.returncode != 0
    assert "applications[0].import_path" in done.stderr
    assert "applications[1]" not in done.stderr
