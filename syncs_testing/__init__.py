"""Tests for clients: a server that misbehaves as real ones did, and recorded exchanges.

from clients import Bearer, HttpClient
from syncs_testing import SECRET, AttackSuite, Subject

class TestPets(AttackSuite):
    @pytest.fixture
    def subject(self):
        connect = lambda url: HttpClient(url, auth=Bearer(SECRET), timeout=1, total_timeout=3)
        return Subject(connect, pets.listing)
"""

from __future__ import annotations

from syncs_testing.api import SECRET, Api, Attack
from syncs_testing.attacks import ATTACKS
from syncs_testing.recorded import UnrecordedError, recorded
from syncs_testing.server import Reply, Seen, Server, serving
from syncs_testing.styles import Style, style_of
from syncs_testing.suite import AttackSuite, Subject
from syncs_testing.trial import Outcome, attack_one

__all__ = [
    "ATTACKS",
    "SECRET",
    "Api",
    "Attack",
    "AttackSuite",
    "Outcome",
    "Reply",
    "Seen",
    "Server",
    "Style",
    "Subject",
    "UnrecordedError",
    "attack_one",
    "recorded",
    "serving",
    "style_of",
]
