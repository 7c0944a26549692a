"""The words of notices: what may be said of an error, and what makes two errors the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.notices.error_text import safe_text, signature


@pytest.mark.parametrize(
    ("message", "said"),
    [
        # Whoever wrote it did not mask its sign-in; and nothing moves the cursor of a terminal.
        ("GET https://robot:geheim@shop.example/rows: 401", "GET https://shop.example/rows: 401"),
        ("listing: no \x1b[31mroom\x07 \u202e here", "listing: no [31mroom here"),
        # Ours: neither query nor body is in it; the key is named elsewhere.
        (
            "GET https://shop.example/rows/k-1: 503 Service Unavailable",
            "GET https://shop.example/rows/…: 503 Service Unavailable",
        ),
        (
            "listing: POST https://shop.example/rows: no answer in 30 s",
            "listing: POST https://shop.example/rows: no answer in 30 s",
        ),
        (
            "sent, no answer: POST https://shop.example/rows: timed out",
            "sent, no answer: POST https://shop.example/rows: timed out",
        ),
        ("timed out after 5 s, waiting for GET https://x.example/", "timed out after 5 s, waiting for GET https://x.example/"),
        (
            "see https://shop.example/a-path-that-is-rather-long?token=s3cret",
            "see https://shop.example/a-path-that-is-rather-long",
        ),
        # Of a foreign exception the class.
        ("ValueError: bad name Bob", "ValueError"),
        ("listing: KeyError: 'Bob'", "listing: KeyError"),
        ("sqlalchemy.exc.IntegrityError: (x) [parameters: ('Bob',)]", "sqlalchemy.exc.IntegrityError"),
        ("could not book: JSONDecodeError: Bob", "could not book: JSONDecodeError"),
        ("ValidationError: 1 error\n  name: Bob", "ValidationError"),
        # What somebody wrote for people, without what it quotes.
        ("no room for Bob", "no room for …"),
        ("no room for 'Tim', sorry", "no room for …, sorry"),
        ('bad record {"a": [1, 2]} of tim@example.org', "bad record … of …"),
        ("k-1 is not there, k-10 is", "… is not there, k-10 is"),
        ("token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9 refused", "token … refused"),
        ("", "no reason given"),
    ],
)
def test_what_may_be_said(message: str, said: str) -> None:
    """Nothing that an error may quote of somebody's data."""
    assert safe_text(message, key="k-1", payload={"name": "Bob", "data": [{"zip": 12345}]}) == said


@given(st.text(min_size=3, max_size=20), st.sampled_from(["no room for {}", "ValueError: {}", "{}", "a {} b", "'{}'"]))
def test_no_value_of_a_payload_is_said(value: str, text: str) -> None:
    """Whatever it is, and wherever it stands."""
    word = " ".join(value.split())
    said = safe_text(text.format(value), payload={"deep": [{"value": word}]})
    if len(word) > 2 and word.strip("…") and word not in text:
        assert word not in said.replace("no reason given", "")


def test_the_same_error_has_the_same_signature() -> None:
    """Numbers make no other error, statuses do."""
    assert signature("timed out after 3 s") == signature("timed out after 17 s")
    assert signature("GET https://x.example/: 503") != signature("GET https://x.example/: 401")
    assert signature("a") != signature("b")
