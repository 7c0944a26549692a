"""A client for one Prefect API, whatever the settings of this process say. Knows nothing of what is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)


@contextmanager
def client_of(url: str, *, timeout: float | None = None) -> Iterator[SyncPrefectClient]:
    """Open a client for the API at this URL, whatever the settings say.

    Args:
        url: of the API.
        timeout: seconds for each request, which is then tried once only; by default as the settings say.
    """
    updates: dict[Any, Any] = {PREFECT_API_URL: url}
    if timeout is not None:
        updates |= {PREFECT_API_REQUEST_TIMEOUT: timeout, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(updates=updates), get_client(sync_client=True) as client:
        yield client
