"""Runs every benchmark in its own process, in random order in each round, and prints a table with the gates."""

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.cell import Cell, CellError, postgresql, run
from benchmarks.plan import CELLS, FIGURES
from benchmarks.report import append, find, table

RESULTS = Path(__file__).with_name("results.jsonl")


def shuffled(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells in random order, with groups kept together."""
    place = {cell.group or cell.name: random.random() for cell in cells}
    return sorted(random.sample(cells, len(cells)), key=lambda cell: place[cell.group or cell.name])


def main() -> int:
    """Run the benchmarks; return 1 if a gate is missed or a cell fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures the speed of the project, and compares it with gates."
    )
    parser.add_argument("--quick", action="store_true", help="one short round, without Prefect, in about 20 s; not recorded")
    parser.add_argument("--no-gate", action="store_true", help="exit with 0 even if a gate is missed")
    parser.add_argument("--rounds", type=int, help="3 by default")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells with this in their name; not recorded")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    cells = [cell for cell in CELLS if options.only in cell.name and not (options.quick and cell.quick is None)]

    if any(cell.peer for cell in cells) and (reason := peers.missing()) is not None:
        print(f"the peers are left out, because they cannot be installed: {reason}", file=sys.stderr)
        cells = [cell for cell in cells if not cell.peer]

    answers: dict[str, list[dict[str, float]]] = {}
    began = time.monotonic()
    with postgresql() as server:
        for number in range(1, rounds + 1):
            for cell in shuffled([cell for cell in cells if number == 1 or not cell.once]):
                note = f"round {number}/{rounds}, {time.monotonic() - began:3.0f} s, load {os.getloadavg()[0]:.1f}: {cell.name}"
                print(note, file=sys.stderr, flush=True)
                try:
                    answers.setdefault(cell.name, []).append(run(cell, quick=options.quick, server=server))
                except CellError as error:
                    print(error, file=sys.stderr)
                    return 1

    found = find(FIGURES, answers)
    print(table(found))
    if not options.quick and not options.only:
        append(found, RESULTS, rounds=rounds, quick=options.quick)
        print(f"appended to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    missed = [one for one in found if one.reached is False]
    if missed:
        print(f"{len(missed)} of {sum(one.reached is not None for one in found)} gates missed")
    return 1 if missed and not options.no_gate else 0


if __name__ == "__main__":
    sys.exit(main())
