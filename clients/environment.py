"""`env("PETSTORE_TOKEN")`: a value that a declaration names, and that is read when a client connects.

Reading is not done here alone: where the project keeps secrets elsewhere too, it says so with `read_also`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, overload

from clients.errors import LocalError

T = TypeVar("T")

_PUBLIC = frozenset({"url", "user", "client_id", "token_url", "scope"})
"""Arguments whose values are no secrets: messages show them."""

_further: list[Callable[[str], str | None]] = []


@dataclass(frozen=True)
class Env:
    """The value of an environment variable, made by `env`. It hides its value as pydantic's SecretStr does."""

    name: str
    default: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.replace("_", "a").isalnum() or self.name[0].isdigit():
            raise ValueError(f"env: a variable's name has letters, digits and underscores, got {self.name!r}")
        if self.default is not None and not isinstance(self.default, str):
            raise ValueError(f"env({self.name!r}): the default must be text, got {type(self.default).__name__}")

    def __repr__(self) -> str:
        return f"env({self.name!r})"

    __str__ = __repr__

    def read(self) -> str | None:
        """Return the value: of the variable, else of a Secret block, else the default; None if there is none of them.

        A variable that is empty counts as not set.
        """
        if value := os.environ.get(self.name):
            return value
        return next((value for read in _further if (value := read(self.name))), self.default)

    def get_secret_value(self) -> str:
        """Return the value.

        Raises:
            LocalError: the variable is not set.
        """
        value = self.read()
        if value is None:
            raise LocalError(f"{self.name} is not set (environment variable)")
        return value


def env(name: str, default: str | None = None) -> Env:
    """Return the value of an environment variable, to be read when the client connects.

    It stands wherever a declaration has a value: `url=env("PETSTORE_URL", "https://…")`, `auth=Bearer(env("PETSTORE_TOKEN"))`,
    `headers={"X-Tenant": env("PETSTORE_TENANT")}`. If the variable is not set, the Prefect Secret block of its name is read
    (`petstore-token`). Messages and rows show none of these values, unless it is a URL, a user name or the default.

    Args:
        name: of the variable.
        default: the value if there is neither variable nor block; None makes it an error.

    Raises:
        ValueError: no variable has such a name, or the default is no text.
    """
    return Env(name, default)


class EnvValues(Mapping[str, str]):
    """The values of the variables of a declaration, by name. Its repr shows the names alone.

    Args:
        values: by name of the variable.
        secrets: those which messages must not show.
    """

    def __init__(self, values: Mapping[str, str], *, secrets: Collection[str] = ()) -> None:
        self._values = dict(values)
        self.secrets = frozenset(secrets)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"EnvValues({', '.join(self._values)})"

    def of(self, variable: Env) -> str:
        """Return the value of a variable.

        Raises:
            LocalError: it is none of these, and not set.
        """
        return self._values.get(variable.name) or variable.get_secret_value()


class Declared:
    """A class whose objects may be declared with `env(…)` among their arguments; `resolved` makes another one with the values."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **named: Any) -> Any:
        """Keep the arguments."""
        made = super().__new__(cls)
        made._arguments = (args, named)
        return made


@overload
def resolved(value: Env, read: Callable[[Env], str] = ...) -> str: ...


@overload
def resolved(value: T, read: Callable[[Env], str] = ...) -> T: ...


def resolved(value: Any, read: Callable[[Env], str] = Env.get_secret_value) -> Any:
    """Return the value with each `env(…)` in it replaced by what `read` returns; the value itself if there is none.

    Looks into mappings, lists, dataclasses and `Declared` objects.

    Raises:
        LocalError: a variable is not set.
    """
    if isinstance(value, Env):
        return read(value)
    if next(variables(value), None) is None:
        return value
    if isinstance(value, Mapping):
        return {name: resolved(one, read) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(resolved(one, read) for one in value)
    if isinstance(value, Declared):
        args, named = value._arguments
        return type(value)(*resolved(args, read), **resolved(named, read))
    return replace(value, **{name: resolved(one, read) for name, one in _parts(value)})


def variables(value: Any, name: str = "") -> Iterator[tuple[Env, bool]]:
    """Yield each `env(…)` in a declaration, and whether its value is a secret.

    Args:
        value: as for `resolved`.
        name: of the argument that has it.
    """
    if isinstance(value, Env):
        yield value, name not in _PUBLIC
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from variables(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from variables(one, name)
    else:
        for part, one in _parts(value):
            yield from variables(one, part)


def read_also(read: Callable[[str], str | None]) -> None:
    """Read variables that are not set from somewhere else too.

    Args:
        read: returns the value of a variable, or None.
    """
    if read not in _further:
        _further.append(read)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named values that an object was made of."""
    if isinstance(value, Declared):
        args, named = value._arguments
        code = type(value).__init__.__code__
        yield from zip(code.co_varnames[1 : code.co_argcount], args, strict=False)
        yield from named.items()
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((one.name, getattr(value, one.name)) for one in fields(value) if one.init)
