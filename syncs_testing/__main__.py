"""Print the matrix: every attack against every paginator of `clients`. `python -m syncs_testing [part of a name]`."""

from __future__ import annotations

import sys

from syncs_testing.matrix import listings, matrix


def main() -> int:
    """Print the matrix and what is wrong; return how the process should exit."""
    cells = matrix(" ".join(sys.argv[1:]))
    names = list(listings())
    width = max(len(attack) for attack, _ in cells)
    print(f"{'':{width}} " + " ".join(f"{number:>5}" for number in range(1, len(names) + 1)))
    for attack in dict.fromkeys(attack for attack, _ in cells):
        words = [("-" if cell is None else cell.word)[:5] for name in names for cell in (cells[attack, name],)]
        print(f"{attack:{width}} " + " ".join(f"{word:>5}" for word in words))
    print("\n" + ", ".join(f"{number} {name}" for number, name in enumerate(names, 1)))
    done = [cell for cell in cells.values() if cell is not None]
    wrong = [(cell, text) for cell in done for text in cell.wrong]
    for cell, text in wrong:
        print(f"{cell.attack.name} / {cell.style.kind}: {text}")
    kinds = ("endless", "hangs", "lost", "leak", "silent", "alarm", "wait")
    counts = {kind: sum(text.startswith(kind) for _, text in wrong) for kind in kinds}
    print(f"{len(done)} trials: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
