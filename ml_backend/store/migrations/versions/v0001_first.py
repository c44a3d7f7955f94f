"""The first schema: projects, tasks, ranking, and what was published.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("managed", sa.Boolean, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("wakes", sa.Integer, nullable=False),
        sa.Column("wakes_handled", sa.Integer, nullable=False),
        sa.Column("dirty_since", sa.Float),
        sa.Column("reconciled_at", sa.Float),
        sa.Column("train_requested_at", sa.Float),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("stage_done", sa.Integer, nullable=False),
        sa.Column("stage_total", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("error_at", sa.Float),
        sa.Column("decided_model", sa.Integer, nullable=False),
        sa.Column("train_error", sa.Text, nullable=False),
        sa.Column("failed_digest", sa.Text, nullable=False),
        sa.Column("retry_at", sa.Float),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_expires", sa.Float),
        sa.Column("extra_params", sa.Text, nullable=False),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("labels_digest", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text),
        sa.Column("published_version", sa.Text, nullable=False),
        sa.Column("ranking_version", sa.Text, nullable=False),
        sa.Column("ranking_number", sa.Integer, nullable=False),
        sa.Column("ranking_key", sa.Text, nullable=False),
        sa.Column("undo", sa.Text, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("project_id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, primary_key=True),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("group_key", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("annotation_id", sa.Integer),
        sa.Column("label_digest", sa.Text, nullable=False),
        sa.Column("mask_file", sa.Text, nullable=False),
        sa.Column("held_out", sa.Boolean, nullable=False),
        sa.Column("lead_time", sa.Float),
        sa.Column("regions", sa.Integer, nullable=False),
        sa.Column("vertices", sa.Integer, nullable=False),
        sa.Column("shown_version", sa.Text, nullable=False),
        sa.Column("agreement", sa.Float),
    )
    op.create_table(
        "ranking",
        sa.Column("project_id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, primary_key=True),
        sa.Column("priority", sa.Float, nullable=False),
    )
    op.create_table(
        "published",
        sa.Column("project_id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("task_id", sa.Integer, primary_key=True),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("mask", sa.LargeBinary),
        sa.Column("published_at", sa.Float, nullable=False),
    )
    op.create_table(
        "published_versions",
        sa.Column("project_id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("published_at", sa.Float, nullable=False),
        sa.Column("retired_at", sa.Float),
    )
    op.create_index("tasks_by_status", "tasks", ["project_id", "status"])
    op.create_index("ranking_by_priority", "ranking", ["project_id", "priority"])
