"""The page of one version: how it was trained, on what, what it measured; and the version as an archive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from ml_backend.dashboard.pages import ProjectId, project_of
from ml_backend.dashboard.rendering import render
from ml_backend.dashboard.versions import VersionNumber, good_version, trained_at
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.checkpoints.archive import archive
from ml_backend.learning.measuring import Estimate, compare
from ml_backend.learning.measuring.words import compared_text, comparison_text, measured_text, recorded
from ml_backend.projects.folders import checkpoints_of
from ml_backend.settings import Settings
from ml_backend.store import Store


@dataclass(frozen=True)
class ClassRow:
    """What is known of a class of a version.

    Attributes:
        iou, dice: held-out measures; None where no held-out label has the class.
        labels: in how many of the labels that trained the class occurs; None in versions of earlier releases.
    """

    name: str
    iou: Estimate | None
    dice: Estimate | None
    labels: int | None


def add_pages(router: APIRouter, settings: Settings, store: Store) -> None:
    """Add `/projects/{project_id}/versions/{number}` and, below it, `/archive`."""

    @router.get("/projects/{project_id}/versions/{number}")
    def version_page(request: Request, project_id: ProjectId, number: VersionNumber) -> Response:
        project, checkpoints = project_of(store, project_id), checkpoints_of(settings, store, project_id)
        records = {record.number: record for record in checkpoints.history()}
        if number not in records:
            good_version(settings, store, project_id, number)  # says what is wrong with it
            raise HTTPException(404, f"There is no version {number}.")
        record, serving = records[number], checkpoints.current()
        parent = records.get(record.parent or 0)
        return render(
            request,
            "version.html",
            project=project,
            tab="versions",
            record=record,
            serving=serving.number if serving else 0,
            trained_at=trained_at(record),
            size=_size(checkpoints, number),
            children=[other for other, one in records.items() if one.parent == number],
            parent_is_there=parent is not None,
            since_then=_since_then(record, parent, records.values()) if parent else "",
            classes=_classes(record),
            course=_course(record),
        )

    @router.get("/projects/{project_id}/versions/{number}/archive")
    def download(project_id: ProjectId, number: VersionNumber) -> Response:
        project_of(store, project_id)
        version = good_version(settings, store, project_id, number)
        name = f"nextmask-project-{project_id}-version-{number}.zip"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
        return StreamingResponse(archive(version), media_type="application/zip", headers=headers)


def _size(checkpoints: Checkpoints, number: int) -> int | None:
    """Return the bytes of a version's weights; None where they were removed."""
    return next((version.size for version in checkpoints.versions() if version.number == number), None)


def _classes(record: VersionRecord) -> list[ClassRow]:
    return [
        ClassRow(name, recorded(record, "iou", name), recorded(record, "dice", name), record.class_labels.get(name))
        for name in record.classes
    ]


def _course(record: VersionRecord) -> dict[str, Any] | None:
    """Return how a training went as an object for the chart; None in versions of earlier releases."""
    if not record.course.get("loss"):
        return None
    images = record.measures.get("images", 0)
    groups = record.measures.get("groups", images)

    def measured(step: int, value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
        text = measured_text(Estimate(value, low, high, images, groups))
        return {"step": step, "value": value, "low": low, "high": high, "text": text}

    return {"loss": record.course["loss"], "miou": [measured(*point) for point in record.course.get("miou", ())]}


def _since_then(record: VersionRecord, parent: VersionRecord, records: Iterable[VersionRecord]) -> str:
    """Say how the version compares with its parent by what later trainings measured; empty where the gate said so."""
    comparison = compare(parent, record, records)
    found = comparison.difference.miou if comparison else None
    if found is None or compared_text(parent.number, found) in record.reason:
        return ""
    return f"{comparison_text(record.number, parent.number, found)}."
