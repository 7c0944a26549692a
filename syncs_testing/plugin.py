"""The pytest plugin: fixtures for a server on loopback and for recorded exchanges. pytest loads it automatically."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest

from syncs_testing.recorded import recorded
from syncs_testing.server import Reply, Seen, Server, serving


@pytest.fixture
def api_server() -> Iterator[Callable[[Callable[[Seen], Reply]], Server]]:
    """Start servers that answer what a function returns; each call starts one, with an origin of its own."""
    with ExitStack() as stack:
        yield lambda respond: stack.enter_context(serving(respond))


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[None]]:
    """`recorded` with a cassette for this test: `cassettes/<file>/<test>.yaml`, beside the file."""
    test = request.path
    name = re.sub(r"[^\w.\[\]-]", "_", request.node.name)
    cassette = test.parent / "cassettes" / test.stem / f"{name}.yaml"

    def start(**options: Any) -> AbstractContextManager[None]:
        return recorded(cassette, **options)

    return start
