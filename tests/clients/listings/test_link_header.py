"""The Link header and URLs as text."""

from __future__ import annotations

from typing import Any

import jmespath
import pytest

from clients.errors import PageError
from clients.listings.jmespaths import compile_path
from clients.listings.link_header import link_target, next_url
from clients.urls import encode_params, public_url, split_userinfo, with_query, without_params


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("nonsense", None),
        ("<https://h/2", None),
        ('<https://h/2>; rel="next"', "https://h/2"),
        ("<https://h/2>; rel=next", "https://h/2"),
        ("<https://h/2>;REL = NEXT", "https://h/2"),
        ('<https://h/2>; rel="next last"', "https://h/2"),
        ('<https://h/1>; rel="prev", <https://h/3>; rel="next"', "https://h/3"),
        ('<https://h/a,b;c>; title="x, <y>; rel=prev"; rel="next"', "https://h/a,b;c"),
        ('<https://h/2>; title="a \\" b"; rel="next"', "https://h/2"),
        ('<https://h/2>; rel="prev"; rel="next"', None),
        ('<https://h/2>; rel="nextish"', None),
        ("<?page=2>; rel=next", "?page=2"),
        ('<https://h/2>; rel="next"; anchor="/other"', None),
        ('<https://h/2>; rel="next"; anchor="#part"', "https://h/2"),
        ("<https://h/1>, <https://h/2>; rel=next", "https://h/2"),
        ("<https://h/2>; rel", None),
    ],
)
def test_link_header(header: str, expected: str | None) -> None:
    """RFC 8288: several relations, quoted commas, the first rel counts, another page's links do not."""
    assert expected == link_target(header, "next", base="https://h/a?page=1")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("https://h/2", "https://h/2"),
        ("/2", "https://base/2"),
        ("2?x=1#part", "https://base/a/2?x=1"),
        ("?page=2", "https://base/a/b?page=2"),
        ("//other/2", "https://other/2"),
        ("https://me:pass@h/2", "https://h/2"),
    ],
)
def test_next_url(target: str, expected: str) -> None:
    """A target resolves against the URL that answered."""
    assert expected == next_url(target, base="https://base/a/b?page=1")


@pytest.mark.parametrize("target", ["ftp://h/2", "javascript:alert(1)", "http://[::1", "http://h:x/"])
def test_next_url_refuses(target: str) -> None:
    """Only http and https URLs are followed."""
    with pytest.raises(PageError):
        next_url(target, base="https://base/a")


def test_urls_as_text() -> None:
    """The small functions on URLs, each with its odd cases."""
    assert public_url("https://me:p@ss@h:1/a?k=v#f") == "https://h:1/a"

    assert public_url("/a?k=v") == "/a"

    assert public_url("https://h/a\nb") == "https://h/a\ufffdb"

    assert len(public_url("https://h/" + "x" * 9999)) == 500

    assert split_userinfo("https://h/a?b=c@d") == ("https://h/a?b=c@d", None)

    assert split_userinfo("https://me:p%40s%20s@h") == ("https://h", ("me", "p@s s"))

    assert encode_params({"a": 1, "b": True, "n": None, "c": "x y&", "d": [1, 2]}) == "a=1&b=true&c=x+y%26&d=1&d=2"

    assert with_query("https://h/a?x=1#f", "y=2") == "https://h/a?x=1&y=2"

    assert with_query("https://h/a?", "y=2") == "https://h/a?y=2"

    assert without_params("https://h/a?x=%31&k%65y=S&z#f", {"key"}) == "https://h/a?x=%31&z"

    assert without_params("https://h/a?key=S", {"key"}) == "https://h/a"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("id", 1),
        ("a.b", 2),
        ("a.none.x", None),
        ("missing", None),
        ("id.x", None),
        ('"@odata.nextLink"', "u"),
        ("list[-1].id", 9),
        ("@.id", 1),
        ("[id, a.b]", [1, 2]),
    ],
)
def test_paths(path: str, expected: Any) -> None:
    """Plain names and JMESPath find the same things."""
    value = {"id": 1, "a": {"b": 2}, "@odata.nextLink": "u", "list": [{"id": 8}, {"id": 9}]}

    assert expected == compile_path(path)(value)

    assert expected == jmespath.search(path, value)


def test_broken_paths() -> None:
    """A broken expression is a declaration's fault; a failing function is the page's."""
    with pytest.raises(ValueError, match=r"not a JMESPath expression: 'a\.\.b'"):
        compile_path("a..b")

    with pytest.raises(PageError) as caught:
        compile_path("length(id)")({"id": 12345})
    assert "12345" not in str(caught.value)
