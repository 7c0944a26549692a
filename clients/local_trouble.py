"""Tells errors of our own process and machine (no file descriptors, disk or package) from those of remote systems."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from clients.errors import LocalError

_LACKING = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ENOMEM,
        errno.ENOBUFS,
    }
)
"""What this machine or process has run out of, or may not write."""


def is_local(error: BaseException) -> bool:
    """Tell whether an error, or one that caused it, shows that our own process or machine lacks something.

    The same request would work from another machine, or here once that is mended. A missing package counts, also one that the
    user's code imports: this machine was installed without it. `MemoryError` does not: it may be the one answer that is too
    large.
    """
    return any(
        isinstance(one, LocalError | ImportError)
        or (isinstance(one, OSError) and one.errno in _LACKING)
        or (isinstance(one, RuntimeError) and str(one).startswith("can't start new thread"))
        for one in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it; a chain may have a loop."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
