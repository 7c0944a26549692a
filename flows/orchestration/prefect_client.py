"""Opens a client for a Prefect API, which need not be the one of this process's settings, and reads whole listings with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from flows.project.loopback import is_loopback
from flows.project.prefect_address import prefect_home
from flows.project.prefect_auth import auth_string_for, read_auth_string

PAGE_SIZE = 200
"""The most that the server returns for one request, by default (3.9.1)."""

T = TypeVar("T")


@contextmanager
def open_client(
    url: str | None = None, *, timeout: float | None = None, retries: int | None = None
) -> Iterator[SyncPrefectClient]:
    """Open a synchronous client. What is not given is as Prefect's settings say; loopback is reached without a proxy.

    Args:
        url: of the API.
        timeout: seconds for each request.
        retries: how often a request is repeated that found no connection, or a busy server (status 429, 502 or 503).
    """
    updates: dict[Any, Any] = {}
    if url is not None:
        updates[PREFECT_API_URL] = url
    updates |= sign_in(url or PREFECT_API_URL.value())
    if retries is not None:
        updates[PREFECT_CLIENT_MAX_RETRIES] = retries
    with temporary_settings(updates=updates):
        # Within a flow run, `get_client` without httpx settings returns the run's own client, whatever its URL (3.9.1).
        httpx_settings: dict[str, Any] = {"timeout": PREFECT_API_REQUEST_TIMEOUT.value() if timeout is None else timeout}
        if is_loopback(PREFECT_API_URL.value() or ""):
            httpx_settings["trust_env"] = False
        with get_client(sync_client=True, httpx_settings=httpx_settings) as client:
            yield client


def sign_in(url: str | None) -> dict[Any, Any]:
    """Return the settings with which a client signs in to an API, in addition to Prefect's own.

    Args:
        url: of the API.
    """
    own = auth_string_for(url)
    if own is None and PREFECT_API_AUTH_STRING.value() in (None, read_auth_string(prefect_home())):
        # What the profile of `syncs up` holds is for its server alone.
        return {PREFECT_API_AUTH_STRING: None}
    return {} if own is None else {PREFECT_API_AUTH_STRING: own}


def read_all(read: Callable[..., list[T]], **filters: Any) -> Iterator[T]:
    """Yield everything that a method of a client reads page by page.

    Args:
        read: the method, with parameters `limit` and `offset`.
        filters: its other arguments.
    """
    offset = 0
    while True:
        page = read(limit=PAGE_SIZE, offset=offset, **filters)
        yield from page
        offset += len(page)
        if len(page) < PAGE_SIZE:
            return
