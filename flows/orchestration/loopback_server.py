"""Runs Prefect's server on loopback behind the check of Host and Origin: the program that `syncs up` starts.

Prefect has no setting for such a check (3.9.1). In place of `prefect server start`, this gives its application to uvicorn, with
the same options. Requests that the server sends to itself do not come through here.
"""

import os

import uvicorn
from prefect.server.api.clients import OrchestrationClient
from prefect.server.api.server import create_app
from prefect.server.events import actions
from prefect.server.events.clients import PrefectServerEventsAPIClient
from prefect.settings import get_current_settings

from flows.orchestration.host_check import ALLOWED_HOSTS, HostCheck, allowed_hosts


class SignedInEventsClient(PrefectServerEventsAPIClient):
    """The client with which an automation pauses or resumes another one. Prefect's own does not sign in (3.9.1)."""

    def __init__(self, additional_headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self._http_client = OrchestrationClient(additional_headers)._http_client


def main() -> None:
    """Serve until SIGTERM. All is told by environment variables, see `flows.orchestration.server_environment`."""
    settings = get_current_settings().server
    actions.PrefectServerEventsAPIClient = SignedInEventsClient  # type: ignore[attr-defined]
    port = settings.api.port
    app = HostCheck(create_app(final=True), port=port, allowed=allowed_hosts(os.environ.get(ALLOWED_HOSTS, "")))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
