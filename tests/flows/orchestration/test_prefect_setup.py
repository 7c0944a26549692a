"""What `syncs setup` says about a server."""

import pytest
from prefect.exceptions import PrefectHTTPStatusError
from pytest_httpserver import HTTPServer

from flows.orchestration.prefect_setup import setup


@pytest.mark.parametrize(("status", "lines"), [(200, 1), (401, 0)])
def test_open_server_is_warned_of_once(httpserver: HTTPServer, status: int, lines: int) -> None:
    """A server that asks for no sign-in gets one line before anything is made there; another one gets none."""
    httpserver.expect_request("/api/version").respond_with_json("3.9.1", status=status)
    httpserver.expect_request("/api/work_pools/syncs").respond_with_json({}, status=418)
    warned: list[str] = []
    with pytest.raises(PrefectHTTPStatusError, match="418"):
        setup(httpserver.url_for("/api"), warn=warned.append)
    assert len(warned) == lines
    assert all("PREFECT_SERVER_API_AUTH_STRING" in line and "\n" not in line for line in warned)
