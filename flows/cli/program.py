"""The program `syncs`: each command and the module that defines it, which is imported when the command is used."""

import click

from clients.package_version import VERSION
from flows.cli.command import Program

COMMANDS = {
    "init": "project_commands.init:init",
    "new": "project_commands.new:new",
    "list": "sync_commands.list:list_",
    "run": "sync_commands.run:run",
    "runs": "sync_commands.runs:runs",
    "records": "sync_commands.records:records",
    "forget": "sync_commands.forget:forget",
    "check": "client_commands.check:check",
    "pause": "client_commands.pauses:pause",
    "resume": "client_commands.pauses:resume",
    "pauses": "client_commands.pauses:pauses",
    "notices": "client_commands.notices:notices",
    "work": "job_commands.work:work",
    "enqueue": "job_commands.enqueue:enqueue",
    "process": "job_commands.process:process",
    "queues": "job_commands.queues:queues",
    "jobs": "job_commands.jobs:jobs",
    "job": "job_commands.jobs:job",
    "retry": "job_commands.bulk_actions:retry",
    "release": "job_commands.bulk_actions:release",
    "cancel": "job_commands.bulk_actions:cancel",
    "delete": "job_commands.bulk_actions:delete",
    "up": "project_commands.up_down_status:up",
    "down": "project_commands.up_down_status:down",
    "status": "project_commands.up_down_status:status",
    "setup": "project_commands.setup:setup",
    "maintain": "project_commands.maintain:maintain",
    "locks": "project_commands.locks:locks",
    "db": "project_commands.db:db",
}
"""Command -> module below `flows.cli`, and the name of the command in it."""


@click.group("syncs", cls=Program, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
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
