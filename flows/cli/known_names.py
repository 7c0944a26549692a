"""Refuses a name that nothing declares and nothing in the database has, so that a typing error does not look empty."""

from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any

from flows.cli.declared_names import read_declarations
from flows.errors import UnknownName


def check_job_names(
    has_jobs: Callable[[str, str], bool], *, queue: str | None = None, client: str | None = None, type_: str | None = None
) -> None:
    """Refuse a queue, client or type that is not declared and has no jobs.

    Args:
        has_jobs: `(column, value)`, whether there is a job of it; asked where nothing declares it.
        queue, client, type_: the names; None was not given.

    Raises:
        UnknownName: there is none of this name.
    """
    if queue is None and client is None and type_ is None:
        return
    registry = read_declarations()
    uses: list[Any] = [*registry.syncs.values(), *registry.job_types.values()]
    named = (
        ("queue", "queue", queue, {*registry.queues, *(one.queue_id for one in uses)}),
        ("client", "client", client, {*registry.clients}),
        ("sync or job type", "type", type_, {one.id for one in uses}),
    )
    for kind, column, name, declared in named:
        if name is not None and name not in declared and not has_jobs(column, name):
            raise UnknownName(_text(kind, name, declared))


def check_client(name: str | None, *, is_stored: bool) -> None:
    """Refuse a client that is not declared, unless something of it is stored.

    Raises:
        UnknownName: there is none of this name.
    """
    if name is not None and not is_stored:
        read_declarations().client(name)


def _text(kind: str, name: str, declared: Collection[str]) -> str:
    close = get_close_matches(name, declared, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`syncs list` shows what is declared"
    return f"no {kind} is called {name!r}, and no job has that; {hint}"
