"""The pytest plugin: a server for tests of clients, on loopback. Loaded by itself where this package is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from syncs_testing.server import Reply, Seen, Server, serving


@pytest.fixture
def api_server() -> Iterator[Callable[[Callable[[Seen], Reply]], Server]]:
    """Start servers that answer what a function says; each call gives one of another origin."""
    with ExitStack() as stack:
        yield lambda respond: stack.enter_context(serving(respond))
