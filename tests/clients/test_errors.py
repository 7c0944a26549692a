"""The error tree: separable, one line each, free of secrets."""

from __future__ import annotations

import inspect
import pickle

import pytest

from clients import errors

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ClientError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_no_secret_of_the_url_is_shown(kind: type[errors.ClientError]) -> None:
    """User, password, query and fragment of the URL are in neither str, repr nor an attribute."""
    error = kind("it broke", method="GET", url="https://me:pass@h.example:8443/a/b?key=pass#pass", status=418)

    assert str(error) == "GET https://h.example:8443/a/b: it broke"
    assert "pass" not in f"{error!r}{vars(error)}{error.args}"


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_pickling(kind: type[errors.ClientError]) -> None:
    """An error that crosses a process keeps its attributes."""
    error = kind("it broke", method="GET", url="https://h.example/a", status=418)
    copy = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), vars(error)) == (type(copy), str(copy), vars(copy))


def test_every_class_is_in_the_drawn_tree() -> None:
    """The module opens with the whole tree."""
    drawn = errors.__doc__ or ""

    assert [kind.__name__ for kind in CLASSES if f"{kind.__name__} " not in drawn and kind is not errors.ClientError] == []


def test_outcomes_are_separable() -> None:
    """No class of one outcome is a class of another."""
    groups = [
        errors.TransientError,
        errors.RateLimitedError,
        errors.AuthRefusedError,
        errors.RejectedError,
        errors.GoneError,
        errors.UnknownOutcomeError,
        errors.NotModifiedError,
        errors.LocalError,
        errors.NotReadyError,
    ]
    groups += [errors.UnreadableError, errors.PageError]

    assert [1] * (len(CLASSES) - 1) == [sum(issubclass(k, g) for g in groups) for k in CLASSES if k is not errors.ClientError]
