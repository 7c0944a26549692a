"""The workers of `worker_bench`, as fixtures."""

from tests.support.worker_bench import daemon, gate  # noqa: F401 - fixtures
