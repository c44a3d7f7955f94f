"""What was answered of points, how many guesses were right, and why the points of a ranking are asked.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add columns; no label was of points before."""
    for name in ("points", "guesses", "right_guesses"):
        op.add_column("tasks", sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("ranking", sa.Column("points", sa.Text, nullable=False, server_default=sa.text("''")))
