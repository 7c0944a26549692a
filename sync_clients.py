"""The program `syncs`: before it imports the packages of sync-clients, it looks whether something else has their names.

They are called `clients`, `jobs` and `flows`; a project may have folders of these names.
"""

import importlib.util
import sys
from pathlib import Path
from typing import NoReturn

PACKAGES = ("clients", "jobs", "flows")
ROOT = Path(__file__).resolve().parent


def hidden(packages: tuple[str, ...] = PACKAGES) -> str | None:
    """Return one line about a package that Python would import in place of ours; `None` if there is none."""
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found = Path(spec.origin).resolve()
        if not found.is_relative_to(ROOT / name):
            shown = found.parent if found.name == "__init__.py" else found
            return f"{shown} hides the package {name!r} of sync-clients: rename it, or take {shown.parent} off Python's path"
    return None


def in_the_way(folder: Path) -> str | None:
    """Return one line about what in a folder would hide a package of ours from programs that are started there, else `None`."""
    found = [
        f"{name}/" if path.name == "__init__.py" else path.name
        for name in PACKAGES
        for path in (folder / name / "__init__.py", folder / f"{name}.py")
        if path.is_file() and not path.resolve().is_relative_to(ROOT / name)
    ]
    if not found:
        return None
    return (
        f"{' and '.join(found)} in this folder: that is the name of a package of sync-clients; `syncs` and its "
        "deployments do not mind, but `python` started here finds yours in place of ours, so better rename it"
    )


def refuse(line: str) -> NoReturn:
    """Say the line on stderr and end the program: bad usage."""
    print(f"syncs: {line}", file=sys.stderr)
    sys.exit(2)


def main() -> NoReturn:
    """Run `syncs`; see `flows.cli`."""
    if line := hidden():
        refuse(line)
    from flows.cli import main as run

    run()
