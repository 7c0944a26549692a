"""Makes `kit`, the vocabulary of these tests, importable however pytest imports test modules."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _close_the_nursery() -> Iterator[None]:
    yield
    from kit import nursery_process

    nursery_process.close()
