"""Makes `terminal.svg`, the picture in the README: runs the sync of the demo, kills it in the middle, and runs it again.

Every line is what the commands printed. `.venv/bin/python docs/_picture.py` makes it anew.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COMMANDS = ("syncs run languages", "syncs records languages --limit 3", "syncs runs")
WIDTH = 148


def printed(command: str, folder: Path, *, kill_at: str | None = None) -> list[str]:
    """Return the lines that a command prints; once one contains `kill_at`, it is killed."""
    arguments = [sys.executable, "-m", "flows", *command.split()[1:]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SYNCS_", "PREFECT_", "LANGUAGES_"))}
    environment |= {"COLUMNS": str(WIDTH), "PYTHONPATH": str(HERE.parent), "PREFECT_HOME": str(folder / ".prefect")}
    lines = []
    with subprocess.Popen(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if kill_at is not None and kill_at in line:
                process.kill()
                break
    return lines


def session(folder: Path) -> Text:
    """Run the commands; return the text of the terminal."""
    shown = Text()
    for number, command in enumerate((COMMANDS[0], *COMMANDS)):
        shown.append("$ ", "bold green").append(f"{command}\n", "bold")
        lines = printed(command, folder, kill_at="worked" if number == 0 else None)
        for line in lines:
            shown.append(f"{line}\n", "bright_black" if line.startswith("syncs: ") else "")
        if number == 0:
            shown.append("Killed\n", "red")
        shown.append("\n")
    shown.highlight_regex(r"\bsuccess\b", "green")
    shown.right_crop(2)
    return shown


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(HERE.parent / "syncs", Path(folder) / "syncs")
        text = session(Path(folder))
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(text, soft_wrap=False)
        picture = console.export_svg(title="", unique_id="terminal")
    # Rich loads a font from the network; a picture in a file must not.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    (HERE / "terminal.svg").write_text(picture)


if __name__ == "__main__":
    main()
