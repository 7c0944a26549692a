"""Credentials: what they add, and that they are never shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from clients import ApiKey, Basic, Bearer


@pytest.mark.parametrize("wrap", [str, SecretStr])
@pytest.mark.parametrize(
    ("make", "headers", "params"),
    [
        (lambda w: Bearer(w("s3cret")), (("Authorization", "Bearer s3cret"),), ()),
        (lambda w: Basic("me", w("s3crét:x")), (("Authorization", "Basic bWU6czNjcsOpdDp4"),), ()),
        (lambda w: ApiKey(w("s3cret")), (("X-API-Key", "s3cret"),), ()),
        (lambda w: ApiKey(w("s3cret"), header="Token"), (("Token", "s3cret"),), ()),
        (lambda w: ApiKey(w("s3cret"), query="key"), (), (("key", "s3cret"),)),
    ],
)
def test_additions(wrap: Any, make: Any, headers: Any, params: Any) -> None:
    """Each kind adds its header or parameter, from plain text or from a SecretStr, and shows nothing of it."""
    auth = make(wrap)
    added = auth.credentials()

    assert (headers, params) == (added.headers, added.params)
    assert frozenset(name for name, _ in params) == auth.param_names()
    assert "s3cr" not in f"{auth!r}{auth}{added!r}{added}"
    assert auth == make(wrap)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ApiKey("s3cret", header="a", query="b"),
        lambda: ApiKey("s3cret\r\nX: 1"),
        lambda: ApiKey("s3cret", header="a b"),
        lambda: ApiKey("", query="key"),
        lambda: Bearer("s3cret\nX: 1"),
        lambda: Bearer(SecretStr("s3cret\r")),
        lambda: Bearer(""),
        lambda: Basic("me:s3cret", "s3cret"),
        lambda: Basic("me", "s3cret\n"),
    ],
)
def test_refusals(make: Any) -> None:
    """What a request cannot carry is refused when it is declared, without repeating the secret."""
    with pytest.raises(ValueError) as caught:
        make()

    assert "s3cret" not in repr(caught.value)
