"""Why a strategy put a task where it is; what a training has measured so far, and when it ends.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns; a release that knows only the revisions before leaves them alone."""
    op.add_column("ranking", sa.Column("turn", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("ranking", sa.Column("outlines", sa.Float))
    op.add_column("projects", sa.Column("stage_note", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("projects", sa.Column("stage_ends", sa.Float))
