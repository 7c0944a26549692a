"""The suite for authors: it holds for a good client, and it sees a bad one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from clients import Bearer, Cursor, HttpClient, Listing
from syncs_testing import ATTACKS, SECRET, Attack, AttackSuite, Outcome, Style, Subject, attack_one

pets = Listing("pets", Cursor("next_cursor"), items="data", key="id", version="version")


class TestPets(AttackSuite):
    """The Petstore of the contract, attacked by one fixture."""

    @pytest.fixture
    def subject(self, attack: Attack) -> Subject:
        """What is attacked; only a slow server meets short limits, so that a busy machine does not look like one."""
        timeout, total = (1.0, 3.0) if attack.slow else (60.0, 60.0)
        return Subject(lambda url: HttpClient(url, auth=Bearer(SECRET), timeout=timeout, total_timeout=total), pets, patience=25)


def naive(url: str) -> Iterator[str]:
    """List as most programs do: go on while there is a cursor, follow redirects with everything."""
    client = httpx.Client(base_url=url, headers={"X-Key": SECRET}, follow_redirects=True, timeout=1)
    with client:
        cursor: Any = None
        while True:
            body = client.get("/pets", params={} if cursor is None else {"cursor": cursor}).json()
            yield from (row["id"] for row in body.get("data") or ())
            cursor = body.get("next_cursor")
            if cursor is None:
                return


def outcome_of(name: str) -> Outcome:
    """Attack the naive client."""
    (attack,) = (attack for attack in ATTACKS if attack.name == name)
    return attack_one(attack, Style("Cursor", {"path": "next_cursor", "param": "cursor"}), naive, patience=3)


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        ("the same cursor for ever", "endless"),
        ("a redirect leads elsewhere", "leak"),
        ("200 with an error body", "lost"),
        ("a body of a byte a second", "hangs"),
    ],
)
def test_the_suite_sees_a_naive_client(attack: str, wrong: str) -> None:
    """What a careless client does wrong is named."""
    assert any(text.startswith(wrong) for text in outcome_of(attack).wrong)
