"""Gives functions of a declaration that have a parameter `settings` the settings of their client."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from flows.declarations.job_type import JobType
from flows.declarations.sync import Sync

D = TypeVar("D", Sync, JobType)

_FUNCTIONS = {Sync: ("listing", "fetch", "save", "delete"), JobType: ("process", "verify")}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class WithSettings:
    """A function that is called with the settings as a further argument."""

    __slots__ = ("_settings", "function")

    def __init__(self, function: Callable[..., Any], settings: Any) -> None:
        self.function = function
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        # A listing is called, and may have `pages` too.
        return with_settings(getattr(self.function, name), self._settings)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        return self.function(*arguments, settings=self._settings, **named)


def with_settings(function: Any, settings: Any) -> Any:
    """Return the function with its parameter `settings` given; the function itself if it has none."""
    try:
        parameter = inspect.signature(function).parameters.get("settings")
    except (TypeError, ValueError):
        return function
    return function if parameter is None or parameter.kind not in _NAMED else WithSettings(function, settings)


def bound(declared: D, settings: Any) -> D:
    """Return the declaration with the settings given to its functions; the same one if none of them takes any.

    Args:
        declared: a sync or job type.
        settings: of its client.
    """
    changed: dict[str, Any] = {}
    for name in _FUNCTIONS[type(declared)]:
        function = getattr(declared, name)
        if isinstance(function, Mapping):
            given: Any = {phase: with_settings(one, settings) for phase, one in function.items()}
            is_same = all(given[phase] is one for phase, one in function.items())
        else:
            given = with_settings(function, settings)
            is_same = given is function
        if not is_same:
            changed[name] = given
    return replace(declared, **changed) if changed else declared
