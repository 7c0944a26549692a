"""Tests that share an expensive fixture run in one process of pytest-xdist."""

import pytest


@pytest.mark.xdist_group("groups")
def test_a_group_is_marked(request: pytest.FixtureRequest) -> None:
    """pytest-xdist adds the group's name to the test's id; without that, each process would start its own Prefect server."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("runs in one process")
    assert request.node.nodeid.endswith("@groups")
