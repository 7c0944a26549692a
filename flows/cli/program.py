"""The program `syncs`: its commands by name. Imports no more than click and the light halves of the packages."""

import click

from clients.version import VERSION
from flows.cli.check import check
from flows.cli.command import Program
from flows.cli.commands import cancel, delete, release, retry
from flows.cli.database import db
from flows.cli.declared import list_
from flows.cli.enqueue import enqueue
from flows.cli.locks import locks
from flows.cli.maintain import maintain
from flows.cli.notices import notices
from flows.cli.pauses import pause, pauses, resume
from flows.cli.process import process
from flows.cli.run import run
from flows.cli.server import down, setup, status, up
from flows.cli.waiting import job, jobs, queues
from flows.cli.work import work


@click.group("syncs", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="syncs")
def program() -> None:
    """Keeps your data in step with other people's APIs.

    Each remote system is one file in syncs/ (or named in SYNCS_PATH). Exit codes: 0 done, 1 it ran and something
    needs a person, 2 bad usage, unknown name or broken declaration. SYNCS_DEBUG=1 shows tracebacks.

    \b
    Example:
      syncs list
      syncs run petstore.pets
      syncs jobs --state failure
    """


for command in (
    list_, check, up, down, status, run, work, enqueue, process, queues, jobs, job, retry, release, cancel, delete, pause, resume,
    pauses, notices, locks, maintain, setup, db,
):  # fmt: skip
    program.add_command(command)
