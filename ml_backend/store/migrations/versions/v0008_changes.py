"""When each task was changed last, which images are of the audit set, and indexes for what every look asks.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add columns and indexes; tasks that the last ranking did not know count as changed after it."""
    op.add_column("projects", sa.Column("ranked_changes", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("tasks", sa.Column("changed", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("tasks", sa.Column("audit", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE tasks SET changed = 1 WHERE NOT EXISTS (SELECT 1 FROM ranking"
        " WHERE ranking.project_id = tasks.project_id AND ranking.task_id = tasks.task_id)"
    )
    op.drop_index("tasks_by_status", "tasks")
    op.create_index("tasks_by_status", "tasks", ["project_id", "status", "task_id", "audit"])
    op.create_index("tasks_by_change", "tasks", ["project_id", "changed"])
    for name, table, column in (("tasks_with_error", "tasks", "error"), ("ranking_of_parts", "ranking", "boxes")):
        some = sa.text(f"{column} <> ''")
        op.create_index(name, table, ["project_id", "task_id"], sqlite_where=some, postgresql_where=some)
