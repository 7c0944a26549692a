"""The command line `syncs`. A command asks the other packages and answers with one value; `command` prints it.

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

        program.main(args=arguments)
    except KeyboardInterrupt:  # while the modules are still being imported
        sys.exit(130)
    except SystemExit as end:
        from flows.cli.leave import leave

        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
