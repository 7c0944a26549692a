"""Reads Prefect Secret blocks over plain HTTP, so that a secret costs no import of Prefect. Knows no client."""

import base64
import json
import logging
import os
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

from clients.urls import public_url

log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds to wait for the Prefect server."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the credentials to wherever it points (law 9)."""

    def redirect_request(self, *_: Any) -> None:
        return None


def read_secret(name: str) -> str | None:
    """Return the value of a Secret block; `None` without a server, without its answer, and without such a block."""
    from flows.orchestration.address import api_url

    address = api_url()
    return None if address is None else read_secret_at(address, name)


def read_secret_at(address: str, name: str) -> str | None:
    """Return the value of a Secret block of the Prefect API at this address, or `None`."""
    if not address.startswith(("http://", "https://")):
        return None
    path = f"block_types/slug/secret/block_documents/name/{quote(name, safe='')}"
    url = f"{address.rstrip('/')}/{path}?include_secrets=true"
    request = urllib.request.Request(url, headers={"Accept": "application/json", **_credentials()})  # noqa: S310 - checked above
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1"):
        # A proxy from the environment cannot reach this machine's loopback, and must not see the secret.
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT) as answer:
            return _value(json.load(answer))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != HTTPStatus.NOT_FOUND:
            log.warning(
                "The Prefect server at %s does not hand out the Secret block %r: status %s", public_url(address), name, error.code
            )
    except (OSError, HTTPException, ValueError):
        log.warning("The Prefect server at %s does not answer, so the Secret block %r was not read", public_url(address), name)
    return None


def _credentials() -> dict[str, str]:
    """Sign in as Prefect's own client does: the auth string of a server of one's own, else the key of Prefect Cloud."""
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _value(document: Any) -> str | None:
    data = document.get("data") if isinstance(document, dict) else None
    value = data.get("value") if isinstance(data, dict) else None
    # A Secret block may hold any JSON; a settings field that wants text gets its JSON text.
    return value if value is None or isinstance(value, str) else json.dumps(value)
