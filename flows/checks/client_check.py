"""Checks one client with a few requests: settings, sign-in, two pages of its listing, and the fetch of an entity."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from clients import ClientError, Entity, GoneError, HttpClient, NotModifiedError, Page, SoapClient
from clients.check_recorder import Inspector, Observation, RequestLimitError
from clients.exchange_recorder import ACCEPTED
from clients.listings.jmespaths import fields_instead
from flows.checks.check_result import CheckResult, add_observations
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
        add_observations(result, inspector)
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
        if first is not None and (missing := _missing_version(sync, first.items)):
            result.warnings.append(f"{sync.id}: {missing}" if number else missing)
        if number and len(result.message) > shown:
            result.message = f"{sync.id}: {result.message}"
        if result.message:
            return


def _missing_version(sync: Sync, entities: Sequence[Entity]) -> str:
    """Say that the declared version is in no entity of a first page; empty if it is, or none is declared."""
    path = getattr(sync.listing, "version", None)
    if not isinstance(path, str) or not entities or any(one.version is not None for one in entities):
        return ""
    return f"no listed item has a version at {path!r}{fields_instead(path, entities[0].data)}"


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


def _error_text(error: Exception) -> str:
    text = str(error).strip() or "no message"
    is_ours = isinstance(error, NotEnded) or type(error).__module__.startswith("clients.")
    return text if is_ours else f"{type(error).__name__}: {text}"
