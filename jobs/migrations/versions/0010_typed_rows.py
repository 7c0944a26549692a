"""Where the typed rows of an entity are found."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("record", sa.Column("row_key", sa.Text(), nullable=True))
