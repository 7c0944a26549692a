"""Ends the process that forks workers, when the tests are over."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _close_the_forking_process() -> Iterator[None]:
    yield
    from tests.support.store_helpers import forking_process

    forking_process.close()
