"""Clients of a SOAP service of the tests, and answers that are written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clients import (
    SoapClient,
)
from tests.support.adapter_servers import Shop

Serve = Callable[..., Shop]

TOKEN = "token-that-nobody-may-see"


@pytest.fixture(params=[11, 12], ids=["soap11", "soap12"])
def either(request: pytest.FixtureRequest, serve_shop: Serve) -> Shop:
    """A service of each version."""
    return serve_shop(request.param)


def client_of(shop: Shop, **options: Any) -> SoapClient:
    """Return a client of a service."""
    return SoapClient(f"{shop.url}?wsdl", **options)


def says(body: str | bytes, status: int = 200, **headers: str) -> Callable[[str, str], Any]:
    """Return an answer to every POST."""
    content = body.encode() if isinstance(body, str) else body
    named = {"Content-Type": "text/xml; charset=utf-8", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda method, path: (status, named, content) if method == "POST" else None


def fault11(code: str, text: str = "no", extra: str = "") -> str:
    """Return a fault of SOAP 1.1."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
        f"<faultcode {extra}>{code}</faultcode><faultstring>{text}</faultstring></s:Fault></s:Body></s:Envelope>"
    )


def fault12(code: str, sub: str = "", text: str = "no") -> str:
    """Return a fault of SOAP 1.2."""
    subcode = f"<s:Subcode><s:Value>{sub}</s:Value></s:Subcode>" if sub else ""
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>'
        f'<s:Code><s:Value>s:{code}</s:Value>{subcode}</s:Code><s:Reason><s:Text xml:lang="en">{text}</s:Text></s:Reason>'
        "</s:Fault></s:Body></s:Envelope>"
    )
