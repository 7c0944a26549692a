"""The attack suite as a test class: with one fixture, a client is tested against every attack that fits its paging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from syncs_testing.api import Attack
from syncs_testing.attacks import ATTACKS
from syncs_testing.styles import Style, style_of
from syncs_testing.trial import attack_one


@dataclass(frozen=True)
class Subject:
    """The client under attack.

    Args:
        connect: returns the client's connection for a base URL, signed in with `SECRET`, so that a leak is detected.
        listing: as declared; called with the connection.
        style: how its API pages; default: as the listing's paginator expects.
        patience: seconds after which the client must have given up on a slow server. Give its connection short timeouts.
    """

    connect: Callable[[str], AbstractContextManager[Any]]
    listing: Any
    style: Style | None = None
    patience: float = 10.0

    def listed(self, url: str) -> Iterator[Any]:
        """List from an API at `url`."""
        with self.connect(url) as connection:
            yield from self.listing(connection, None)


class AttackSuite:
    """Subclass it in a test file, and give it a fixture `subject`."""

    @pytest.fixture
    def subject(self) -> Subject:
        """Return the client under attack; to be overridden."""
        raise NotImplementedError("give your AttackSuite a fixture `subject` that returns a Subject")

    @pytest.mark.parametrize("attack", [pytest.param(attack, id=attack.name.replace(" ", "-")) for attack in ATTACKS])
    def test_attack(self, attack: Attack, subject: Subject) -> None:
        """No row is lost without an error, the listing ends, and no credentials are sent to another origin."""
        style = subject.style or style_of(subject.listing)
        if not attack.fits(style):
            pytest.skip(f"this attack does not apply to {style.kind}")
        outcome = attack_one(attack, style, subject.listed, patience=subject.patience)
        assert not outcome.wrong, f"{attack.name} ({attack.incident}): {'; '.join(outcome.wrong)}"
