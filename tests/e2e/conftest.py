"""What the end-to-end tests share; `remote` and `brood` become importable however pytest imports test modules."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))
sys.path.insert(0, str(Path(__file__).parent))

from remote import Remote, serving


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found
