"""`env(…)`: read when it is used, found in what a declaration is made of, shown nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from clients import ApiKey, Basic, Bearer, HttpClient, Listing, LocalError, OAuth2ClientCredentials, OAuth2RefreshToken, env
from clients.environment import Declared, EnvValues, resolved, variables
from clients.urls import encode_params


@dataclass(frozen=True)
class Own:
    """A sign-in of one's own."""

    token: object
    made: int = field(default=0, init=False)


class Plain(Declared):
    """One that is no dataclass."""

    def __init__(self, url: object, *, secret: object) -> None:
        self.url, self.secret = url, secret


@pytest.fixture(autouse=True)
def _set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "t0p-secret")
    monkeypatch.setenv("A_USER", "ann")
    monkeypatch.setenv("AN_EMPTY", "")
    monkeypatch.delenv("MISSING", raising=False)


def test_a_variable_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment comes before the default, an empty variable is none, and a missing one is an error that names it."""
    token = env("A_TOKEN", "default")
    assert token.get_secret_value() == "t0p-secret"
    monkeypatch.setenv("A_TOKEN", "another")
    assert token.get_secret_value() == "another"
    assert env("AN_EMPTY", "default").get_secret_value() == env("MISSING", "default").get_secret_value() == "default"
    for name in ("MISSING", "AN_EMPTY"):
        with pytest.raises(LocalError, match=f"{name} is not set"):
            env(name).get_secret_value()
    assert (repr(token), str(token)) == ("env('A_TOKEN')", "env('A_TOKEN')")


def test_names_and_defaults_are_checked_at_once() -> None:
    """What cannot be a variable's name, and a default that is no text, are found where they stand."""
    for name in ("", "1A", "A B", "A=B"):
        with pytest.raises(ValueError, match="letters, digits and underscores"):
            env(name)
    with pytest.raises(ValueError, match=r"env\('PORT'\): the default must be text, got int"):
        env("PORT", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declared", "same"),
    [
        (Bearer(env("A_TOKEN")), Bearer("t0p-secret")),
        (ApiKey(env("A_TOKEN"), header="X-Key"), ApiKey("t0p-secret", header="X-Key")),
        (ApiKey(env("A_TOKEN"), query="key"), ApiKey("t0p-secret", query="key")),
        (Basic(env("A_USER"), env("A_TOKEN")), Basic("ann", "t0p-secret")),
    ],
)
def test_every_sign_in_takes_variables(declared: Bearer, same: Bearer) -> None:
    """Its credentials are those of the values, with an adapter and without one."""
    assert declared.credentials() == resolved(declared).credentials() == same.credentials()
    assert declared.param_names() == same.param_names()
    assert "t0p" not in repr(declared)


def test_oauth_and_classes_of_ones_own_take_variables() -> None:
    """A copy with the values is made of what has variables; what has none stays the same object."""
    url = "https://a.example/token"
    both = (
        (OAuth2ClientCredentials(env("MISSING", url), env("A_USER"), env("A_TOKEN"), scope=env("MISSING", "all")),
         OAuth2ClientCredentials(url, "ann", "t0p-secret", scope="all")),
        (OAuth2RefreshToken(url, env("A_USER"), client_secret=env("A_TOKEN"), refresh_token=env("A_TOKEN")),
         OAuth2RefreshToken(url, "ann", "t0p-secret", "t0p-secret")),
    )  # fmt: skip
    for declared, same in both:
        assert resolved(declared).identity == same.identity
        assert resolved(same) is same
    assert resolved(Own(env("A_TOKEN"))).token == "t0p-secret"
    assert resolved(Plain(env("A_USER"), secret=[env("A_TOKEN")])).secret == ["t0p-secret"]
    assert [(one.name, secret) for one, secret in variables(Plain(env("A_USER"), secret=env("A_TOKEN")))] == [
        ("A_USER", False),
        ("A_TOKEN", True),
    ]


def test_headers_params_and_bodies_take_variables() -> None:
    """A client's URL and headers, a query and the body of a listing have the values; the listing's identity has not."""
    with HttpClient(env("MISSING", "https://a.example/"), headers={"X-Tenant": env("A_TOKEN")}) as http:
        assert http._origin.headers["x-tenant"] == ("X-Tenant", "t0p-secret")
        assert repr(http) == "HttpClient('https://a.example/')"
    assert encode_params({"a": env("A_TOKEN"), "b": [env("A_USER"), True, 1]}) == "a=t0p-secret&b=ann&b=true&b=1"
    listing = Listing("pets", params={"tenant": env("A_TOKEN")}, method="POST", json={"for": [env("A_USER")]})
    assert resolved((listing.params, listing.json)) == ({"tenant": "t0p-secret"}, {"for": ["ann"]})
    assert "t0p" not in repr(listing)


def test_values_are_a_mapping_that_does_not_show_them() -> None:
    """What functions get as `settings` is read by name."""
    values = EnvValues({"A": "t0p-secret"}, secrets={"t0p-secret"})
    assert (dict(values), len(values), repr(values)) == ({"A": "t0p-secret"}, 1, "EnvValues(A)")
