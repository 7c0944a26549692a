"""Reads `--auth`: how to sign in, with the names of the variables that hold the secrets, never the secrets."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from clients import ApiKey, Basic, Bearer, env
from clients.auth import Auth
from clients.urls import split_userinfo
from flows.drafting.source import text
from flows.errors import UsageError

FORMS = "bearer:VAR, basic:USERVAR:PASSVAR, header:NAME:VAR or query:NAME:VAR"

_SECRET = re.compile(
    r"^(api|access|auth|private|subscription|client|app|user)?[_.-]?(key|token|secret|sig|signature|password|passwd|pwd|jwt|auth)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in.

    Args:
        auth: with `env(…)` in place of the values.
        source: the same as Python.
        names: what that imports from `clients`.
    """

    auth: Auth | None = None
    source: str | None = None
    names: tuple[str, ...] = ()


def sign_in(option: str | None) -> SignIn:
    """Return what `--auth` says.

    Raises:
        UsageError: it has none of the four forms.
    """
    if option is None:
        return SignIn()
    kind, *rest = option.split(":")
    wanted = {"bearer": 1, "basic": 2, "header": 2, "query": 2}.get(kind)
    if len(rest) != wanted or not all(rest):
        raise UsageError(f"--auth is {FORMS}")
    variables = rest if kind in ("bearer", "basic") else rest[1:]
    try:
        values = [env(name) for name in variables]
        made: Auth
        if kind == "bearer":
            made = Bearer(*values)
        elif kind == "basic":
            made = Basic(*values)
        elif kind == "header":
            made = ApiKey(values[0], header=rest[0])
        else:
            made = ApiKey(values[0], query=rest[0])
    except ValueError:
        # What is no name of a variable may be the secret itself.
        raise UsageError(f"--auth {kind}: names variables, such as SHOP_TOKEN, whose values are the secrets") from None
    arguments = ", ".join(f"env({text(name)})" for name in variables)
    if kind in ("header", "query"):
        return SignIn(made, f"ApiKey({arguments}, {kind}={text(rest[0])})", ("ApiKey", "env"))
    return SignIn(made, f"{kind.title()}({arguments})", (kind.title(), "env"))


def check_url(url: str) -> None:
    """Refuse a URL with a secret in it: it would be written into the file.

    Raises:
        UsageError: the text does not repeat it.
    """
    if split_userinfo(url)[1] is not None:
        raise UsageError("the URL has a user and a password; put them into two variables, and give --auth basic:USERVAR:PASSVAR")
    for name, value in parse_qsl(urlsplit(url).query):
        if _SECRET.search(name) and value:
            raise UsageError(f"{name!r} in the URL looks like a secret; put it into a variable, and give --auth query:{name}:VAR")
