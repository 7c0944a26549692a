"""The matrix itself: every attack against every paginator, over real sockets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from syncs_testing import ATTACKS, style_of
from syncs_testing.matrix import listings, matrix
from tests import ROOT

#: One that follows and one that counts. Each takes four seconds; `make test-all` has the others.
QUICK = frozenset({"Cursor", "PageNumber+total"})


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in listings()])
def test_every_attack_on(name: str) -> None:
    """No endless loop, no row lost without an error, no credential at another origin, no false alarm."""
    cells = matrix(names=[name], threads=8)
    wrong = [f"{attack}: {text}" for (attack, _), cell in cells.items() if cell is not None for text in cell.wrong]

    assert wrong == []

    assert sum(cell is not None for cell in cells.values()) >= 25


def test_every_attack_fits_something() -> None:
    """No attack stands there without a paginator that it is done to, and each says where it comes from."""
    styles = [style_of(listing) for listing in listings().values()]

    assert [attack.name for attack in ATTACKS if not any(map(attack.fits, styles)) or not attack.incident] == []

    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_the_matrix_is_printed() -> None:
    """`make attack` prints a line for each attack under the paginators' names, and the sum."""

    def attack(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "syncs_testing", *words], capture_output=True, text=True, cwd=ROOT, check=False
        )

    done = attack("the same cursor")

    assert done.returncode == 0, done.stdout + done.stderr

    assert "the same cursor for ever" in done.stdout

    assert "7 trials: 0 endless, 0 hangs, 0 lost, 0 leak, 0 silent, 0 alarm, 0 wait" in done.stdout

    lines = done.stdout.splitlines()

    (head,) = [line.split() for line in lines if line.split()[:2] == ["One", "Page"]]

    (row,) = [line.removeprefix("the same cursor for ever").split() for line in lines if line.startswith("the same cursor")]

    cells = dict(zip(head, row, strict=True))

    assert [cells[name] for name in ("One", "Offs", "Curs", "Curs+", "OData", "KeyT")] == ["-", "-", "loop", "loop", "loop", "-"]

    assert " 7 s" in attack("429 with Retry-After: 7").stdout

    nothing = attack("nothing like it")

    assert (nothing.returncode, nothing.stderr) == (2, "no attack has 'nothing like it' in its name\n")
