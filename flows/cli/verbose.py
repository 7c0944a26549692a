"""`--verbose`: what our own packages log, on stderr. Those of others stay out: theirs write whole URLs."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import click


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what is stderr now: a progress bar puts itself in between for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _turn_on(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for name in ("syncs", "clients", "jobs", "flows"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(handler)
            context.call_on_close(lambda logger=logger: logger.removeHandler(handler))
    return value


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-v/--verbose` to a command, which gets it as `verbose`."""
    return click.option("-v", "--verbose", is_flag=True, callback=_turn_on, help="Log to stderr what is done.")(command)
