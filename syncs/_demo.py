"""Runs the demo (`make demo`): starts Prefect for this folder, syncs the languages, and prints what to open and type next.

It uses only the command line of this project. When you have syncs of your own, delete it together with `languages.py` and
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
    """Return 4200, or the next free port if another process, such as another project's Prefect, uses it."""
    for port in range(4200, 4300):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 4200


def _start_prefect() -> tuple[str, str] | None:
    """Start Prefect unless it runs already; return the address of its web pages and the sign-in, `None` if it does not start."""
    began = time.monotonic()
    done = subprocess.run([*SYNCS, "up", "--port", str(_free_port()), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print("Prefect did not start; the demo goes on without it.", flush=True)
        return None
    found = json.loads(done.stdout)
    how = f"up after {time.monotonic() - began:.0f} s" if found["started"] else "up already"
    print(f"Prefect is {how}: {found['ui']}\n", flush=True)
    # What is no terminal may be a log, and the auth string is a secret.
    sign_in = Path(found["auth_file"]).read_text().strip() if sys.stdout.isatty() else f"what stands in {found['auth_file']}"
    return str(found["ui"]), sign_in


def _next_steps(prefect: tuple[str, str] | None) -> str:
    """Return the text that says what to open and type next."""
    folder = os.path.relpath(Path(sys.executable).parent)
    syncs = f"{folder}/syncs"
    lines = [f"Open  {prefect[0]}", f"Sign in there with  {prefect[1]}", "", "Type"] if prefect else ["Type"]
    steps = [
        ("make demo", "sync again: nothing has changed, so no language is fetched"),
        (f"{syncs} run languages --full", "fetch each language again, changed or not"),
        (f"{syncs} queues", "how many jobs wait, are done, have failed"),
        (f"{syncs} jobs --limit 5", "the last jobs"),
    ]
    if prefect:
        steps += [
            (f"{folder}/prefect deployment run sync/languages", "the same on the worker"),
            (f"{syncs} down", "stop Prefect"),
        ]
    width = max(len(command) for command, _ in steps if len(command) < 60)
    lines += [f"  {command:{width}}  {why}" for command, why in steps]
    if prefect:
        lines += ["", f"The Prefect server and its worker stay up until `{syncs} down`, also when this terminal closes."]
    return "\n".join([*lines, "", "Then write a file like syncs/languages.py for your own API."])


def main() -> int:
    """Run the demo; return the exit code of the sync."""
    if os.environ.pop("PREFECT_API_URL", None):
        print("PREFECT_API_URL is ignored: the demo starts its own Prefect server.")
    os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect"))
    prefect = _start_prefect()
    code = subprocess.run([*SYNCS, "run", "languages"], check=False).returncode
    print(f"\n{_next_steps(prefect)}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
