"""Who made a label, and whether it was submitted as the mask that was shown.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns; the next look at a project fills them for the labels that are there."""
    op.add_column("tasks", sa.Column("annotator", sa.Integer))
    op.add_column("tasks", sa.Column("unchanged", sa.Boolean))
