"""What all commands share: `--json`, `--verbose`, printing a result, and turning an error into one line and an exit code."""

import getpass
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from flows.cli.output import CommandOutput, echo, first_line, to_json
from flows.errors import FlowsError
from flows.project.env_file import load_env_file
from flows.project.printable_text import PrintableFilter, make_logs_printable
from jobs import JobsError
from jobs.errors import DatabaseBusy, DatabaseLost, DatabaseReplaced
from sync_clients import in_the_way

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""

_JSON = "syncs.json"


class NumberRange(click.FloatRange):
    """A number within bounds. `nan` is none: it is neither below nor above them."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or end with what is wrong with it."""
        number = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is not a number", param, ctx) if math.isnan(number) else number


def json_wanted() -> bool:
    """Tell whether this command was called with `--json`."""
    return bool(click.get_current_context().meta.get(_JSON))


def note(text: str) -> None:
    """Print one line on stderr, beside the result."""
    echo(f"syncs: {text}", err=True)


def user_name() -> str:
    """Return the name of the user who runs this process; empty where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def _remember_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_JSON] = value


class _Stderr(logging.StreamHandler[Any]):
    """Writes to the `sys.stderr` of the moment: a progress bar replaces it for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _log_to_stderr(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        handler = _Stderr()
        handler.addFilter(PrintableFilter())
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for name in ("syncs", "clients", "jobs", "flows"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(handler)
            context.call_on_close(lambda logger=logger: logger.removeHandler(handler))
    return value


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-v/--verbose`, which logs to stderr what our own packages do; those of others would log whole URLs."""
    return click.option("-v", "--verbose", is_flag=True, callback=_log_to_stderr, help="Log to stderr what is done.")(command)


class Command(click.Command):
    """A command that returns a `CommandOutput`, and takes `--json`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        option = click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember_json,
            help="Print one JSON document and nothing else.",
        )
        self.params.append(option)

    def invoke(self, ctx: click.Context) -> NoReturn:
        """Run the command, print its result and end with its exit code."""
        if ctx.meta[_JSON]:
            # A print() in a file of syncs/ must not mix with the document.
            with redirect_stdout(sys.stderr):
                result: CommandOutput = super().invoke(ctx)
            encoding = str(getattr(sys.stdout, "encoding", None)).lower()
            echo(to_json(result.document, ascii_only=encoding not in ("utf-8", "utf8")))
        else:
            result = super().invoke(ctx)
            if result.text:
                echo(result.text)
        for line in result.notes:
            note(line)
        ctx.exit(result.code)


class Group(click.Group):
    """A group of commands."""

    command_class = Command


class Program(Group):
    """The outermost group: imports a command when it is used, and turns every error into one line on stderr and an exit code.

    Args:
        lazy_commands: command -> `module:attribute`, with the module below `flows.cli`.
    """

    def __init__(self, *args: Any, lazy_commands: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._lazy_commands = lazy_commands
        # Placeholders: Click takes the names from here, for `--help` and for "Did you mean …".
        self.commands = {name: click.Command(name) for name in lazy_commands}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; `None` where there is none of that name."""
        if cmd_name not in self._lazy_commands:
            return None
        module, _, attribute = self._lazy_commands[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"flows.cli.{module}"), attribute)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the command line and end the process."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                # Letters that the terminal cannot show must not end the command.
                stream.reconfigure(errors="replace")
        make_logs_printable()
        try:
            if line := in_the_way(Path.cwd()):
                note(line)
            load_env_file()
            code = super().main(
                args,
                prog_name or "syncs",
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.ClickException as error:
            code = _report(_usage(error), 2)
        except (FlowsError, JobsError) as error:
            # A database that was never there is a wrong setting; one that went away or is busy is not a mistake of the caller.
            is_ours = isinstance(error, DatabaseLost | DatabaseReplaced | DatabaseBusy)
            code = _report(first_line(str(error), limit=1000), 1 if is_ours else 2)
        except (click.Abort, KeyboardInterrupt):
            code = _report("interrupted", INTERRUPTED)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the process ends here: one line, and how to see the traceback
            code = _report(f"unexpected {type(error).__name__}: {first_line(str(error))}; SYNCS_DEBUG=1 shows where", 1)
        sys.exit(code)


def _usage(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return text
    return f"{text}{'' if text.endswith('?') else ';'} see `{context.command_path} --help`"


def _report(text: str, code: int) -> int:
    if os.environ.get("SYNCS_DEBUG", "0") not in ("", "0"):
        echo(traceback.format_exc(), err=True)
    note(text)
    return code
