"""Events of projects, how informative the strategy found each image that it ranked, and when a stage began.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a table and columns, and tell releases that know no revisions to keep away."""
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("events_by_project", "events", ["project_id", "id"])
    op.add_column("ranking", sa.Column("information", sa.Float))
    op.add_column("projects", sa.Column("stage_since", sa.Float))
    # They look here, and would otherwise take a database without this row, or with "2" in it, for one of theirs.
    op.execute(sa.text("DELETE FROM meta WHERE key = 'schema'"))
    op.execute(sa.text("INSERT INTO meta (key, value) VALUES ('schema', '3')"))
