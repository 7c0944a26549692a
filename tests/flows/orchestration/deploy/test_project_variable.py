"""What `syncs setup` records of the project on the server, and what a worker finds out by it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from pytest_httpserver import HTTPServer

from flows.orchestration.deploy.project_variable import apply_project, missing_recipients
from flows.orchestration.prefect_client import open_client
from flows.orchestration.server_names import PROJECT_VARIABLE


@pytest.fixture
def recorded(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Record a project with recipients of errors on a server; return the URL of its API."""
    monkeypatch.setenv("SYNCS_DATABASE_URL", "postgresql://me:t0p-secret@db/syncs")
    monkeypatch.setenv("SYNCS_NOTIFY_ERROR", "mailto://user:t0p-secret@example.org")
    path = f"/api/variables/name/{PROJECT_VARIABLE}"
    httpserver.expect_request("/api/csrf-token").respond_with_json({"detail": "CSRF protection is disabled."}, status=422)
    httpserver.expect_oneshot_request(path).respond_with_data(status=404)
    httpserver.expect_request("/api/variables/", method="POST").respond_with_json(
        {"id": str(uuid4()), "name": PROJECT_VARIABLE, "value": None, "tags": []}, status=201
    )
    url = httpserver.url_for("/api")
    with open_client(url) as client:
        assert apply_project(client, tmp_path).change == "created"
    (made,) = [request.json for request, _ in httpserver.log if request.method == "POST"]
    assert "t0p-secret" not in str(made)
    httpserver.expect_request(path).respond_with_json({**made, "id": str(uuid4()), "tags": []})
    return url


def test_recipients_that_the_worker_lacks_are_named(recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set for `syncs setup` and not here: nobody would be told, so that somebody has to be told of that."""
    with open_client(recorded) as client:
        assert missing_recipients(client) is None
        monkeypatch.delenv("SYNCS_NOTIFY_ERROR")
        found = missing_recipients(client)
    assert found is not None
    assert "SYNCS_NOTIFY_ERROR had recipients when `syncs setup` ran and has none here" in found
