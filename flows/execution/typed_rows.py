"""Makes the rows of typed tables of a record, as the classes of `into` describe them; says which field does not fit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jmespath
from pydantic import BaseModel, TypeAdapter, ValidationError

from clients import Entity
from clients.urls import sounds_secret
from flows.declarations.into import Into
from flows.execution.row_values import alias_of, converter_of, model_of
from flows.plain_json import plain_json
from flows.project.redaction import Mask, printable_line
from jobs.db.json_codec import encode
from jobs.outcome import Failure
from jobs.typed_tables.table_writer import EntityRows, TableWriter
from jobs.typed_tables.target_table import TableRow, TargetTable

_SHOWN = 40
"""Characters of a value that does not fit."""


class RowRefused(ValueError):
    """A record makes no row; the text is one line that says which field, and why."""


class TypedRows:
    """Makes the rows of the entities of one sync.

    Args:
        targets: `into` of the sync.
        mask: removes the client's secrets from what is said of a row.
        dialect: of the database.
    """

    def __init__(self, targets: Sequence[Into], mask: Mask, dialect: str) -> None:
        self._makers = [_RowMaker(one, mask, dialect) for one in targets]
        self.writer = TableWriter(
            [one.target for one in self._makers], lambda text: f"cannot be written: {printable_line(mask(text), limit=200)}"
        )

    def of(self, entity: Entity, record: Any, plain: Any) -> EntityRows | Failure:
        """Return the rows of an entity; a failure that says what is wrong with one.

        Args:
            entity: whose record it is.
            record: what `fetch` returned.
            plain: the same as JSON.
        """
        rows: list[list[TableRow]] = []
        parent: Any = entity.key
        row_keys: dict[str, list[Any]] = {}
        main = None
        try:
            for maker in self._makers:
                if maker.items is not None:
                    rows.append(maker.children(entity, plain, parent))
                    continue
                row = maker.row(entity, plain if maker.into.to_row is None else record, entity.key)
                rows.append([row])
                identity = maker.target.identity(row.values)
                if main is None:
                    main = identity
                    parent = identity[0] if len(identity) == 1 else entity.key
                if maker.into.to_row is not None:
                    row_keys[str(maker.target.table.fullname)] = [plain_json(value) for value in identity]
        except RowRefused as error:
            return Failure(str(error), retry=False)
        return EntityRows(self.writer, entity.key, tuple(rows), encode(row_keys).decode() if row_keys else None)


class _RowMaker:
    """Makes the rows of one class."""

    def __init__(self, into: Into, mask: Mask, dialect: str) -> None:
        self.into, self._mask = into, mask
        self.items = None if into.items is None else jmespath.compile(into.items)
        columns, fields = into.columns, into.table.model_fields
        names = {name: column.name for name, column in columns.items()}
        self._name = into.table.__name__
        model = model_of(into.table)
        self._validate: Callable[[Any], Any] = model.__pydantic_validator__.validate_python
        self._by = {name: alias_of(fields.get(name), name) for name in names}
        # A moment or an id that is made for a row; an empty list is a value like any other.
        made = {name for name, field in fields.items() if field.default_factory not in (None, list, dict, set, tuple)}
        self._only_new = frozenset(made & names.keys())
        self._keys = [name for name, column in columns.items() if column.primary_key]
        self._columns = [(name, column.name, converter_of(column, dialect)) for name, column in columns.items() if name in fields]
        by_column = {column: name for name, column in names.items()}
        adapters = {column: TypeAdapter(fields[name].annotation) for column, name in by_column.items() if name in fields}
        self.target = TargetTable(
            into.core_table,
            None if into.parent is None else names[into.parent],
            lambda column, value: value if column not in adapters else adapters[column].validate_python(value),
        )

    def row(self, entity: Entity, record: Any, key: Any) -> TableRow:
        """Return the row of an entity; `key` is its primary key where the project does not say otherwise."""
        values = self._values(entity, record)
        if len(self._keys) == 1:
            (name,) = self._keys
            self._put(values, name, key, over=self.into.to_row is None)
        return self._checked(values, needs_key=True)

    def children(self, entity: Entity, record: Any, parent: Any) -> list[TableRow]:
        """Return the child rows of an entity."""
        assert self.items is not None
        assert self.into.parent is not None
        found = self.items.search(record)
        if found is None:
            return []
        if not isinstance(found, list):
            raise RowRefused(f"{self._name}: {self.into.items} is {_kind(found)}, and must be a list")
        rows = []
        for number, item in enumerate(found):
            try:
                values = self._values(entity, item)
                self._put(values, self.into.parent, parent, over=True)
                rows.append(self._checked(values, needs_key=False))
            except RowRefused as error:
                raise RowRefused(f"{self.into.items}[{number}] of {error}") from error
        return rows

    def _values(self, entity: Entity, record: Any) -> dict[str, Any]:
        if self.into.to_row is not None:
            record = self.into.to_row(entity, record)
        if isinstance(record, BaseModel):
            record = record.model_dump(by_alias=True, exclude_unset=True)
        if not isinstance(record, Mapping):
            what = "the record" if self.into.to_row is None else "what to_row returned"
            hint = "; name its fields with to_row=…" if self.into.to_row is None else ""
            raise RowRefused(f"{self._name}: {what} is {_kind(record)}, and must be an object{hint}")
        return dict(record)

    def _put(self, values: dict[str, Any], name: str, value: Any, *, over: bool) -> None:
        by = self._by[name]
        if over or (values.get(by) is None and values.get(name) is None):
            values.pop(name, None)
            values[by] = value

    def _checked(self, values: dict[str, Any], *, needs_key: bool) -> TableRow:
        try:
            checked = self._validate(values)
        except ValidationError as error:
            raise RowRefused(self._text(error)) from None
        found = checked.__dict__
        row = {}
        for name, column, convert in self._columns:
            value = found[name]
            if value is not None and convert is not None:
                try:
                    value = convert(value)
                except ValueError as error:
                    raise RowRefused(f"{self._name}.{name}: {self._mask(str(error))}") from None
            row[column] = value
        for column in self.target.key:
            if row[column] is None:
                if needs_key:
                    raise RowRefused(f"{self._name}.{column}: has no value, and is the primary key; to_row must give it one")
                # The database numbers the row.
                del row[column]
        if not self._only_new:
            return TableRow(row)
        said = checked.__pydantic_fields_set__
        return TableRow(row, tuple(column for name, column, _ in self._columns if name in self._only_new and name not in said))

    def _text(self, error: ValidationError) -> str:
        """Say what is wrong with the first fields, without what may be secret."""
        problems = error.errors(include_url=False, include_context=False)
        found = []
        for one in problems[:3]:
            where = ".".join(map(str, (self._name, *one["loc"])))
            found.append(f"{where}: {self._mask(one['msg'])}{self._shown(one)}")
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        return printable_line("; ".join(found) + more)

    def _shown(self, problem: Mapping[str, Any]) -> str:
        value, where = problem["input"], problem["loc"]
        if not isinstance(value, str | int | float) or any(sounds_secret(str(part)) for part in where):
            return ""
        return f", got {printable_line(self._mask(repr(value)), limit=_SHOWN)}"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
