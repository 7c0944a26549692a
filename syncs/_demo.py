"""What `make demo` runs: Prefect up for this folder, the languages synced through it, and what to open and type next.

Uses nothing but the command line of this project. Once you have syncs of your own, delete it with `languages.py` and
`_languages_api.py`.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

SYNCS = [sys.executable, "-m", "flows"]


def _free_port() -> int:
    """Return 4200, or the next port that nobody uses: another project's Prefect may be there."""
    for port in range(4200, 4300):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 4200


def _up() -> str | None:
    """Start Prefect unless it runs; return the address of its pages, `None` where it does not start."""
    began = time.monotonic()
    done = subprocess.run([*SYNCS, "up", "--port", str(_free_port()), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print("Prefect did not start; the demo goes on without it.", flush=True)
        return None
    found = json.loads(done.stdout)
    how = f"up after {time.monotonic() - began:.0f} s" if found["started"] else "up already"
    print(f"Prefect is {how}: {found['ui']}\n", flush=True)
    return str(found["ui"])


def _next(ui: str | None) -> str:
    """Say what to look at."""
    folder = os.path.relpath(Path(sys.executable).parent)
    syncs, prefect = f"{folder}/syncs", f"{folder}/prefect"
    lines = [f"Open  {ui}", "", "Type"] if ui else ["Type"]
    steps = [
        ("make demo", "once more: all that changed is worked, and that is nothing"),
        (f"{syncs} run languages --full", "each language again, changed or not"),
        (f"{syncs} queues", "what waits, what is done, what failed"),
        (f"{syncs} jobs --limit 5", "the last jobs"),
    ]
    if ui:
        steps += [
            (f"PREFECT_API_URL={ui}/api {prefect} deployment run sync/languages", "the same on the worker"),
            (f"{syncs} down", "stop Prefect"),
        ]
    width = max(len(command) for command, _ in steps if len(command) < 60)
    lines += [f"  {command:{width}}  {why}" for command, why in steps]
    return "\n".join([*lines, "", "Then write a file like syncs/languages.py for an API of yours."])


def main() -> int:
    """Run the demo; return the exit code of the sync."""
    if os.environ.pop("PREFECT_API_URL", None):
        print("PREFECT_API_URL is left aside: the demo has a Prefect server of its own.")
    os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect"))
    ui = _up()
    code = subprocess.run([*SYNCS, "run", "languages"], check=False).returncode
    print(f"\n{_next(ui)}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
