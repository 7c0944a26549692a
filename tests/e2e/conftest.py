"""What the end-to-end tests share."""

from collections.abc import Iterator

import pytest

from tests.support.fake_things_api import Remote, serving


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A remote system without things."""
    with serving(Remote()) as found:
        yield found
