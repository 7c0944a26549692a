"""What all commands share: `--json`, printing an answer, and the one line that an error becomes. Knows no command."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, NoReturn

import click

from flows.cli.answer import Answer, one_line, to_json
from flows.errors import FlowsError
from jobs import JobsError
from jobs.errors import DatabaseBusy, DatabaseLost

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

_JSON = "syncs.json"


def json_wanted() -> bool:
    """Tell whether the present command was called with `--json`."""
    return bool(click.get_current_context().meta.get(_JSON))


def note(text: str) -> None:
    """Say something beside the answer: on stderr, one line."""
    click.echo(f"syncs: {text}", err=True)


def _remember_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_JSON] = value


class Command(click.Command):
    """A command that returns an `Answer`, and takes `--json`."""

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
        """Run the command, print its answer and end with its exit code."""
        if ctx.meta[_JSON]:
            # A print() in somebody's file must not get between the reader and the document.
            with redirect_stdout(sys.stderr):
                answer: Answer = super().invoke(ctx)
            encoding = str(getattr(sys.stdout, "encoding", None)).lower()
            click.echo(to_json(answer.document, ascii_only=encoding not in ("utf-8", "utf8")))
        else:
            answer = super().invoke(ctx)
            if answer.text:
                click.echo(answer.text)
        for line in answer.notes:
            note(line)
        ctx.exit(answer.code)


class Group(click.Group):
    """A group whose commands return answers."""

    command_class = Command


class Program(Group):
    """The outermost group: turns every error into one line on stderr and an exit code (contract, Commands)."""

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
                # A key in letters that the terminal lacks must not end the command that shows it.
                stream.reconfigure(errors="replace")
        try:
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
            code = _complain(_usage(error), 2)
        except (FlowsError, JobsError) as error:
            # A database that was never there is a wrong setting; one that went away, or is in use, is no mistake of the command.
            code = _complain(one_line(str(error), limit=1000), 1 if isinstance(error, DatabaseLost | DatabaseBusy) else 2)
        except (click.Abort, KeyboardInterrupt):
            code = _complain("interrupted", INTERRUPTED)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the last resort: one line, and the way to the whole of it
            code = _complain(f"unexpected {type(error).__name__}: {one_line(str(error))}; SYNCS_DEBUG=1 shows where", 1)
        sys.exit(code)


def _usage(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return text
    return f"{text}{'' if text.endswith('?') else ';'} see `{context.command_path} --help`"


def _complain(text: str, code: int) -> int:
    if os.environ.get("SYNCS_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    note(text)
    return code
