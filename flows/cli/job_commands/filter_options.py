"""The options that choose jobs: `--queue --client --type --state --key --where`. Opens no database."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.cli.declared_names import complete_clients, complete_queues, complete_types
from flows.errors import UsageError

if TYPE_CHECKING:
    from jobs.admin.filters import Filter

F = TypeVar("F", bound=Callable[..., Any])

# Repeats jobs.schema.job_tables, which imports SQLAlchemy; a test compares the two.
STATES = ("queued", "processing", "success", "failure", "superseded", "cancelled")

NAMES = ("queue", "client", "type_", "state", "key", "where")
"""The parameters that `filter_options` adds."""


def filter_options(command: F) -> F:
    """Add the options that choose jobs to a command."""
    options = (
        click.option("--queue", help="Only jobs of this queue.", shell_complete=complete_queues),
        click.option("--client", help="Only jobs of this client.", shell_complete=complete_clients),
        click.option("--type", "type_", help="Only jobs of this sync or job type.", shell_complete=complete_types),
        click.option("--state", type=click.Choice(STATES), help="Only jobs in this state."),
        click.option("--key", help="Only jobs of this entity."),
        click.option(
            "--where",
            "where",
            multiple=True,
            metavar="PATH=VALUE",
            help="Only jobs whose payload has this value at this path: data.name=Rex, tags.0=red. Several must all match.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def is_filtered(options: Mapping[str, Any]) -> bool:
    """Tell whether any of these options was given."""
    return any(options[name] not in (None, ()) for name in NAMES)


def filter_from(options: Mapping[str, Any]) -> "Filter":
    """Return the filter that the options describe.

    Raises:
        UsageError: a `--where` has the wrong form.
        FilterError: a `--where` path has the wrong form.
    """
    from jobs.admin.filters import Filter

    where = where_from(options["where"])
    return Filter(
        queue=options["queue"],
        client=options["client"],
        type=options["type_"],
        state=options["state"],
        key=options["key"],
        where=where,
    )


def where_from(texts: Sequence[str]) -> dict[str, str]:
    """Return the paths and values of `--where` options.

    Raises:
        UsageError: one has the wrong form, or a path has two values.
    """
    where: dict[str, str] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UsageError(f"--where {text!r} has no value; write PATH=VALUE, as in data.name=Rex")
        if where.setdefault(path, value) != value:
            raise UsageError(f"--where names {path!r} twice with two values; nothing has both")
    return where
