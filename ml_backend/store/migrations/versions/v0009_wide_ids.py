"""Ids of Label Studio take 64 bits on PostgreSQL, as they do on SQLite.

Revision ID: 0009
"""

from alembic import op

revision = "0009"
down_revision = "0008"

_IDS = {
    "projects": ("id",),
    "tasks": ("project_id", "task_id", "annotation_id", "annotator"),
    "ranking": ("project_id", "task_id"),
    "published": ("project_id", "task_id"),
    "published_versions": ("project_id",),
    "queries": ("project_id", "task_id"),
    "decisions": ("project_id", "task_id"),
    "events": ("project_id",),
}


def upgrade() -> None:
    """Widen the columns; SQLite has one kind of integer."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, columns in _IDS.items():  # a statement for each, which copies the table once
        op.execute(f"ALTER TABLE {table} " + ", ".join(f"ALTER COLUMN {name} TYPE BIGINT" for name in columns))
