"""Reads Prefect Secret blocks over HTTP, without importing Prefect, which takes a second."""

import base64
import json
import logging
import os
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from clients.urls import public_url
from flows.project.loopback import is_loopback
from flows.project.prefect_address import api_url
from flows.project.prefect_auth import auth_string_for

log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds to wait for the Prefect server."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the credentials to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def read_secret(name: str) -> str | None:
    """Return the value of a Secret block; `None` if there is no server, no answer or no such block."""
    address = api_url()
    return None if address is None else read_secret_at(address, name)


def read_secret_at(address: str, name: str) -> str | None:
    """Return the value of a Secret block of the Prefect API at this address, or `None`."""
    if not address.startswith(("http://", "https://")):
        return None
    path = f"block_types/slug/secret/block_documents/name/{quote(name, safe='')}"
    url = f"{address.rstrip('/')}/{path}?include_secrets=true"
    request = urllib.request.Request(url, headers={"Accept": "application/json", **_credentials(address)})  # noqa: S310 - the scheme is checked above
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if is_loopback(address):
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


def _credentials(address: str) -> dict[str, str]:
    """Return the header that Prefect's own client sends: the auth string of a self-hosted server, or the key of Prefect Cloud."""
    if pair := auth_string_for(address) or os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _value(document: Any) -> str | None:
    data = document.get("data") if isinstance(document, dict) else None
    value = data.get("value") if isinstance(data, dict) else None
    # A Secret block may hold any JSON value; a value that is not text is passed on as its JSON text.
    return value if value is None or isinstance(value, str) else json.dumps(value)
