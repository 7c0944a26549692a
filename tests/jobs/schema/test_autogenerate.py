"""A project's own Alembic beside our tables: it sees what is its own, and leaves ours alone."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, Text

from jobs import Database, include_name


def test_autogenerate_beside_a_users_model(database_url: str) -> None:
    """A new table, a new column and a table that is gone are proposed; nothing of ours is, which without the hook would be."""
    own = MetaData()
    Table("pet", own, Column("id", Integer, primary_key=True), Column("name", Text))
    Table("gone", own, Column("id", Integer, primary_key=True))
    now = MetaData()
    Table("pet", now, Column("id", Integer, primary_key=True), Column("name", Text), Column("age", Integer))
    Table("food", now, Column("id", Integer, primary_key=True))
    db = Database(database_url)
    own.create_all(db.engine)
    with db.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"include_name": include_name}), now)
        without = compare_metadata(MigrationContext.configure(connection), now)
    db.close()
    named = {(one[0], getattr(one[1], "name", None) or f"{one[2]}.{one[3].name}") for one in found}
    assert named == {("add_table", "food"), ("add_column", "pet.age"), ("remove_table", "gone")}
    assert {"job", "record"} <= {one[1].name for one in without if one[0] == "remove_table"}
