"""The options that say which jobs: `--queue --client --type --state --key --where`. Opens no database."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flows.cli.declared import complete_clients, complete_queues, complete_types
from flows.errors import UsageError

if TYPE_CHECKING:
    from jobs.filter import Filter

F = TypeVar("F", bound=Callable[..., Any])

# As in jobs.models, which would bring SQLAlchemy along; a test holds the two together.
STATES = ("queued", "processing", "success", "failure", "superseded", "cancelled")

NAMES = ("queue", "client", "type_", "state", "key", "where")
"""The parameters that `filter_options` adds."""


def filter_options(command: F) -> F:
    """Give a command the options that say which jobs."""
    options = (
        click.option("--queue", help="Only jobs of this queue.", shell_complete=complete_queues),
        click.option("--client", help="Only jobs of this client.", shell_complete=complete_clients),
        click.option("--type", "type_", help="Only jobs of this sync or job type.", shell_complete=complete_types),
        click.option("--state", type=click.Choice(STATES), help="Only jobs in this state."),
        click.option("--key", help="Only jobs of this entity."),
        click.option(
            "--where", "where", multiple=True, metavar="PATH=VALUE",
            help="Only jobs whose payload has this value there: data.name=Rex, tags.0=red. Several must all be true.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def is_filtered(options: Mapping[str, Any]) -> bool:
    """Tell whether any of them was given."""
    return any(options[name] not in (None, ()) for name in NAMES)


def chosen(options: Mapping[str, Any]) -> "Filter":
    """Return the filter that the options make.

    Raises:
        UsageError: a `--where` that cannot be read.
        FilterError: a path that no payload has.
    """
    from jobs.filter import Filter

    where: dict[str, str] = {}
    for text in options["where"]:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UsageError(f"--where {text!r} has no value; write PATH=VALUE, as in data.name=Rex")
        if where.setdefault(path, value) != value:
            raise UsageError(f"--where names {path!r} twice with two values; no job has both")
    return Filter(options["queue"], options["client"], options["type_"], options["state"], options["key"], where)
