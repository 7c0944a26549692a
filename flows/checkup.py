"""Examining one client: its settings, sign-in, two pages, and what its answers show. A few requests; knows no command line."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from clients import ClientError, HttpClient, NotModifiedError, SoapClient
from clients.witness import EnoughError, Sight, Tls, Witness
from flows.declaration import Client
from flows.errors import SettingsError
from flows.mask import Mask
from flows.registry import Registry

MOST_REQUESTS = 4
"""Redirects and sign-ins count, the documents of a WSDL do not; a client's own `check` may send as many as it likes."""

MOST_SKEW = 60.0
"""Seconds that the two clocks may differ by."""

LEAST_DAYS = 14
"""Days that a certificate should still be good for."""

OPEN = "without TLS: whoever is on the way can read the credentials"


@dataclass(slots=True)
class Check:
    """What became of the check of one client. `None`: not seen, or not known to this adapter."""

    client: str
    ok: bool = False
    #: ok, FAIL, or - where it was not reached.
    settings: str = "-"
    connection: str = "-"
    #: Entities on the first page; `None` where the client has a check of its own.
    entities: int | None = None
    seconds: float = 0.0
    #: Why it is not ok.
    message: str = ""
    #: Pages read, two at most.
    pages: int | None = None
    #: Of the second page: `differs`, `same`, `empty`; `None` where there is none.
    second_page: str | None = None
    #: Why paging ended: `end`, `more` (there are further pages), or as `syncs run` says it.
    ended: str | None = None
    #: The strictest rate budget seen: limit, remaining, resets_in (seconds), window (seconds), name.
    rate: dict[str, Any] | None = None
    #: What makes requests conditional: `ETag`, `Last-Modified`, both, or none. `None` where no request could be.
    validators: list[str] | None = None
    #: Whether asking again with them was answered by 304.
    not_modified: bool | None = None
    #: Seconds by which the remote clock is ahead.
    skew_seconds: float | None = None
    #: version, and days_left of the certificate.
    tls: dict[str, Any] | None = None
    redirects: int | None = None
    #: Over FTP and SFTP: commands about files.
    requests: int | None = None
    #: What is off without being wrong, one line each.
    warnings: list[str] = field(default_factory=list)


def check_client(client: Client, registry: Registry) -> Check:
    """Examine one client; whatever goes wrong is its message."""
    from flows.settings import client_settings

    check, started = Check(client.id), time.monotonic()
    try:
        settings = client_settings(client)
    except SettingsError as error:
        check.settings, check.message = "FAIL", str(error)
    else:
        check.settings = "ok"
        mask = Mask(settings)
        # A check of the client's own may need as many as it likes.
        with Witness(most=None if client.check is not None else MOST_REQUESTS) as witness:
            try:
                with client.connect(settings) as connection:
                    try:
                        _examine(check, client, connection, registry, witness)
                    finally:
                        check.requests = getattr(connection, "requests", None)
                check.connection = "ok"
            except EnoughError as error:
                check.connection, check.message = "FAIL", f"{error}, before a first page was there"
            except Exception as error:  # noqa: BLE001 - a person's code and a remote system: anything can come, and it belongs into this row
                check.connection, check.message = "FAIL", _text(error, mask)
                check.entities = None
        _look(check, witness)
        check.warnings = [mask(one) for one in check.warnings]
        check.message = mask(check.message)
    check.ok = not check.message
    check.seconds = round(time.monotonic() - started, 3)
    return check


def _examine(check: Check, client: Client, connection: Any, registry: Registry, witness: Witness) -> None:
    if client.check is not None:
        client.check(connection)
        return
    syncs = registry.of_client(client.id)
    if not syncs:
        return
    listing: Any = syncs[0].listing
    if hasattr(listing, "__dataclass_fields__") and hasattr(listing, "recheck"):
        # That would read pages again at the end.
        listing = replace(listing, recheck=0)
    if isinstance(connection, SoapClient):
        # A WSDL may be in many parts.
        witness.limit(None)
        _ = connection.operations
        witness.limit(MOST_REQUESTS)
    pages = listing(connection, None)
    first = next(pages, None)
    seen = witness.sights[-1] if witness.sights else None
    check.pages, check.entities = (0, 0) if first is None else (1, len(first.items))
    check.ended = "end"
    if first is not None:
        check.warnings += first.warnings
        if first.errors:
            check.message = f"{len(first.errors)} items without a key: {first.errors[0]}"
        if first.cursor is not None:
            try:
                _second(check, first, pages)
            except EnoughError:
                check.ended = "more"
    if seen is not None and isinstance(connection, HttpClient):
        with suppress(EnoughError):
            _ask_again(check, connection, seen)


def _second(check: Check, first: Any, pages: Iterator[Any]) -> None:
    try:
        second = next(pages, None)
    except ClientError as error:
        # The sign-in is proved by then, and the first page is there.
        check.ended = getattr(pages, "stopped", "") or "error"
        check.message = check.message or f"second page: {error}"
        return
    if second is None:
        return
    check.pages = 2
    check.warnings += second.warnings
    keys = [entity.key for entity in second.items]
    shown = [entity.key for entity in first.items]
    if not keys and second.repeated:
        keys = shown
    check.second_page = "empty" if not keys else "same" if keys == shown else "differs"
    check.ended = "end" if second.cursor is None else "more"
    if check.second_page == "same":
        check.warnings.append("the second page is the first one again; is the name of the paging parameter right?")


def _ask_again(check: Check, connection: HttpClient, seen: Sight) -> None:
    """Ask for the first page once more, under the condition that it has changed."""
    validator = seen.validator
    if seen.method != "GET" or seen.status != 200:
        return
    check.validators = []
    if validator is None:
        return
    check.validators = [name for name, value in (("ETag", validator.etag), ("Last-Modified", validator.modified)) if value]
    try:
        connection.get_json(seen.url, if_none_match=validator.etag, if_modified_since=validator.modified)
        check.not_modified = False
    except NotModifiedError:
        check.not_modified = True
    except ClientError as error:
        check.warnings.append(f"asked again with {' and '.join(check.validators)}: {error}")


def _look(check: Check, witness: Witness) -> None:
    """Take in what all the answers showed."""
    sights = witness.sights
    _look_at_tls(check, [*witness.secure, *(sight.tls for sight in sights if sight.tls is not None)])
    if any(_is_open(url) for url in (*(sight.url for sight in sights), *(one.url for one in witness.exchanges))):
        check.warnings.append(OPEN)
    if not sights:
        return
    check.requests, check.redirects = witness.asked, sum(sight.is_redirect for sight in sights)
    _look_at_rates(check, sights)
    _look_at_clocks(check, sights)
    for sight in sights:
        if sight.status in (301, 308):
            check.warnings.append(f"{sight.status}: what is declared has moved for good; declare where it leads to")
            break


def _look_at_rates(check: Check, sights: Sequence[Sight]) -> None:
    budgets = [budget for sight in sights if (budget := sight.budget) is not None]
    if budgets:
        # The last one: each answer counts the requests before it.
        names = ("limit", "remaining", "resets_in", "window", "name")
        check.rate = {name: getattr(budgets[-1], name) for name in names}
        if budgets[-1].remaining == 0:
            check.warnings.append("the rate budget is used up")


def _look_at_clocks(check: Check, sights: Sequence[Sight]) -> None:
    skews = {abs(skew): skew for sight in sights if (skew := sight.skew) is not None}
    if skews:
        # The smallest: the others have the time on the way in them.
        skew = skews[min(skews)]
        check.skew_seconds = round(skew, 1)
        if abs(skew) > MOST_SKEW:
            check.warnings.append(f"the remote clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours")


def _look_at_tls(check: Check, secured: Sequence[Tls]) -> None:
    if secured:
        left = min((tls.days_left for tls in secured if tls.days_left is not None), default=None)
        check.tls = {"version": secured[-1].version, "days_left": None if left is None else int(left // 1)}
        if left is not None and left < LEAST_DAYS:
            check.warnings.append(f"the certificate ends in {left // 1:.0f} days")


def _is_open(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "ftp") or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def _text(error: Exception, mask: Mask) -> str:
    text = mask(str(error)).strip() or "no message"
    return text if type(error).__module__.startswith("clients.") else f"{type(error).__name__}: {text}"
