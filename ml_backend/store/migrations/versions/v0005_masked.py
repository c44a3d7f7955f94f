"""Whether a mask of ours was shown to those who labelled a task.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a column, and tell it of the labels that are there: versions 0.* showed no masks."""
    op.add_column("tasks", sa.Column("masked", sa.Boolean, nullable=False, server_default=sa.false()))
    tasks = sa.table("tasks", sa.column("masked", sa.Boolean), sa.column("shown_version", sa.Text))
    shown = tasks.c.shown_version
    op.execute(
        sa.update(tasks).where(shown.like("nextmask-%"), shown.not_like("nextmask-0.%")).values(masked=sa.true())
    )
