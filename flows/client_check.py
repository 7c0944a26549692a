"""Checks one client with a few requests: settings, sign-in, two pages, rate limits, validators, clock and TLS."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from clients import ClientError, Entity, GoneError, HttpClient, NotModifiedError, Page, SoapClient
from clients.check_recorder import Inspector, Observation, RequestLimitError, Tls
from clients.exchange_recorder import ACCEPTED
from flows.declarations.client import Client
from flows.declarations.settings_argument import bound
from flows.declarations.sync import Sync
from flows.errors import SettingsError
from flows.execution.client_test import CHECK_TIMEOUT
from flows.project.redaction import Mask
from flows.project.registry import Registry
from flows.user_code import NotEnded, within
from jobs.outcome import Failure, Gone

MAX_REQUESTS = 4
"""Requests for the pages of a listing. Includes redirects and sign-ins, but not the documents of a WSDL. A `check` function of
the client has no limit."""

MAX_FETCHES = 3
"""Entities of each sync that are fetched: until one is there. They are not stored."""

MAX_CLOCK_SKEW = 60.0
"""Seconds by which the two clocks may differ without a warning."""

MIN_CERTIFICATE_DAYS = 14
"""Days for which a certificate must still be valid to get no warning."""

_NO_TLS = "without TLS: anyone on the network path can read the credentials"


@dataclass(slots=True)
class CheckResult:
    """The result of checking one client. `None` means not seen, or not available with this adapter."""

    client: str
    ok: bool = False
    #: `ok`, `FAIL`, or `-` if not reached; so is `connection`.
    settings: str = "-"
    connection: str = "-"
    #: Entities on the first page; `None` if the client has a `check` function.
    entities: int | None = None
    seconds: float = 0.0
    #: Why it failed; empty if it is ok.
    message: str = ""
    #: Pages read, two at most.
    pages: int | None = None
    #: Of the second page: `differs`, `same`, `empty`; `None` where there is none.
    second_page: str | None = None
    #: Why paging ended: `end`, `more` (there are further pages), or `stopped` of `syncs run`.
    ended: str | None = None
    #: The strictest rate budget seen: limit, remaining, resets_in (seconds), window (seconds), name.
    rate: dict[str, Any] | None = None
    #: Headers that make requests conditional: `ETag`, `Last-Modified`, both, or none. `None` if that could not be tested.
    validators: list[str] | None = None
    #: Whether a conditional request was answered with 304.
    not_modified: bool | None = None
    #: Seconds by which the remote clock is ahead.
    skew_seconds: float | None = None
    #: version, and days_left of the certificate.
    tls: dict[str, Any] | None = None
    redirects: int | None = None
    #: Over FTP and SFTP: commands about files.
    requests: int | None = None
    #: What needs attention although the check succeeded, one line each.
    warnings: list[str] = field(default_factory=list)


def check_client(client: Client, registry: Registry) -> CheckResult:
    """Check one client. An error becomes the message of the result."""
    from flows.project.env_values import env_values
    from flows.project.settings import client_settings

    result, started, syncs = CheckResult(client.id), time.monotonic(), registry.of_client(client.id)
    try:
        values = env_values(client, *(sync.listing for sync in syncs))
        settings = client_settings(client)
    except SettingsError as error:
        result.settings, result.message = "FAIL", str(error)
    else:
        result.settings = "ok"
        mask = Mask((settings, values))
        with Inspector(max_requests=None if client.check is not None else MAX_REQUESTS) as inspector:
            try:
                with client.connect(settings) as connection:
                    try:
                        _read_pages(result, client, connection, [bound(one, settings) for one in syncs], inspector)
                    finally:
                        result.requests = getattr(connection, "requests", None)
                result.connection = "ok"
            except RequestLimitError as error:
                result.connection, result.message = "FAIL", f"{error}, before a first page was there"
            except Exception as error:  # noqa: BLE001 - the user's code or a remote system may raise anything; it is the result of the check
                result.connection, result.message = "FAIL", _error_text(error)
                result.entities = None
        _add_observations(result, inspector)
        result.warnings = [mask(one) for one in result.warnings]
        result.message = mask(result.message)
    result.ok = not result.message
    result.seconds = round(time.monotonic() - started, 3)
    return result


def _read_pages(result: CheckResult, client: Client, connection: Any, syncs: Sequence[Sync], inspector: Inspector) -> None:
    if client.check is not None:
        check = client.check
        within(CHECK_TIMEOUT, lambda: check(connection), what="the client's `check`")
        # It tells that the client is well, and not that its syncs store something.
        inspector.allow(MAX_REQUESTS)
    for number, sync in enumerate(syncs):
        shown = len(result.message)
        first = _read_first_sync(result, sync, connection, inspector) if number == 0 else _first_page(sync, connection, inspector)
        if first is not None and not result.message:
            inspector.allow(2 * MAX_FETCHES)
            result.message = _fetch_problem(sync, connection, first.items[:MAX_FETCHES], inspector)
        if number and len(result.message) > shown:
            result.message = f"{sync.id}: {result.message}"
        if result.message:
            return


def _fetch_problem(sync: Sync, connection: Any, entities: Sequence[Entity], inspector: Inspector) -> str:
    """Fetch entities of a first page until one is there, and say what is wrong; empty if nothing is."""
    if sync.fetch is None:
        return ""
    for entity in entities:
        asked = len(inspector.observations)
        try:
            record = sync.fetch_entity(connection, entity)
        except RequestLimitError:
            return ""
        except GoneError:
            record = Gone()
        except Exception as error:  # noqa: BLE001 - the user's code or a remote system may raise anything; it is the result of the check
            return f"fetch of {entity.key!r}: {_error_text(error)}"
        if not isinstance(record, Gone):
            wrong = _record_problem(record, inspector.observations[asked:])
            return wrong and f"fetch of {entity.key!r}{wrong}"
    if len(entities) < 2:
        return ""
    return f"the first {len(entities)} listed entities are gone (404 or 410) when they are fetched: is the path in `fetch` right?"


def _record_problem(record: Any, answers: Sequence[Observation]) -> str:
    """Say what is wrong with what `fetch` returned; empty if nothing is."""
    if answers and all(one.status == ACCEPTED for one in answers):
        return ": 202 Accepted, not ready yet; a run asks again later"
    if record is None:
        return " returned None: does it return the record?"
    return f": {record.message}" if isinstance(record, Failure) else ""


def _first_page(sync: Sync, connection: Any, inspector: Inspector) -> Page | None:
    inspector.allow(MAX_REQUESTS)
    pages = iter(sync.listing(connection, None))
    first = next(pages, None)
    if first is not None and not first.items and first.cursor is not None:
        # That nothing at all is there may be an error that only the end of the listing tells.
        with suppress(RequestLimitError):
            next(pages, None)
    return first


def _read_first_sync(result: CheckResult, sync: Sync, connection: Any, inspector: Inspector) -> Page | None:
    listing: Any = sync.listing
    if hasattr(listing, "__dataclass_fields__") and hasattr(listing, "recheck"):
        # A recheck would read pages again at the end.
        listing = replace(listing, recheck=0)
    if isinstance(connection, SoapClient):
        # A WSDL may consist of many documents.
        inspector.allow(None)
        _ = connection.operations
        inspector.allow(MAX_REQUESTS)
    pages = listing(connection, None)
    first = next(pages, None)
    seen = inspector.observations[-1] if inspector.observations else None
    result.pages, result.entities = (0, 0) if first is None else (1, len(first.items))
    result.ended = "end"
    if first is not None:
        result.warnings += first.warnings
        if first.errors:
            result.message = f"{len(first.errors)} items without a key: {first.errors[0]}"
        if first.cursor is not None:
            try:
                _add_second_page(result, first, pages)
            except RequestLimitError:
                result.ended = "more"
    if seen is not None and isinstance(connection, HttpClient):
        with suppress(RequestLimitError):
            _repeat_conditionally(result, connection, seen)
    return first


def _add_second_page(result: CheckResult, first: Any, pages: Iterator[Any]) -> None:
    try:
        second = next(pages, None)
    except ClientError as error:
        # Sign-in and first page have succeeded, so only paging fails.
        result.ended = getattr(pages, "stopped", "") or "error"
        result.message = result.message or f"second page: {error}"
        return
    if second is None:
        return
    result.pages = 2
    result.warnings += second.warnings
    keys = [entity.key for entity in second.items]
    shown = [entity.key for entity in first.items]
    if not keys and second.repeated:
        keys = shown
    result.second_page = "empty" if not keys else "same" if keys == shown else "differs"
    result.ended = "end" if second.cursor is None else "more"
    if result.second_page == "same":
        result.warnings.append("the second page equals the first one; check the name of the paging parameter")


def _repeat_conditionally(result: CheckResult, connection: HttpClient, seen: Observation) -> None:
    """Request the first page again, on the condition that it has changed."""
    validator = seen.validator
    if seen.method != "GET" or seen.status != 200:
        return
    result.validators = []
    if validator is None:
        return
    result.validators = [name for name, value in (("ETag", validator.etag), ("Last-Modified", validator.modified)) if value]
    try:
        connection.get_json(seen.url, if_none_match=validator.etag, if_modified_since=validator.modified)
        result.not_modified = False
    except NotModifiedError:
        result.not_modified = True
    except ClientError as error:
        result.warnings.append(f"asked again with {' and '.join(result.validators)}: {error}")


def _add_observations(result: CheckResult, inspector: Inspector) -> None:
    """Add what all answers have shown besides their content."""
    observations = inspector.observations
    _add_tls(result, [*inspector.connections, *(one.tls for one in observations if one.tls is not None)])
    if any(_is_unencrypted(url) for url in (*(one.url for one in observations), *(one.url for one in inspector.exchanges))):
        result.warnings.append(_NO_TLS)
    if not observations:
        return
    result.requests, result.redirects = inspector.requests, sum(one.is_redirect for one in observations)
    _add_rate(result, observations)
    _add_clock_skew(result, observations)
    if moved := next((one.status for one in observations if one.status in (301, 308)), None):
        result.warnings.append(f"{moved}: what is declared has moved for good; declare where it leads to")


def _add_rate(result: CheckResult, observations: Sequence[Observation]) -> None:
    budgets = [budget for one in observations if (budget := one.budget) is not None]
    if budgets:
        # The last answer has counted all requests.
        names = ("limit", "remaining", "resets_in", "window", "name")
        result.rate = {name: getattr(budgets[-1], name) for name in names}
        if budgets[-1].remaining == 0:
            result.warnings.append("the rate budget is used up")


def _add_clock_skew(result: CheckResult, observations: Sequence[Observation]) -> None:
    skews = {abs(skew): skew for one in observations if (skew := one.skew) is not None}
    if skews:
        # The smallest one: the others include more of the time that the answer took.
        skew = skews[min(skews)]
        result.skew_seconds = round(skew, 1)
        if abs(skew) > MAX_CLOCK_SKEW:
            result.warnings.append(f"the remote clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours")


def _add_tls(result: CheckResult, secured: Sequence[Tls]) -> None:
    if secured:
        left = min((tls.days_left for tls in secured if tls.days_left is not None), default=None)
        result.tls = {"version": secured[-1].version, "days_left": None if left is None else int(left // 1)}
        if left is not None and left < MIN_CERTIFICATE_DAYS:
            result.warnings.append(f"the certificate ends in {left // 1:.0f} days")


def _is_unencrypted(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "ftp") or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def _error_text(error: Exception) -> str:
    text = str(error).strip() or "no message"
    is_ours = isinstance(error, NotEnded) or type(error).__module__.startswith("clients.")
    return text if is_ours else f"{type(error).__name__}: {text}"
