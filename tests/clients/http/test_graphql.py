"""GraphQL's errors with a good status, in whatever way the request was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clients import AuthRefusedError, HttpClient, Listing, RateLimitedError, UnreadableError
from clients.errors import ClientError, PageError

Serve = Callable[..., Any]
QUERY = {"query": "query($id: ID!) { pet(id: $id) { name } }", "variables": {"id": 1}}
ERRORS = [{"message": "no such s3cret", "path": ["pet"]}]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"data": {"pet": None}, "errors": ERRORS}, UnreadableError),
        ({"data": {"pet": {"name": "Ann"}}, "errors": ERRORS, "extra": 1}, UnreadableError),
        ({"errors": ["odd"]}, UnreadableError),
        ({"errors": [{"message": "slow", "extensions": {"code": "THROTTLED"}}]}, RateLimitedError),
        ({"errors": [{"message": "slow", "type": "RATE_LIMITED"}]}, RateLimitedError),
        ({"errors": [{"message": "who", "extensions": {"code": "UNAUTHENTICATED"}}]}, AuthRefusedError),
        ({"errors": [{"message": "odd", "extensions": 7, "type": {}}]}, UnreadableError),
    ],
)
def test_errors_beside_data(body: Any, kind: type[ClientError], serve: Serve) -> None:
    """An answer with errors is one, whoever sends the request; the error repeats nothing of it."""
    server = serve(lambda seen: (200, {}, body))
    with HttpClient(server.url) as http:
        for call in (
            lambda: http.post_json("graphql", QUERY),
            lambda: http.request("POST", "graphql", json=QUERY),
            lambda: http.request("POST", "graphql", json=[QUERY]),
        ):
            with pytest.raises(kind) as caught:
                call()

            assert "s3cret" not in str(caught.value)


def test_one_of_a_batch(serve: Serve) -> None:
    """Several operations in one request: one that failed is an error of all."""
    server = serve(lambda seen: (200, {}, [{"data": {"a": 1}}, {"data": None, "errors": ERRORS}]))
    with HttpClient(server.url) as http, pytest.raises(UnreadableError, match="GraphQL"):
        http.post_json("graphql", [QUERY, QUERY])


def test_a_query_in_the_url(serve: Serve) -> None:
    """Where nothing tells that it is GraphQL, an answer with no other members than GraphQL's is taken for one."""
    bodies: list[Any] = [{"data": None, "errors": ERRORS}, {"data": [1], "errors": ["a"]}, {"errors": ERRORS, "total": 3}]
    server = serve(lambda seen: (200, {}, bodies[len(server.seen) - 1]))
    with HttpClient(server.url) as http:
        with pytest.raises(UnreadableError, match="GraphQL"):
            http.get_json("graphql", {"query": "{ pet }"})

        assert http.get_json("imports/1") == bodies[1]

        assert http.get_json("imports/2") == bodies[2]


@pytest.mark.parametrize("body", [{"data": {"pet": 1}}, {"data": 1, "errors": []}, {"data": 1, "errors": None}, None, [1]])
def test_good_answers(body: Any, serve: Serve) -> None:
    """An empty or missing list of errors is none."""
    server = serve(lambda seen: (200, {}, body))
    with HttpClient(server.url) as http:
        assert http.post_json("graphql", QUERY) == body

        assert http.get_json("graphql") == body

        assert http.request("POST", "graphql", json=QUERY).json() == body


SENT: dict[str, dict[str, Any]] = {
    "content": {"content": json.dumps(QUERY)},
    "bytes, with blanks": {"content": b" \n" + json.dumps(QUERY).encode()},
    "content of a batch": {"content": json.dumps([QUERY])},
    "the query itself": {"content": "{ pet }", "headers": {"Content-Type": "application/graphql"}},
    "a form": {"data": {"query": "{ pet }"}},
    "the URL": {"params": {"query": "{ pet }"}},
    "a persisted query": {"json": {"id": "sha256:abc", "variables": {}}},
    "content of a persisted query": {"content": json.dumps({"id": "sha256:abc"})},
}


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", SENT)
def test_any_request(name: str, batch: bool, method: str, serve: Serve) -> None:
    """Errors are found however the query was sent, alone or among several answers."""
    body = {"data": {"pet": None}, "errors": ERRORS}
    server = serve(lambda seen: (200, {}, [{"data": {"pet": 1}}, body] if batch else body))
    with HttpClient(server.url) as http, pytest.raises(UnreadableError, match="GraphQL"):
        http.request(method, "graphql", **SENT[name])


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"code": 7}]},
        {"errors": ["odd"]},
        {"errors": [], "data": 1},
        {"errors": ERRORS, "id": 7},
        [{"errors": 3}],
        [[1]],
    ],
)
def test_errors_of_others_are_no_business_of_ours(body: Any, serve: Serve) -> None:
    """Where neither the request nor the answer is one of GraphQL, `errors` is a member as any other; so is broken content."""
    server = serve(lambda seen: (200, {}, body))
    with HttpClient(server.url) as http:
        for sent in ({"json": {"a": 1}}, {"content": b'{"query": '}, {"content": b"\xff"}, {"data": {"a": "b"}}):
            assert http.request("POST", "imports", **sent).json() == body


def test_a_listing_by_query_in_the_url(serve: Serve) -> None:
    """Rows beside errors may not be all; another API's `errors` beside rows and more is none of GraphQL."""
    bodies = [{"data": [{"id": 1}], "errors": ERRORS}, {"data": [{"id": 1}], "errors": ERRORS, "page": 1}]
    server = serve(lambda seen: (200, {}, bodies[len(server.seen) - 1]))
    listing = Listing("graphql", items="data", params={"query": "{ pets }"})
    with HttpClient(server.url) as http:
        with pytest.raises(PageError, match="GraphQL"):
            list(listing(http))

        assert sum(len(page.items) for page in listing(http)) == 1
