"""Numbers of a remote system arrive digit for digit in both databases, and what JSON does not have is one entity's failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from clients import HttpClient, Listing
from flows import Client, JobType, Sync
from flows.run_result import RunResult
from flows.sync import run as engine
from jobs import JobStore, Retry
from jobs.fingerprint import content_hash
from syncs_testing import Reply, Seen, Server, serving
from tests.support.fake_things_api import query

SYNC = "bank.accounts"


class Bank:
    """Answers paths with texts."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.server: Server

    def __call__(self, seen: Seen) -> Reply:
        """Answer."""
        return Reply(self.texts[seen.path].encode())

    def run(self, store: JobStore, **fields: Any) -> RunResult:
        """Run the sync of the accounts."""
        client = Client("bank", connect=lambda _: HttpClient(self.server.url))
        sync = Sync(SYNC, client, **{"listing": Listing("accounts"), "retry": Retry(max_retries=0), **fields})
        return engine.run(sync, store)


@pytest.fixture
def bank() -> Iterator[Bank]:
    """Run the bank."""
    found = Bank()
    with serving(found) as found.server:
        yield found


def exact(text: str) -> Any:
    """Return the value of JSON text with all digits; PostgreSQL's `jsonb` keeps these, and no order of keys."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def data(store: JobStore) -> dict[str, Any]:
    """Return each record, as the database has it."""
    return {row["key"]: exact(row["data"]) for row in query(store, "SELECT key, CAST(data AS TEXT) AS data FROM record")}


@pytest.mark.parametrize("fetched", [False, True])
def test_decimals_keep_their_digits(store: JobStore, bank: Bank, fetched: bool) -> None:
    """From the response to the record, with and without `fetch`; a change of the last digit is a change."""
    texts = ['{{"id":1,"balance":1884518522.16842672{}}}', '{{"id":2,"n":[1234567890123456789{}.5,0.1,1e400],"none":null}}']
    for end in ("41", "99"):
        first, second = (text.format(end) for text in texts)
        bank.texts = {"/accounts": f"[{first},{second}]", "/accounts/1": first, "/accounts/2": second}
        result = bank.run(store, fetch="accounts/{key}" if fetched else None)
        assert (result.state, result.succeeded) == ("success", 2)
        assert data(store) == {"1": exact(first), "2": exact(second)}
    assert bank.run(store).unchanged == 2


def test_versions_and_keys_of_many_digits(store: JobStore, bank: Bank) -> None:
    """A version that is a decimal tells changes in its last digit."""
    for end in ("41", "42"):
        bank.texts["/accounts"] = f'[{{"id":123456789012345678901,"v":1884518522.16842672{end}}}]'
        assert bank.run(store, listing=Listing("accounts", version="v")).queued == 1
    assert query(store, "SELECT key, version FROM record") == [
        {"key": "123456789012345678901", "version": "1884518522.1684267242"}
    ]


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_one_entitys_failure(store: JobStore, bank: Bank, wrong: str) -> None:
    """In a page it is one item, in a response that entity, which fails for good; the others are stored."""
    rows = ['{"id":1,"v":1}', f'{{"id":2,"v":{wrong}}}', '{"id":3,"v":3}']
    bank.texts = {"/accounts": f"[{','.join(rows)}]", "/ids": '[{"id":1},{"id":2},{"id":3}]'}
    bank.texts |= {f"/accounts/{n}": row for n, row in enumerate(rows, 1)}
    listed = bank.run(store)
    assert (listed.state, listed.succeeded, listed.flawed, listed.stopped) == ("failed", 2, 1, "end")
    assert data(store).keys() == {"1", "3"}
    fetched = bank.run(store, listing=Listing("ids"), fetch="accounts/{key}")
    assert (fetched.failed, fetched.failures[0][0]) == (1, "2")
    assert "NaN or infinite, which JSON does not have" in fetched.failures[0][1]
    assert data(store).keys() == {"1", "3"}


def test_numbers_beyond_any_column(store: JobStore, bank: Bank, dialect: str) -> None:
    """A number that PostgreSQL cannot keep fails its entity alone; NUL becomes U+FFFD there, and a backslash before it stays."""
    bank.texts["/accounts"] = (
        '[{"id":1,"v":1e200000},{"id":2,"v":"1e200000"},{"id":3,"v":"a\\u0000\\\\u0000"},{"id":4,"v":1e-20000}]'
    )
    result = bank.run(store)
    if dialect == "sqlite":
        assert (result.succeeded, result.failed) == (4, 0)
    else:
        assert (result.succeeded, result.failed) == (2, 2)
        assert dict(result.failures)["1"] == "holds the number 1e200000, which PostgreSQL's jsonb cannot keep"
        assert data(store)["3"]["v"] == "a\ufffd\\u0000"
    assert data(store)["2"]["v"] == "1e200000"


@pytest.mark.parametrize("wrong", [float("nan"), {"a": [float("inf")]}, {1, 2}, 0.0029830558082336372, {2: 1}])
def test_a_record_that_no_column_keeps(store: JobStore, bank: Bank, wrong: Any) -> None:
    """What a `fetch` returns is stored as it is, or that entity fails; nothing becomes null or is rounded."""
    bank.texts["/accounts"] = '[{"id":1},{"id":2}]'
    done = bank.run(store, fetch=lambda http, entity: wrong if entity.key == "1" else {"n": 1})
    assert (done.succeeded, done.failed) == (1, 1)
    assert data(store) == {"2": {"n": 1}}


def test_a_record_that_another_job_saves(store: JobStore, bank: Bank) -> None:
    """Its payload has the digits, and so the hash that the sync has noted."""
    bank.texts["/accounts"] = '[{"id":1,"balance":1884518522.1684267241}]'
    saves = JobType("bank.save", Client("bank", connect=lambda _: None), process=lambda job, conn: None)
    saved: list[bool] = []

    def save(session: Any, entity: Any, record: Any) -> None:
        saved.append(content_hash(saves.validated({"record": record})["record"]) == content_hash(record))

    assert bank.run(store, save=save).succeeded == 1
    assert saved == [True]
