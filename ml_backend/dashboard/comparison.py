"""Two versions side by side: their measures, and their masks on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.pages import MAX_ID, PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.pictures import Basis, Compared, Comparisons, NoPicture, Result, same_labels
from ml_backend.dashboard.pictures.subjects import labels_of
from ml_backend.dashboard.queue import Strength
from ml_backend.dashboard.rendering import render
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.store import Project

PAGE: Final = 6
"""Images on a page."""

Order = Literal["difference", "better", "worse", "task"]
Number = Annotated[int | None, Query(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class Row:
    """A measure of two versions; None where one has none."""

    name: str
    first: float | None
    second: float | None

    @property
    def change(self) -> float | None:
        """How much larger the second is."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class Shown:
    """An image of the page; `compared` is None where it was not measured."""

    task: int
    editor: str
    compared: Compared | None


def add_pages(router: APIRouter, services: Services, comparisons: Comparisons) -> None:
    """Add `/projects/{project}/compare`."""

    @router.get("/projects/{project}/compare")
    def compare(
        request: Request,
        project: ProjectId,
        a: Number = None,
        b: Number = None,
        order: Order = "difference",
        page: PageNumber = 1,
        strength: Strength = "60",
    ) -> Response:
        found = project_of(services, project)
        versions = services.checkpoints(project).versions()
        pair = _pair(versions, model_number(found.published_version), a, b)
        frame: dict[str, Any] = {
            "project": found,
            "tab": "compare",
            "versions": versions[::-1],
            "order": order,
            "strength": strength,
        }
        if pair is None:
            return render(request, "compare.html", pair=None, **frame)
        basis = comparisons.basis(found)
        try:
            result, progress, failure = _measured(comparisons, found, pair, basis)
            legend = labels_of(found, project_settings(services.settings, services.store, found)[0]).legend
        except NoPicture as error:
            result, progress, failure, legend = None, None, str(error), []
        if request.headers.get("HX-Request") and progress is None:  # the page waited for this
            return Response(headers={"HX-Refresh": "true"})
        pager = Pager.of(page, len(basis.tasks), PAGE)
        return render(
            request,
            "compare.html",
            pair=pair,
            stored=_rows(pair[0].record.measures, pair[1].record.measures),
            same_labels=same_labels(*pair),
            common=len(set(pair[0].record.held_out) & set(pair[1].record.held_out)),
            parent_miou=_parent_miou(*pair),
            trained=[_trained(version, basis) for version in pair],
            basis=basis,
            result=result,
            measured=_rows(result.first, result.second) if result else [],
            progress=progress,
            failure=failure,
            legend=legend,
            pager=pager,
            images=_images(services, found, basis, result, order, pager),
            **frame,
        )

    @router.post("/projects/{project}/compare")
    def measure(request: Request, project: ProjectId, a: Number = None, b: Number = None) -> Response:
        found = project_of(services, project)
        pair = _pair(services.checkpoints(project).versions(), 0, a, b)
        if pair is None or a is None or b is None:
            raise HTTPException(404, "There are no such two versions to compare.")
        if not comparisons.start(found, pair, comparisons.basis(found)):
            raise HTTPException(429, "Several comparisons wait already: try again when they are done.")
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/projects/{project}/compare?a={a}&b={b}", status_code=303)


def _pair(versions: Sequence[Version], serving: int, a: int | None, b: int | None) -> tuple[Version, Version] | None:
    """Return the versions to compare: those asked for, else the one that serves with its parent; None without two.

    Raises:
        HTTPException: 404, one that was asked for is not there.
    """
    known = {version.number: version for version in versions}
    for number in (a, b):
        if number is not None and number not in known:
            raise HTTPException(404, f"There is no version {number}, or it is damaged.")
    if len(known) < 2:
        return None
    second = b or (serving if serving in known else max(known))
    parent = known[second].record.parent
    others = [number for number in known if number != second]
    before = [number for number in others if number < second]
    first = a or (parent if parent in others else max(before or others))
    return known[first], known[second]


def _measured(
    comparisons: Comparisons, project: Project, pair: tuple[Version, Version], basis: Basis
) -> tuple[Result | None, tuple[int, int] | None, str | None]:
    return (
        comparisons.result(project, pair, basis),
        comparisons.progress(project, pair, basis),
        comparisons.failure(project, pair, basis),
    )


def _parent_miou(first: Version, second: Version) -> float | None:
    """Return the mIoU of the first version on the labels of the second, where that was its parent."""
    is_parent = second.record.parent == first.number
    found: float | None = second.record.measures.get("parent_miou") if is_parent else None
    return found


def _trained(version: Version, basis: Basis) -> int:
    """Count the labels of the basis that a version was trained on."""
    record = version.record
    used = {task for key in record.labels.keys() - set(record.held_out) for task in key.split("+")}
    return sum(str(task.task_id) in used for task in basis.tasks)


def _rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[Row, Row]]:
    """Return IoU and Dice of all classes, and of each; classes that only one of them knows are there, too."""
    names = list(dict.fromkeys([*(first.get("iou") or {}), *(second.get("iou") or {})]))
    total = (
        Row("All classes", first.get("miou"), second.get("miou")),
        Row("All classes", first.get("mean_dice"), second.get("mean_dice")),
    )

    def row(kind: str, name: str) -> Row:
        return Row(name, (first.get(kind) or {}).get(name), (second.get(kind) or {}).get(name))

    return [total, *((row("iou", name), row("dice", name)) for name in names)]


def _images(
    services: Services, project: Project, basis: Basis, result: Result | None, order: Order, pager: Pager
) -> list[Shown]:
    measured = {one.task: one for one in result.images} if result else {}
    keys = {
        "difference": lambda one: -one.differs,
        "better": lambda one: -one.gain,
        "worse": lambda one: one.gain,
        "task": lambda one: one.task,
    }
    ordered = [one.task for one in sorted(measured.values(), key=lambda one: (keys[order](one), one.task))]
    rest = [task.task_id for task in basis.tasks if task.task_id not in measured]
    return [
        Shown(task, editor_address(services, project.id, task), measured.get(task))
        for task in [*ordered, *rest][pager.start : pager.start + PAGE]
    ]
