"""A key in a path asks for what has that key, whatever is in it, or the request is refused."""

from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import Entity, HttpClient, RejectedError, quoted_path
from clients.quoted_path import watching
from syncs_testing import Reply, serving

ODD = ["C#", "p1?", "a/b", "50%", "25%20", "..", ".", "...", "%", "?", "#", "/", "../..", "a;b", "a\\b", "https://x.example/a"]
PLAIN = ["12", "c++", "ä", "what is", "user@example.org", "2030-01-31T08:00:00Z", "a.b", "~x", "R&D"]


@pytest.mark.parametrize(
    ("template", "parts", "path"),
    [
        ("pets/{}", ["a/b#c"], "pets/a%2Fb%23c"),
        ("pets/{}?full=1", ["p?%&"], "pets/p%3F%25%26?full=1"),
        ("teams/{}/pets/{}", ["..", 7], "teams/%2E%2E/pets/7"),
        ("pets/.{}", ["."], "pets/.%2E"),
        ("Pets('{}')", ["o'k"], "Pets('o%27k')"),
        ("{name}", [], "{name}"),
    ],
)
def test_parts_are_quoted(template: str, parts: list[Any], path: str) -> None:
    """Only what is unreserved stays, and a folder that would be resolved does not."""
    assert quoted_path(template, *parts) == path


def test_folders() -> None:
    """Slashes stay where they are said to be folders, and nothing leads upwards."""
    assert quoted_path("files/{}", "docs/a b/../#1", keep_slashes=True) == "files/docs/a%20b/%2E%2E/%231"


@pytest.mark.parametrize("part", ["", None, True, 1.5, b"a", ["a"]])
def test_what_is_no_part(part: Any) -> None:
    """An empty part would ask for the collection, `None` for something called None."""
    with pytest.raises(ValueError, match="a part of a path"):
        quoted_path("pets/{}", part)
    with pytest.raises(ValueError, match="1 places"):
        quoted_path("pets/{}", "a", "b")


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_is_sent(key: str) -> None:
    """Any key arrives as it is, as one part below the collection."""
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.raw_path.decode())
        return httpx.Response(200, json={})

    with HttpClient("https://api.example/v1", transport=httpx.MockTransport(answer)) as http, watching(Entity(key)):
        http.get_json(quoted_path("labels/{}", key))
    assert sent[0].count("/") == 3
    assert unquote(urlsplit(sent[0]).path.removeprefix("/v1/labels/")) == key
    assert httpx.URL("https://api.example").join(sent[0]).raw_path.decode().startswith("/v1/labels/")


@pytest.mark.parametrize("key", ODD)
def test_an_unquoted_key_is_not_sent(key: str) -> None:
    """A request that would ask for something else is refused with the way to quote it, and nothing arrives."""
    with serving(lambda _: Reply({})) as server, HttpClient(server.url) as http, watching(Entity(key)):
        for path in (f"labels/{key}", f"labels/{key}/notes", f"{server.url}/x/{key}" if "/" not in key else f"x/{key}"):
            with pytest.raises(RejectedError, match=r"quoted_path\(.…/\{\}., key\) quotes it"):
                http.get_json(path)
        assert server.seen == []
        for path in (
            quoted_path("labels/{}", key),
            str.__str__(quoted_path("labels/{}/x", key)) + "?a=1",
            "labels?b=50%25&c=d+e",
        ):
            http.get_json(path)


@pytest.mark.parametrize("key", PLAIN)
def test_keys_that_need_no_quoting(key: str) -> None:
    """What is sent for them is the same with and without: programs that work go on."""
    with serving(lambda _: Reply({})) as server, HttpClient(server.url) as http, watching(Entity(key)):
        http.get_json(f"labels/{key}")
        assert unquote(server.seen[0].path).endswith(f"labels/{key}")


@pytest.mark.parametrize("key", ["R&D", "c++", "50%"])
def test_keys_in_a_query(key: str) -> None:
    """In a query other characters have a meaning."""
    with serving(lambda _: Reply({})) as server, HttpClient(server.url) as http, watching(Entity(key)):
        with pytest.raises(RejectedError, match="quoted_path"):
            http.get_json(f"labels?name={key}")
        for path in (f"labels?name={quote(key)}", f"labels?name={quote_plus(key)}", f"labels?name={quote(key, safe='').lower()}"):
            http.get_json(path)
        http.get_json("labels", {"name": key})


def test_links_are_sent_as_they_came() -> None:
    """A link of the remote system is right as it is, also where it is the key."""
    item = {"id": "a/b", "links": [{"href": "labels/a/b"}]}
    with serving(lambda _: Reply({})) as server, HttpClient(server.url) as http:
        with watching(Entity("a/b", data=item)):
            http.get_json("labels/a/b")
            http.get_json(f"{server.url}/labels/a/b")
            http.get_json("labels/xa/bx")
        for key in (f"{server.url}/labels/1", "/labels/1"):
            with watching(Entity(key)):
                http.get_json(key)


def test_keys_of_nested_entities() -> None:
    """Each part of the path is watched; the key that was joined of plain ones may stand in a path."""
    with serving(lambda _: Reply({})) as server, HttpClient(server.url) as http:
        with watching(Entity("t1/7", path=("t1", "7"))):
            http.get_json("teams/t1/7")
        with watching(Entity("t%2F1/7", path=("t/1", "7"))):
            for path in ("teams/t/1/pets/7", "teams/t%2F1/7"):
                with pytest.raises(RejectedError, match="as it is"):
                    http.get_json(path)
            http.get_json(quoted_path("teams/{}/pets/{}", "t/1", 7))
