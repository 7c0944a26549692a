"""The command line `syncs`. Each command returns one `CommandOutput`; `flows.cli.command` prints it.

`program.py` lists the commands; each lies in the folder of what it names: a sync, a client, a job or queue, or the project.
Nothing here imports SQLAlchemy or Prefect at module level: they cost 0.3 s and 2 s, and most commands need neither.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `syncs` and end the process with its exit code.

    Args:
        arguments: in place of those the process was started with.
    """
    try:
        from flows.cli.program import program
        from flows.orchestration.notices import use_prefect_carrier

        use_prefect_carrier()
        program.main(args=arguments)
    except KeyboardInterrupt:  # while the modules are still being imported
        sys.exit(130)
    except SystemExit as end:
        from flows.cli.signals import end_process

        end_process(end.code if isinstance(end.code, int) else int(end.code is not None))
