"""Tests mirror the packages; `tests/support` holds what several of them share."""

from pathlib import Path

#: The repository.
ROOT = Path(__file__).parents[1]
