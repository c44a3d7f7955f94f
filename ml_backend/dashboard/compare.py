"""The page that compares two versions: their measures, and their masks on the same images.

What is measured here and now is measured by `pictures.comparisons`, in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from ml_backend.dashboard.pages import MAX_ID, PageNumber, Pager, ProjectId, editor_address, project_of
from ml_backend.dashboard.pictures import ComparedImage, ComparedLabels, Comparison, Comparisons, NoPicture
from ml_backend.dashboard.pictures.subjects import labels_of
from ml_backend.dashboard.queue import Strength
from ml_backend.dashboard.rendering import render
from ml_backend.dashboard.versions import named
from ml_backend.images.references import file_name
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning import measuring
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.learning.measuring import Estimate
from ml_backend.learning.measuring.words import comparison_text, recorded, told_apart
from ml_backend.projects.folders import checkpoints_of
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, Store

PAGE: Final = 6
"""Images on a page."""

Order = Literal["difference", "better", "worse", "task"]
Number = Annotated[int | None, Query(ge=1, le=MAX_ID)]
_KEYS: Final[dict[Order, Callable[[ComparedImage], float]]] = {
    "difference": lambda image: -image.differs,
    "better": lambda image: -image.gain,
    "worse": lambda image: image.gain,
    "task": lambda image: image.task,
}


@dataclass(frozen=True)
class Row:
    """A measure of two versions; None where a version has none.

    Attributes:
        name: of the class.
        change: the second minus the first, on the same labels; None where they have none in common.
    """

    name: str
    first: Estimate | None
    second: Estimate | None
    change: Estimate | None = None

    @property
    def told_apart(self) -> str:
        """Which way they differ for sure: better, worse, or empty."""
        return told_apart(self.change) if self.change else ""


@dataclass(frozen=True)
class Shown:
    """An image of the page.

    Attributes:
        task: id. name: of its file; empty where it has none. editor: address of the task in Label Studio.
        compared: None where the versions were not measured on it.
    """

    task: int
    name: str
    editor: str
    compared: ComparedImage | None


def add_pages(router: APIRouter, settings: Settings, store: Store, comparisons: Comparisons) -> None:
    """Add `/projects/{project_id}/compare`."""

    @router.get("/projects/{project_id}/compare")
    def compare(
        request: Request,
        project_id: ProjectId,
        a: Number = None,
        b: Number = None,
        order: Order = "difference",
        page: PageNumber = 1,
        strength: Strength = "60",
    ) -> Response:
        project = project_of(store, project_id)
        versions = checkpoints_of(settings, store, project_id).versions()
        serving = model_number(project.published_version)
        pair = _pair(versions, serving, a, b)
        frame: dict[str, Any] = {
            "project": project,
            "tab": "compare",
            "versions": versions[::-1],
            "named": lambda version: named(version, serving),
            "order": order,
            "strength": strength,
        }
        if pair is None:
            return render(request, "compare.html", pair=None, **frame)
        labels = comparisons.labels(project)
        try:
            comparison, progress, failure = _measured(comparisons, project, pair, labels)
            legend = labels_of(project, project_settings(settings, store, project)[0]).legend
        except NoPicture as error:
            comparison, progress, failure, legend = None, None, str(error), []
        if request.headers.get("HX-Request") and progress is None:  # the page waited for this
            return Response(headers={"HX-Refresh": "true"})
        pager = Pager.of(page, len(labels.tasks), PAGE)
        now = comparison.measures if comparison else None
        first, second = (version.record for version in pair)
        common = measuring.compare(first, second, checkpoints_of(settings, store, project_id).history())
        return render(
            request,
            "compare.html",
            pair=pair,
            stored=_rows(common) if common else _apart(first, second),
            common=common,
            said=_said(*pair, common),
            trained=[_trained(version, labels) for version in pair],
            labels=labels,
            comparison=comparison,
            measured=_rows(now) if now else [],
            said_now=_said(*pair, now),
            progress=progress,
            failure=failure,
            legend=legend,
            pager=pager,
            images=_images(settings, labels, comparison, order, pager),
            **frame,
        )

    @router.post("/projects/{project_id}/compare")
    def measure_both(request: Request, project_id: ProjectId, a: Number = None, b: Number = None) -> Response:
        project = project_of(store, project_id)
        pair = _pair(checkpoints_of(settings, store, project_id).versions(), 0, a, b)
        if pair is None or a is None or b is None:
            raise HTTPException(404, "A comparison takes two versions: choose both.")
        if not comparisons.start(project, pair, comparisons.labels(project)):
            raise HTTPException(429, "Too many comparisons are waiting: try again when some are done.")
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/projects/{project_id}/compare?a={a}&b={b}", status_code=303)


def _pair(versions: Sequence[Version], serving: int, a: int | None, b: int | None) -> tuple[Version, Version] | None:
    """Return the versions to compare: `a` and `b`, else the one that serves with its parent; None without two.

    Raises:
        HTTPException: 404, a version of that number is not there.
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
    comparisons: Comparisons, project: Project, pair: tuple[Version, Version], labels: ComparedLabels
) -> tuple[Comparison | None, tuple[int, int] | None, str | None]:
    """Return the result, or how far it is, or why there is none."""
    return (
        comparisons.result(project, pair, labels),
        comparisons.progress(project, pair, labels),
        comparisons.failure(project, pair, labels),
    )


def _trained(version: Version, labels: ComparedLabels) -> int:
    """Count those of the labels that a version was trained on."""
    record = version.record
    used = {task for key in record.labels.keys() - set(record.held_out) for task in key.split("+")}
    return sum(str(task.task_id) in used for task in labels.tasks)


def _said(first: Version, second: Version, common: measuring.Comparison | None) -> str:
    """Say in a sentence which of two versions is better, or that this cannot be told; empty without a comparison."""
    if common is None or first.number == second.number:
        return ""
    return f"{comparison_text(second.number, first.number, common.difference.miou)}."


def _rows(common: measuring.Comparison) -> list[tuple[Row, Row]]:
    """Return IoU and Dice of all classes together, then of each class, on the labels that both versions measured."""
    first, second, change = common.first, common.second, common.difference
    names = list(first.iou)
    return [
        (
            Row("All classes", first.miou, second.miou, change.miou),
            Row("All classes", first.mean_dice, second.mean_dice, change.mean_dice),
        ),
        *(
            (
                Row(name, first.iou[name], second.iou[name], change.iou[name]),
                Row(name, first.dice[name], second.dice[name], change.dice[name]),
            )
            for name in names
        ),
    ]


def _apart(first: VersionRecord, second: VersionRecord) -> list[tuple[Row, Row]]:
    """Return the same of two versions, each on its own labels: such measures have no difference."""
    measured = [record for record in (first, second) if record.measures.get("miou") is not None]
    names = dict.fromkeys(name for record in measured for name in record.classes)

    def row(title: str, measure: str, of_class: str | None = None) -> Row:
        return Row(title, recorded(first, measure, of_class), recorded(second, measure, of_class))

    means = row("All classes", "miou"), row("All classes", "mean_dice")
    return [means, *((row(name, "iou", name), row(name, "dice", name)) for name in names)]


def _images(
    settings: Settings, labels: ComparedLabels, comparison: Comparison | None, order: Order, pager: Pager
) -> list[Shown]:
    """Return the images of a page: those that were measured in the order wanted, then the others by task."""
    measured = {image.task: image for image in comparison.images} if comparison else {}
    tasks = {task.task_id: task for task in labels.tasks}
    ordered = [image.task for image in sorted(measured.values(), key=lambda image: (_KEYS[order](image), image.task))]
    rest = [task for task in tasks if task not in measured]
    return [
        Shown(task, file_name(tasks[task].image), editor_address(settings, tasks[task]), measured.get(task))
        for task in [*ordered, *rest][pager.start : pager.start + PAGE]
    ]
