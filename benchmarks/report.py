"""Computes medians over the rounds, formats them as a table and appends them to a file as JSON lines."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.plan import Figure

Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""The results of the cells, by name, one for each round."""


@dataclass(frozen=True)
class Found:
    """A figure with its median and range over the rounds."""

    figure: Figure
    median: float
    low: float
    high: float

    @property
    def reached(self) -> bool | None:
        """Whether its gate is reached; `None` without a gate."""
        least, most = self.figure.least, self.figure.most
        if least is None and most is None:
            return None
        return (least is None or self.median >= least) and (most is None or self.median <= most)

    @property
    def gate(self) -> str:
        """The gate as text."""
        least, most = self.figure.least, self.figure.most
        return f"≥ {_number(least)}" if least is not None else f"≤ {_number(most)}" if most is not None else ""


def find(figures: Iterable[Figure], rounds: Rounds) -> list[Found]:
    """Return the figures whose cells ran; a ratio is the median of the ratios of each round."""
    found = []
    for figure in figures:
        values = [answer[figure.key] for answer in rounds.get(figure.cell, ())]
        if figure.over is not None:
            values = [value / answer[figure.key] for value, answer in zip(values, rounds.get(figure.over, ()), strict=False)]
        if values:
            found.append(Found(figure, median(values), min(values), max(values)))
    return found


def table(found: Sequence[Found]) -> str:
    """Return the figures as text."""
    rows = [("figure", "median", "range", "gate", "")]
    for one in found:
        verdict = {True: "reached", False: "MISSED", None: ""}[one.reached]
        unit = one.figure.unit
        middle = f"{_number(one.median)}{'' if unit in ('', '/s', 'x') else ' '}{unit}"
        rows.append((one.figure.name, middle, f"{_number(one.low)} to {_number(one.high)}", one.gate, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * len(lines[0].rstrip()), *lines[1:]))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def append(found: Iterable[Found], path: Path, *, rounds: int, quick: bool) -> None:
    """Append one JSON line for each figure."""
    where: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(path.parent),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "rounds": rounds,
        "quick": quick,
    }
    with path.open("a", encoding="utf-8") as file:
        for one in found:
            line = {
                **where,
                "figure": one.figure.name,
                "unit": one.figure.unit,
                "median": _short(one.median),
                "low": _short(one.low),
                "high": _short(one.high),
                "gate": one.gate or None,
                "reached": one.reached,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _commit(folder: Path) -> str | None:
    """Return the commit, with a plus if files have been changed since."""
    words = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
