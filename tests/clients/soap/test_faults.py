"""Faults and HTTP statuses of a SOAP service, and what each of them means for a caller."""

from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients import (
    ApiKey,
    AuthRefusedError,
    Basic,
    Bearer,
    ClientError,
    GoneError,
    RateLimitedError,
    RedirectRefusedError,
    RejectedError,
    ServerError,
    SoapClient,
)
from clients.soap.fault import Fault, fault_error
from tests.support.adapter_servers import Shop
from tests.support.soap_answers import TOKEN, Serve, client_of, fault11, fault12, says

# -- faults


FAULTS: list[tuple[str, type[ClientError]]] = [
    ("Client", RejectedError), ("Client.Whatever", RejectedError), ("Server", ServerError), ("Server.Busy", ServerError),
    ("Client.Authentication", AuthRefusedError), ("Server.Unauthorized", AuthRefusedError),
    ("MustUnderstand", RejectedError), ("VersionMismatch", RejectedError), ("TooManyRequests", RateLimitedError),
    ("FailedAuthentication", AuthRefusedError), ("InvalidSecurityToken", AuthRefusedError), ("NoSuchThing", RejectedError),
    ("INVALID_SESSION_ID", AuthRefusedError), ("AccessDeniedException", AuthRefusedError),
    ("AuthenticationFault", AuthRefusedError),
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(("code", "kind"), FAULTS, ids=[code for code, _ in FAULTS])
def test_fault_codes_have_their_meaning(shop: Shop, status: int, code: str, kind: type[ClientError]) -> None:
    """With a prefix or without, and whatever the HTTP status says, 200 included."""
    for prefix, extra in (("", ""), ("s:", ""), ("wsse:", 'xmlns:wsse="http://docs.oasis-open.org/wss"'), ("undeclared:", "")):
        shop.instead = says(fault11(prefix + code, "because", extra), status)
        with client_of(shop) as client, pytest.raises(ClientError) as caught:
            client.call("add", a=1, b=2)

        assert type(caught.value) is kind
        assert f"SOAP fault {code}: because" in str(caught.value)
        assert caught.value.status is None


@pytest.mark.parametrize(
    ("code", "sub", "kind"),
    [("Sender", "", RejectedError), ("Receiver", "", ServerError), ("Sender", "m:NoSuchThing", RejectedError),
     ("Sender", "wsse:FailedAuthentication", AuthRefusedError), ("Receiver", "m:TooManyRequests", RateLimitedError),
     ("DataEncodingUnknown", "", RejectedError), ("MustUnderstand", "", RejectedError)],
)  # fmt: skip
def test_faults_of_soap_12(serve_shop: Serve, code: str, sub: str, kind: type[ClientError]) -> None:
    """Code and subcodes; the special one counts."""
    shop = serve_shop(12)
    for status in (200, 400, 500):
        shop.instead = says(fault12(code, sub), status, Content_Type="application/soap+xml")
        with client_of(shop) as client, pytest.raises(ClientError) as caught:
            client.call("add", a=1, b=2)

        assert type(caught.value) is kind


def test_faults_of_the_real_service(either: Shop) -> None:
    """What spyne raises arrives as what it is."""
    either.faults = {1: "Client.NotFound", 2: "Server", 3: "Client.Authentication"}
    with client_of(either) as client:
        for number, kind in ((1, RejectedError), (2, ServerError), (3, AuthRefusedError)):
            with pytest.raises(kind, match="the shop says no"):
                client.call("get", id=number)
        assert client.call("get", id=4)["id"] == 4


def test_service_says_what_its_codes_mean(shop: Shop) -> None:
    """Only the service's own documents know that a code means "gone"."""
    shop.faults = {1: "Client.NotFound"}
    with client_of(shop, faults={"NotFound": GoneError}) as client, pytest.raises(GoneError):
        client.call("get", id=1)
    with client_of(shop, faults={"Client.NotFound": GoneError}) as client, pytest.raises(GoneError):
        client.call("get", id=1)


def test_fault_without_a_code_is_judged_by_the_status() -> None:
    """A fault in 200 or 5xx is the server's, one in 4xx is ours."""
    kinds = {status: type(fault_error(Fault((), ""), status=status, faults={}, url="http://x/")) for status in (200, 400, 500)}

    assert kinds == {200: ServerError, 400: RejectedError, 500: ServerError}


def test_text_of_a_fault_is_one_short_line_without_our_secrets(shop: Shop) -> None:
    """Some services repeat the password that they refuse."""
    shop.instead = says(fault11("Client", f"bad\n\n token {TOKEN} or hunter2 " + "x" * 1000))
    for auth in (Bearer(TOKEN), Basic("ann", TOKEN), ApiKey(TOKEN), ApiKey(TOKEN, query="key")):
        with client_of(shop, auth=auth) as client, pytest.raises(RejectedError) as caught:
            client.call("add", a=1, b=2)

        assert TOKEN not in repr(caught.value)
        assert "bad token **********" in str(caught.value)
        assert len(str(caught.value)) < 600
        assert "\n" not in str(caught.value)


# -- statuses


@pytest.mark.parametrize(
    ("status", "headers", "kind", "seconds"),
    [(401, {}, AuthRefusedError, None), (403, {}, AuthRefusedError, None), (407, {}, AuthRefusedError, None),
     (429, {"Retry-After": "7"}, RateLimitedError, 7), (503, {"Retry-After": "9"}, RateLimitedError, 9),
     (503, {}, ServerError, None),
     (500, {}, ServerError, None), (502, {}, ServerError, None), (400, {}, RejectedError, None), (405, {}, RejectedError, None)],
)  # fmt: skip
def test_statuses_speak_where_no_fault_does(
    shop: Shop, status: int, headers: dict[str, str], kind: type[ClientError], seconds: float | None
) -> None:
    """HTML of a proxy, or nothing; sign-in and limits count whatever fault comes along."""
    bodies = ["<html>oh</html>", ""] + ([fault11("Client")] if kind in (AuthRefusedError, RateLimitedError) else [])
    for body in bodies:
        shop.instead = says(body, status, **headers)
        with client_of(shop) as client, pytest.raises(ClientError) as caught:
            client.call("add", a=1, b=2)

        assert type(caught.value) is kind
        assert getattr(caught.value, "retry_after", None) == seconds
        assert caught.value.status == status


@pytest.mark.parametrize(
    ("code", "headers", "kind", "seconds"),
    [
        ("Server", {"Retry-After": "7"}, RateLimitedError, 7), ("Server", {"Retry-After": "0"}, RateLimitedError, 1),
        ("Server.TooManyRequests", {"Retry-After": "7"}, RateLimitedError, 7),
        ("Server.TooManyRequests", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}, RateLimitedError, 9),
        ("Server.TooManyRequests", {}, RateLimitedError, None), ("Server", {}, ServerError, None),
        # Which call uses a budget up says nothing of what went wrong with it.
        ("Server", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}, ServerError, None),
        ("Client", {"Retry-After": "7"}, RejectedError, None), ("Client.Auth", {"Retry-After": "7"}, RejectedError, None),
        ("Client.Authentication", {"Retry-After": "7"}, AuthRefusedError, None),
        ("Server", {"Retry-After": "?"}, ServerError, None),
    ],
)  # fmt: skip
def test_fault_that_says_when_to_come_again(
    either: Shop, code: str, headers: dict[str, str], kind: type[ClientError], seconds: float | None
) -> None:
    """SOAP 1.1 has one status for all faults: there a `Retry-After` makes of a server's fault what 503 is elsewhere."""
    either.instead = says(fault11(code), 500, **headers)
    with client_of(either) as client, pytest.raises(ClientError) as caught:
        client.call("add", a=1, b=2)

    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after", None) == seconds
    assert (seconds is None) == ("come again in" not in str(caught.value))


def test_budget_that_is_used_up_holds_calls_back(shop: Shop) -> None:
    """A call is answered, and says that it was the last one: the next is not sent until the hour is over."""
    spent = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
    with client_of(shop) as client:
        assert client.call("add", a=1, b=2) == {"addResult": 3}
        shop.instead = says(fault11("Client.NotFound"), 500, **spent)
        with pytest.raises(RejectedError):
            client.call("add", a=1, b=2)
        shop.instead = lambda method, path: None
        sent = client.requests
        with pytest.raises(RateLimitedError, match="nothing was sent") as caught:
            client.call("add", a=1, b=2)
        assert client.requests == sent
        assert 3500 < (caught.value.retry_after or 0) <= 3600


def test_budget_that_is_soon_full_again_is_waited_for(shop: Shop) -> None:
    """A second is waited out by the call itself, once for all threads."""
    with client_of(shop) as client:
        shop.instead = says("", 200, **{"RateLimit-Remaining": "0", "RateLimit-Reset": "1"})
        began = time.monotonic()
        client.call("nothing")
        shop.instead = lambda method, path: None
        with ThreadPoolExecutor(3) as pool:
            assert [one["addResult"] for one in pool.map(lambda n: client.call("add", a=n, b=1), range(3))] == [1, 2, 3]
        assert 0.9 < time.monotonic() - began < 60


def test_budget_of_where_the_wsdl_is_says_nothing_of_the_service(shop: Shop, serve_shop: Serve) -> None:
    """They are two origins; each has a pace of its own."""
    elsewhere = serve_shop()
    with SoapClient(f"{shop.url}?wsdl", address=elsewhere.url) as client:
        wsdl = urllib.request.urlopen(f"{shop.url}?wsdl").read()
        shop.instead = lambda method, path: (
            200, {"Content-Type": "text/xml", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}, wsdl
        )  # fmt: skip
        assert client.call("add", a=1, b=2) == {"addResult": 3}
        assert client.call("add", a=1, b=2) == {"addResult": 3}


@pytest.mark.parametrize("status", [404, 410])
def test_service_that_is_not_there_says_nothing_of_its_entities(shop: Shop, status: int) -> None:
    """404 for the endpoint is trouble, and not an entity that is gone and would be deleted (law 8)."""
    shop.instead = says("not here", status)
    with client_of(shop) as client, pytest.raises(ServerError):
        client.call("get", id=1)


def test_redirected_call_is_refused(shop: Shop, serve_shop: Serve) -> None:
    """It would be sent again, perhaps elsewhere."""
    elsewhere = serve_shop()
    shop.instead = says("", 307, Location=elsewhere.url)
    with client_of(shop, auth=Bearer(TOKEN)) as client, pytest.raises(RedirectRefusedError):
        client.call("get", id=1)

    assert elsewhere.headers == []
