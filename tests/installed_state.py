"""An installation with rows in all tables, and what is in a state database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
import torch
from wiring import PROJECT, task_of

from ml_backend.annotations.boxes import Box, Query
from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.projects.services import Services
from ml_backend.store import Decision
from ml_backend.store.tables import META, METADATA

RECORD = VersionRecord(classes=("a", "b"), label_map_digest="", data_digest="", measures={"miou": 0.5})
Rows = dict[str, list[dict[str, Any]]]


def fill(services: Services, *, tasks: int = 2500) -> None:
    """Put something of each kind into the state and the folder of an installation."""
    store = services.store
    checkpoints = services.checkpoints(PROJECT)
    checkpoints.create(RECORD, {"weight": torch.ones(3)})
    checkpoints.publish(1)
    mask = services.files.write_once(f"projects/{PROJECT}/masks/aa.png", b"a mask")
    store.wake(PROJECT, title="Zellkerne µm", published_version="nextmask-1.1", decided_model=1)
    known = [task_of(number, lead_time=number / 3) for number in range(2, tasks)]
    store.put_tasks([task_of(1, status="labelled", mask_file=mask, annotation_id=99_999_999_999), *known])
    store.put_ranking(PROJECT, {task.task_id: 1 / task.task_id for task in known}, {2: Query((Box(0, 0, 4, 3),), 6.5)})
    store.put_published(PROJECT, "nextmask-1.1", [(2, 0.5, b"\x89PNG\0"), (3, 0.1, None)])
    store.mark_published(PROJECT, "nextmask-1.1")
    store.put_queries(PROJECT, "nextmask-1.1", {2: Query((Box(0, 0, 4, 3),), 6.5)})
    store.put_decisions(
        PROJECT, [Decision(5, keep=False, score=0.25, threshold=0.5, decided_at=10.0)], state=("s", "1")
    )
    for number in range(3):
        store.add_event(PROJECT, "trained", f"Version {number}")
    store.set_default("webhook_secret", "kept")
    store.count("trainings")


def rows_of(url: str) -> Rows:
    """All tables of a database with their rows, but for what belongs to processes, machines and the schema."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = {
                table.name: [
                    dict(row)
                    for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()
                ]
                for table in METADATA.sorted_tables
            }
    finally:
        engine.dispose()
    own = ("clock_", "schema", "server", "worker_")
    rows[META.name] = sorted(
        (row for row in rows[META.name] if not row["key"].startswith(own)), key=lambda row: str(row["key"])
    )
    return rows
