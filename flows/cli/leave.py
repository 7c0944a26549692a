"""How the process ends: as usual, or around the interpreter's teardown while a thread is still at something that may be left."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process.

    What only shows (a work queue, a notice on its way) is waited for some seconds, then left. The interpreter kills such a thread
    while it tears itself down, and one that is in compiled code just then, as when Prefect is being imported, aborts the process:
    5 of 130 `syncs maintain` on a busy machine ended so ("FATAL: exception not rethrown", SIGABRT). So it is left out then.

    Args:
        code: the exit code.
    """
    if not any(thread.daemon and thread.name.startswith("syncs-") for thread in threading.enumerate()):
        sys.exit(code)
    # All that an end has but the teardown: other threads are waited for, and what was registered is called.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)
