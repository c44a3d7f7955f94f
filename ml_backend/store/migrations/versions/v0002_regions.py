"""The second schema: regions that are asked for, what labelling them took, decisions of a stream, pseudo-labels.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add tables and columns; the database fills the columns of rows that are there."""
    for table, name in (
        ("projects", "pseudo_labels"),
        ("projects", "notice"),
        ("tasks", "boxes"),
        ("tasks", "effort_file"),
        ("ranking", "boxes"),
    ):
        op.add_column(table, sa.Column(name, sa.Text, nullable=False, server_default=sa.text("''")))
    for table, name in (("projects", "ranking_seconds"), ("tasks", "effort"), ("ranking", "cost")):
        op.add_column(table, sa.Column(name, sa.Float))
    op.create_table(
        "queries",
        sa.Column("project_id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("boxes", sa.Text, nullable=False),
        sa.Column("cost", sa.Float),
        sa.Column("asked_at", sa.Float, nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("project_id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, primary_key=True),
        sa.Column("keep", sa.Boolean, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float),
        sa.Column("decided_at", sa.Float, nullable=False),
        sa.Column("marked", sa.Boolean, nullable=False),
        sa.Column("returned", sa.Boolean, nullable=False),
    )
