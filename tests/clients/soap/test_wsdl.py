"""The WSDL of a service: kept, renewed, and refused where it points elsewhere."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from clients import (
    AuthRefusedError,
    Bearer,
    ClientError,
    RejectedError,
    ServerError,
    SoapClient,
    UnreadableError,
)
from clients.soap import wsdl
from tests.support.adapter_servers import Shop
from tests.support.soap_answers import TOKEN, Serve, client_of

# -- the WSDL


def test_wsdl_is_kept_and_its_absence_survived(shop: Shop) -> None:
    """A second client asks for it no more; when it is old and cannot be had, the old one goes on serving."""
    with client_of(shop) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    with client_of(shop) as client:
        client.call("add", a=1, b=2)
        assert client.requests == 1
    for status, body in ((503, b""), (404, b"gone"), (200, b"<html>maintenance</html>"[:0] + b"<!DOCTYPE html><html>")):
        shop.instead = lambda method, path, status=status, body=body: (status, {}, body) if method == "GET" else None  # type: ignore[misc]
        with client_of(shop, max_age=0) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
    shop.instead = lambda method, path: (401, {}, b"") if method == "GET" else None
    with client_of(shop, max_age=0) as client, pytest.raises(AuthRefusedError):
        client.call("add", a=1, b=2)


def test_wsdl_in_a_folder_outlives_the_process(shop: Shop, tmp_path: Path) -> None:
    """What another process kept serves where the service does not give its WSDL."""
    with client_of(shop, cache=tmp_path / "kept") as client:
        client.call("add", a=1, b=2)
    wsdl.forget()
    shop.instead = lambda method, path: (503, {}, b"") if method == "GET" else None
    with client_of(shop, cache=tmp_path / "kept") as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    wsdl.forget()
    with client_of(shop) as client, pytest.raises(ServerError):
        client.call("add", a=1, b=2)


def test_wsdl_that_failed_is_asked_for_again_by_the_next_call(shop: Shop) -> None:
    """One bad moment is not remembered."""
    shop.instead = lambda method, path: (503, {}, b"") if method == "GET" else None
    with client_of(shop) as client:
        with pytest.raises(ServerError):
            client.call("add", a=1, b=2)
        shop.instead = lambda method, path: None
        assert client.call("add", a=1, b=2) == {"addResult": 3}


def wsdl_of(shop: Shop) -> str:
    """Return the service's own WSDL."""

    with urllib.request.urlopen(f"{shop.url}?wsdl") as answer:
        text: str = answer.read().decode()
    return text


def serve_wsdl(shop: Shop, text: str, **others: str) -> None:
    """Let the service give another WSDL, and further documents by their path."""
    documents = {"/?wsdl": text, **{f"/{name.replace('_', '.')}": body for name, body in others.items()}}
    shop.instead = lambda method, path: (
        (200, {"Content-Type": "text/xml"}, documents[path].encode()) if method == "GET" and path in documents else None
    )


def test_wsdl_that_sends_calls_elsewhere_is_refused(shop: Shop, serve_shop: Serve) -> None:
    """Credentials go to the origin they were declared for (law 9): nothing is sent, unless the address is declared too."""
    elsewhere = serve_shop()
    serve_wsdl(shop, wsdl_of(shop).replace(shop.url, elsewhere.url))

    with client_of(shop, auth=Bearer(TOKEN)) as client, pytest.raises(RejectedError, match="another origin"):
        client.call("add", a=1, b=2)
    assert elsewhere.headers == []
    with client_of(shop, auth=Bearer(TOKEN), address=elsewhere.url) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    assert [one.get("authorization") for one in elsewhere.headers] == [f"Bearer {TOKEN}"]


IMPORT = '<xs:import namespace="extra" schemaLocation="{}"/>'
EXTRA = (
    '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="extra">'
    '<xs:element name="x" type="xs:string"/></xs:schema>'
)


def importing(text: str, location: str) -> str:
    """Return a WSDL whose first schema imports another one."""
    head, mark, rest = text.partition("<xs:schema ")
    inside, close, rest = rest.partition(">")
    return f"{head}{mark}{inside}{close}{IMPORT.format(location)}{rest}"


def test_schema_of_the_same_origin_is_imported(shop: Shop) -> None:
    """With the credentials, by a relative or an absolute address."""
    for location in ("extra.xsd", f"{shop.url}extra.xsd"):
        text = wsdl_of(shop)
        shop.headers.clear()
        wsdl.forget()
        serve_wsdl(shop, importing(text, location), extra_xsd=EXTRA)
        with client_of(shop, auth=Bearer(TOKEN)) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
            assert client.requests == 3
        assert {one.get("authorization") for one in shop.headers} == {f"Bearer {TOKEN}"}
        shop.instead = lambda method, path: None


@pytest.mark.parametrize("kind", ["http", "file", "path", "redirect", "ftp"])
def test_wsdl_that_points_elsewhere_is_refused(shop: Shop, serve_shop: Serve, tmp_path: Path, kind: str) -> None:
    """Another origin, a file of this machine, a redirect: nothing is fetched from there, and no credentials go there."""
    elsewhere = serve_shop()
    serve_extra = lambda method, path: (200, {}, EXTRA.encode())  # noqa: E731
    elsewhere.instead = serve_extra
    (tmp_path / "extra.xsd").write_text(EXTRA)
    location = {
        "http": f"{elsewhere.url}extra.xsd", "file": (tmp_path / "extra.xsd").as_uri(), "path": "../../../../etc/passwd",
        "redirect": "moved.xsd", "ftp": "ftp://127.0.0.1/extra.xsd",
    }[kind]  # fmt: skip
    text = importing(wsdl_of(shop), location)
    serve_wsdl(shop, text)
    served = shop.instead
    if kind == "redirect":
        shop.instead = lambda method, path: (
            (302, {"Location": f"{elsewhere.url}extra.xsd"}, b"") if path == "/moved.xsd" else served(method, path)
        )
    with client_of(shop, auth=Bearer(TOKEN)) as client, pytest.raises(ClientError) as caught:
        client.call("add", a=1, b=2)

    assert isinstance(caught.value, RejectedError | ServerError | UnreadableError)
    if kind in ("http", "file", "redirect"):
        assert isinstance(caught.value, RejectedError)
        assert "another origin" in str(caught.value) or "local file" in str(caught.value)
    assert elsewhere.headers == []
    if kind == "http":
        with client_of(shop, auth=Bearer(TOKEN), trusted=[elsewhere.url]) as client:
            assert client.call("add", a=1, b=2) == {"addResult": 3}
        assert [one.get("authorization") for one in elsewhere.headers] == [None]


def test_imports_without_end_are_refused(shop: Shop) -> None:
    """Each schema imports the next one."""
    text = importing(wsdl_of(shop), "1.xsd")

    def endless(method: str, path: str) -> Any:
        if method != "GET":
            return None
        if path == "/?wsdl":
            return 200, {}, text.encode()
        number = int(path[1:].partition(".")[0])
        space = "extra" if number == 1 else f"extra{number}"
        schema = EXTRA.replace('targetNamespace="extra"', f'targetNamespace="{space}"')
        return (
            200,
            {},
            schema.replace(
                "<xs:element", f'<xs:import namespace="extra{number + 1}" schemaLocation="{number + 1}.xsd"/><xs:element'
            ).encode(),
        )

    shop.instead = endless
    with client_of(shop) as client, pytest.raises(ClientError):
        client.call("add", a=1, b=2)
    assert client.requests <= 202


def test_schema_of_xml_itself_is_at_hand(shop: Shop) -> None:
    """WSDLs import xml:lang without saying where it is; nobody asks www.w3.org."""
    text = wsdl_of(shop)
    head, mark, rest = text.partition("<xs:schema ")
    inside, close, rest = rest.partition(">")
    serve_wsdl(shop, f'{head}{mark}{inside}{close}<xs:import namespace="http://www.w3.org/XML/1998/namespace"/>{rest}')
    with client_of(shop) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}


def test_wsdl_in_a_file(shop: Shop, tmp_path: Path) -> None:
    """With credentials its address has to be declared: a file has no origin."""
    path = tmp_path / "shop.wsdl"
    path.write_text(importing(wsdl_of(shop), "extra.xsd"))
    (tmp_path / "extra.xsd").write_text(EXTRA)

    with SoapClient(path) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    with SoapClient(path.as_uri(), auth=Bearer(TOKEN), address=shop.url) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
    with SoapClient(path, auth=Bearer(TOKEN)) as client, pytest.raises(RejectedError, match="another origin"):
        client.call("add", a=1, b=2)
    with SoapClient(tmp_path / "no.wsdl") as client, pytest.raises(RejectedError, match="cannot be read"):
        client.call("add", a=1, b=2)


@pytest.mark.parametrize("text", ["<a/>", "hello", "<definitions xmlns='http://schemas.xmlsoap.org/wsdl/'/>"])
def test_wsdl_that_is_none_is_said_so(shop: Shop, text: str) -> None:
    """Not XML, not a WSDL, without a service."""
    shop.instead = lambda method, path: (200, {}, text.encode())
    with client_of(shop) as client, pytest.raises(ClientError) as caught:
        client.call("add", a=1, b=2)
    assert isinstance(caught.value, UnreadableError | RejectedError)
