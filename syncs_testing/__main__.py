"""Prints a table of every attack against every paginator of `clients`: `python -m syncs_testing [part of a name]`."""

from __future__ import annotations

import sys

from syncs_testing.attacks import ATTACKS
from syncs_testing.matrix import listings, rows
from syncs_testing.trial import Outcome

_KINDS = ("endless", "hangs", "lost", "leak", "silent", "alarm", "wait")
_HEADS = {
    "SinglePage": "One",
    "PageNumber": "Page",
    "Offset": "Offs",
    "TotalPages": "Totl",
    "Cursor": "Curs",
    "NextLink": "Next",
    "LinkHeader": "Link",
    "Continue": "Cont",
    "RelayCursor": "Relay",
    "ODataLink": "OData",
    "Keyset": "Key",
    "Keyset by time": "KeyT",
}
_LEGEND = """\
all: every row came, and no error    loop, short, error: the listing ended with such an error    30 s: the wait that it asks for
-: does not apply to this paginator   CAPITALS: a failure; explained below the table
"""


def main() -> int:
    """Print the table and what is wrong; return the exit code."""
    wanted = " ".join(sys.argv[1:])
    names = list(listings())
    heads = [_head(name) for name in names]
    width = max((len(attack.name) for attack in ATTACKS if wanted in attack.name), default=0)
    if not width:
        print(f"no attack has {wanted!r} in its name", file=sys.stderr)
        return 2
    print(_LEGEND)
    legend = [f"{head} {name}" for head, name in zip(heads, names, strict=True)]
    for start in range(0, len(legend), 8):
        print(", ".join(legend[start : start + 8]))
    print(f"\n{'':{width}} " + " ".join(f"{head:>5}" for head in heads))
    done: list[Outcome] = []
    for attack, cells in rows(wanted):
        done += [cell for cell in cells.values() if cell is not None]
        # Row by row, because some take long.
        print(f"{attack.name:{width}} " + " ".join(f"{_word(cells[name]):>5}" for name in names), flush=True)
    print()
    wrong = [(cell, text) for cell in done for text in cell.wrong]
    for cell, text in wrong:
        print(f"{cell.attack.name} / {cell.style.kind}: {text} ({cell.attack.incident})")
    counts = {kind: sum(text.startswith(kind) for _, text in wrong) for kind in _KINDS}
    print(f"{len(done)} trials: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if wrong else 0


def _head(name: str) -> str:
    plain, plus, _ = name.partition("+")
    return f"{_HEADS[plain][:4]}{plus}" if plus else _HEADS[plain]


def _word(cell: Outcome | None) -> str:
    """Return the result in five characters."""
    if cell is None:
        return "-"
    seconds = getattr(cell.error, "retry_after", None)
    if cell.wrong or seconds is None:
        return cell.word[:5]
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} m" if seconds < 5940 else f"{seconds / 86400:.0f} d"


if __name__ == "__main__":
    sys.exit(main())
