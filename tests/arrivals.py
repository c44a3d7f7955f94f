"""Tasks that arrive at a project in stream mode, and those that were passed over."""

from __future__ import annotations

from memory_studio import MemoryStudio
from wiring import PROJECT

from ml_backend.label_studio.predictions import MARKER
from ml_backend.projects.services import Services


def arrive(studio: MemoryStudio, count: int) -> list[int]:
    """Upload so many images; return their tasks."""
    return [studio.add_task(100 + index) for index in range(count)]


def marked(studio: MemoryStudio) -> list[int]:
    """Tasks that Label Studio shows as passed over."""
    return sorted(row["task"] for row in studio.predictions if row["model_version"] == MARKER)


def passed(services: Services) -> list[int]:
    """Tasks that the store has as passed over."""
    return [task.task_id for task in services.store.tasks(PROJECT, status="passed")]
