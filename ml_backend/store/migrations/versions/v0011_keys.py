"""Files of labels are named by their keys below MODEL_DIR, and no longer by absolute paths.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Cut off what stands before `projects/NUMBER/masks/`; where that stands twice, before the last."""
    tasks = sa.table("tasks", sa.column("project_id"), sa.column("mask_file"), sa.column("effort_file"))
    folder = sa.literal("/projects/") + sa.cast(tasks.c.project_id, sa.Text) + "/masks/"
    place = sa.func.instr if op.get_bind().dialect.name == "sqlite" else sa.func.strpos
    for column in (tasks.c.mask_file, tasks.c.effort_file):
        begin = place(column, folder)
        cut = sa.update(tasks).where(begin > 0).values({column: sa.func.substr(column, begin + 1)})
        while op.get_bind().execute(cut).rowcount:
            pass
