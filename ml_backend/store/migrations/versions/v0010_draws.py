"""Tasks in the order of chance, so that those that nobody scored need no row in a ranking; and leases on devices.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns, which the next ranking and the next look fill, an index of the order, and the tables."""
    op.add_column("tasks", sa.Column("draw", sa.BigInteger))
    op.add_column("tasks", sa.Column("turn", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.create_index("tasks_by_draw", "tasks", ["project_id", "status", "audit", "turn", "draw", "task_id"])
    op.create_table(
        "devices",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("extended", sa.Float, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("project_id", _ID, primary_key=True, autoincrement=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("asked", sa.Float, nullable=False),
    )
