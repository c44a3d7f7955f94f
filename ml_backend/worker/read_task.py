"""One task of Label Studio as nextmask keeps it: its image, its status, and the mask that people gave it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import (
    WHOLE_IMAGE,
    Box,
    Query,
    are_points,
    boxes_from_text,
    boxes_to_text,
    covered_pixels,
)
from ml_backend.annotations.clicks import annotation_effort
from ml_backend.annotations.config_changes import ConfigChange
from ml_backend.annotations.effort import write_points
from ml_backend.annotations.fields import annotator_of, lead_time_of, printable, regions_of
from ml_backend.annotations.key_points import has_points, is_audit_point, was_predicted
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.query_regions import is_query, labelled_boxes, read_rectangles
from ml_backend.annotations.reading import agreement_with, guesses_answered, inside_boxes, is_unchanged, starting_mask
from ml_backend.annotations.regions import mask_regions
from ml_backend.annotations.voting import Annotation, annotations_beneath, annotations_that_count, majority
from ml_backend.errors import ImageError, MaskError, first_few, shown
from ml_backend.label_studio.predictions import DUPLICATE, is_own
from ml_backend.projects.audit import AuditSet, audit_set, group_of
from ml_backend.projects.parts import merged_mask
from ml_backend.settings import Settings
from ml_backend.store import Store, Task
from ml_backend.system.files import Files

_Predictions = Mapping[int, Mapping[str, Any]]
"""Predictions that annotations of a task started from, by id."""


@dataclass(frozen=True)
class _Shown:
    """What an annotator started from.

    Attributes:
        version: of the prediction; empty where none is known.
        prediction: as the host has it; None where it has none (any more).
        mask: that was shown, a PNG of class indices, where it is kept.
    """

    version: str
    prediction: Mapping[str, Any] | None
    mask: bytes | None


class TaskReader:
    """Reads tasks of one project under one labelling configuration.

    Args:
        size_of: (height, width) of an image reference, as it is decoded; raises ImageError where it cannot be had.
        files: keep masks and efforts; names carry the content's digest, so a file never changes.
        folder: of their keys.
        config_change: what a changed configuration means for labels; it counts those that are read.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        label_map: LabelMap,
        *,
        files: Files,
        folder: str,
        size_of: Callable[[str], tuple[int, int]],
        config_change: ConfigChange | None,
    ) -> None:
        self._store, self._settings, self._label_map = store, settings, label_map
        self._files, self._folder = files, folder
        self._size_of, self._config_change = size_of, config_change
        self._passed: Collection[int] | None = None
        self._audit: AuditSet | None = None

    def read(self, project_id: int, item: Mapping[str, Any]) -> Task:
        """Turn a task of the host into one of the store; what cannot be read is told in its `error`, never raised."""
        data = item.get("data") or {}
        image = self._label_map.image_reference(data)
        task = Task(project_id, int(item["id"]), printable(image or ""), updated_at=str(item["updated_at"]))
        task = replace(task, group_key=group_of(data, image or "", self._settings))
        if image is None:
            key = self._label_map.image_variable
            return replace(task, status="broken", error=f"The task's data has no image under {key!r}.")
        annotations = item.get("annotations") or []
        counting = annotations_that_count(annotations, self._settings.several_annotations)
        if not counting:
            skipped = any(annotation.get("was_cancelled") for annotation in annotations)
            waiting = "passed" if task.task_id in self._passed_over(project_id) else "unlabelled"
            return replace(task, status="skipped" if skipped else waiting)
        if self._config_change is not None:
            self._config_change.count(task.task_id, regions_of(counting[0]))
        predictions = _predictions_of(item)
        submitted = (one for one in annotations if not one.get("was_cancelled"))
        saw = [self._saw_mask(task, one, self._shown(task, one, predictions)) for one in submitted]
        task = replace(task, masked=any(saw))
        try:
            read = self._read_annotations(task, counting, predictions)
            older = annotations_beneath(annotations, self._settings.several_annotations)
            read = self._over_older(read, task, older, predictions)
            return replace(read, held_out=self._measures(read))
        except (MaskError, ImageError) as error:
            status = "unavailable" if isinstance(error, ImageError) else "broken"
            return replace(task, status=status, annotation_id=int(counting[0]["id"]), error=str(error))

    def _passed_over(self, project_id: int) -> Collection[int]:
        """Return what a stream passed over; read once, since nothing is decided while a sync runs."""
        if self._passed is None:
            self._passed = self._store.passed_over(project_id)
        return self._passed

    def _measures(self, task: Task) -> bool:
        """Whether the label of a task measures: its image was drawn for that, and nobody was shown a mask of ours."""
        if self._audit is None:
            self._audit = audit_set(self._settings, self._store, task.project_id)
        return not task.masked and self._audit.has(task.group_key)

    def _saw_mask(self, task: Task, annotation: Annotation, shown: _Shown) -> bool:
        """Whether an annotator started from a mask of ours, or points that a strategy chose.

        A mask that others predicted leans to no version, and points that were drawn to measure with lean to nothing.

        Where the prediction is gone, what was read before counts; where there is nothing of that either, the regions
        tell whether they came from a prediction, which may have been ours.
        """
        if shown.prediction is not None:
            regions = [region for region in regions_of(shown.prediction) if not is_audit_point(region)]
            return is_own(shown.version) and (shown.mask is not None or bool(regions))
        before = self._store.task(task.project_id, task.task_id)
        if before is not None and before.annotation_id == annotation["id"]:
            return before.masked
        own = [region for region in regions_of(annotation) if isinstance(region, Mapping)]
        origins = {str(region.get("origin")) for region in own if not is_audit_point(region)}
        return bool(origins & {"prediction", "prediction-changed"})

    def _read_annotations(self, task: Task, counting: Sequence[Annotation], predictions: _Predictions) -> Task:
        """Read the newest annotation, with the vote of all as its mask; those that cannot be read do not vote."""
        size = self._size_of(task.image)
        if len(counting) == 1:
            return self._read_annotation(task, counting[0], predictions, size)
        read, problems = [], []
        for annotation in counting:
            try:
                read.append(self._read_annotation(task, annotation, predictions, size))
            except MaskError as error:
                problems.append(str(error))
        if not read:
            raise MaskError("; ".join(problems))
        png, boxes = _vote(self._files, read)
        problems = [read[0].error, *problems]
        return replace(read[0], **self._keep(task, png), boxes=boxes, error="; ".join(filter(None, problems)))

    def _over_older(self, read: Task, task: Task, older: Sequence[Annotation], predictions: _Predictions) -> Task:
        """Lay a label of points over the older ones of its task, as far as the next that says more than points."""
        for annotation in older:
            boxes = boxes_from_text(read.boxes)
            if not are_points(boxes):
                break
            try:
                below = self._read_annotation(task, annotation, predictions, self._size_of(task.image))
            except MaskError:
                continue
            png = masks.png_bytes(merged_mask(self._files, [below, read]))
            together = (
                boxes_to_text(dict.fromkeys((*boxes_from_text(below.boxes), *boxes))) if below.boxes else WHOLE_IMAGE
            )
            regions, vertices = read.regions + below.regions, read.vertices + below.vertices
            read = replace(read, **self._keep(task, png), boxes=together, regions=regions, vertices=vertices)
        return read

    def _read_annotation(
        self, task: Task, annotation: Annotation, predictions: _Predictions, size: tuple[int, int]
    ) -> Task:
        result, before = regions_of(annotation), self._shown(task, annotation, predictions)
        points_asked = self._was_asked_for_points(task, before, result)
        reading = masks.read_result(
            result, self._label_map, size=size, unpainted=self._unpainted(result, size, points_asked=points_asked)
        )
        if why := self._why_nothing(reading, points_asked=points_asked):
            raise MaskError(f"Annotation {annotation['id']} labels nothing: {why}.")
        try:
            asked = partial(self._was_asked, task, before)
            rectangles = labelled_boxes(result, self._label_map, size, was_asked=asked)
        except MaskError as error:
            raise MaskError(f"Annotation {annotation['id']} is not used: {error}") from error
        mask = inside_boxes(reading.mask, rectangles.boxes, reading.answers)
        if rectangles.boxes and (mask == IGNORE_INDEX).all():
            raise MaskError(f"Annotation {annotation['id']} labels nothing inside its rectangles.")
        of_points = not rectangles.boxes and (points_asked or bool(reading.answers and not reading.regions))
        labelled = (*rectangles.boxes, *(answer.box for answer in reading.answers))
        is_part = of_points or bool(rectangles.boxes)
        task = replace(task, boxes=boxes_to_text(labelled) if is_part else WHOLE_IMAGE)
        task = self._with_effort(task, annotation, before, rectangles.boxes, size, points_asked=points_asked)
        read = replace(
            task,
            status="labelled",
            error="; ".join([*first_few(reading.problems), *rectangles.problems]),
            annotation_id=int(annotation["id"]),
            **self._keep(task, masks.png_bytes(mask)),
            lead_time=lead_time_of(annotation),
            regions=reading.regions,
            vertices=reading.vertices,
            shown_version=before.version,
            agreement=None if of_points else self._agreement(before, result, mask),
            annotator=annotator_of(annotation),
            points=len(reading.answers),
        )
        if points_asked:
            predicted = [] if before.prediction is None else regions_of(before.prediction)
            guesses, right = guesses_answered(predicted, before.mask, mask, self._label_map)
            read = replace(read, guesses=guesses, right_guesses=right)
        return replace(read, unchanged=self._unchanged(read, before, result))

    def with_annotator(self, task: Task, item: Mapping[str, Any]) -> Task:
        """Say of a label that was read before who made it, and whether it is as it was shown; no image is needed."""
        for annotation in item.get("annotations") or []:
            if annotation["id"] == task.annotation_id:
                before = self._shown(task, annotation, _predictions_of(item))
                unchanged = self._unchanged(task, before, regions_of(annotation))
                return replace(task, annotator=annotator_of(annotation), unchanged=unchanged)
        return task

    def _unpainted(self, result: Sequence[Any], size: tuple[int, int], *, points_asked: bool) -> int | None:
        """Return what pixels are that nothing was drawn on; None: what the result itself makes of them."""
        if read_rectangles(result, self._label_map, size).boxes:
            return self._label_map.unpainted_index  # inside of the rectangles, outside of which all is left out
        return IGNORE_INDEX if points_asked else None

    def _why_nothing(self, reading: masks.Reading, *, points_asked: bool) -> str:
        """Say why a result labels nothing; empty where it does, be it that all of the image is background."""
        if (reading.regions or reading.answers) and (reading.mask != IGNORE_INDEX).any():
            return ""
        if reading.problems:
            return "; ".join(first_few(reading.problems))
        if points_asked:
            return "it was to say the class of points, and has none. Delete it, and answer the task again"
        control = self._label_map.controls[0]
        if reading.others:
            return (
                f"what is drawn is no mask ({'; '.join(first_few(reading.others))}). Draw the mask with {control.tag} "
                f"{shown(control.name)}, or submit without any region where there is nothing to label"
            )
        ignores_unpainted = self._label_map.unpainted_index >= len(self._label_map.classes)
        return "it has no region, and unpainted pixels are ignored" if ignores_unpainted else ""

    def _agreement(self, before: _Shown, result: Sequence[Any], mask: masks.Mask) -> float | None:
        s, predicted = self._settings, [] if before.prediction is None else regions_of(before.prediction)
        found = agreement_with(
            before.mask, mask, self._label_map, minimum_area=s.minimum_area, tolerance=s.polygon_tolerance
        )
        return 1.0 if found is not None and is_unchanged(result, predicted, self._label_map) else found

    def _unchanged(self, task: Task, shown: _Shown, result: Sequence[Any]) -> bool | None:
        """Whether a label is the mask of ours that its annotator was shown; None where none was, or it cannot be told.

        Args:
            task: as it is read, with the agreement of the label and its number of regions.
        """
        if not is_own(shown.version) or self._was_asked_for_points(task, shown, result):
            return None
        predicted = [] if shown.prediction is None else regions_of(shown.prediction)
        had_mask = shown.mask is not None or bool(mask_regions(predicted, self._label_map))
        known = is_unchanged(result, predicted, self._label_map)
        if had_mask and known is None and task.agreement == 1.0:  # the prediction is gone, or both paint nothing
            known = True
        if had_mask and known is not None:
            return known
        before = self._store.task(task.project_id, task.task_id)
        if before is None or before.annotation_id != task.annotation_id or before.unchanged is None:
            return None
        if known is None and before.regions == task.regions:
            return before.unchanged
        return known

    def _keep(self, task: Task, png: bytes) -> dict[str, Any]:
        """Write a mask to its file; return the columns of the task that name it."""
        digest = hashlib.sha256(png).hexdigest()
        file = self._files.write_once(f"{self._folder}/{task.task_id}-{digest[:20]}.png", png)
        return {"label_digest": digest, "mask_file": file}

    def _shown(self, task: Task, annotation: Annotation, predictions: _Predictions) -> _Shown:
        prediction = predictions.get(int(annotation.get("parent_prediction") or 0))
        if prediction is not None and prediction.get("model_version"):
            version = printable(prediction["model_version"]).removesuffix(DUPLICATE)
        else:  # the host forgets it when the prediction is pruned
            before = self._store.task(task.project_id, task.task_id)
            version = before.shown_version if before and before.annotation_id == annotation["id"] else ""
        mask = self._store.published_mask(task.project_id, version, task.task_id) if version else None
        return _Shown(version, prediction, mask)

    def _was_asked(self, task: Task, shown: _Shown) -> bool:
        """Whether the annotator was shown rectangles; where it is not known what was shown, whether one ever was.

        The host's own prediction tells, too: what is kept here may have been lost.
        """
        regions = [] if shown.prediction is None else regions_of(shown.prediction)
        if any(is_query(region, self._label_map) for region in regions):
            return True
        return any(not query.asks_for_points for query in self._queries(task, shown))

    def _was_asked_for_points(self, task: Task, shown: _Shown, result: Sequence[Any]) -> bool:
        """Whether the annotator was shown points to answer: then what is not drawn or answered is not labelled.

        Where it is not known what was shown, masks are those of the whole image; nothing at all is no answer where
        points were ever asked.
        """
        if shown.prediction is not None:
            return has_points(regions_of(shown.prediction), self._label_map)
        if was_predicted(result, self._label_map):
            return True
        asked = any(query.asks_for_points for query in self._queries(task, shown))
        return asked and (bool(shown.version) or not mask_regions(result, self._label_map))

    def _queries(self, task: Task, shown: _Shown) -> Iterable[Query]:
        """Yield what was asked in the version that was shown, or ever where no version is known."""
        asked = self._store.published_queries(task.project_id, task.task_id)
        return (query for (_, version), query in asked.items() if shown.version in ("", version))

    def _with_effort(
        self,
        task: Task,
        annotation: Annotation,
        shown: _Shown,
        boxes: Sequence[Box],
        size: tuple[int, int],
        *,
        points_asked: bool,
    ) -> Task:
        """Put down the effort that the label took, where that can be told."""
        was_masked = None
        if shown.version:
            was_masked = self._saw_mask(task, annotation, shown) if is_own(shown.version) else True
        started_from = starting_mask(
            annotation,
            None if points_asked else shown.mask,
            was_masked=False if points_asked else was_masked,
            size=size,
            label_map=self._label_map,
        )
        if started_from is None:
            return task
        s = self._settings
        points = annotation_effort(
            annotation,
            self._label_map,
            started_from,
            boxes,
            measure=s.cost_measure,
            minimum_area=s.minimum_area,
            tolerance=s.polygon_tolerance,
        )
        if points is None:
            return task
        file = write_points(self._files, self._folder, task.task_id, points)
        return replace(task, effort_file=file, effort=round(float(points[:, 2].sum()), 3))


def is_annotated(item: Mapping[str, Any]) -> bool:
    """Whether anybody submitted an annotation of a task of the host."""
    return any(not annotation.get("was_cancelled") for annotation in item.get("annotations") or [])


def _predictions_of(item: Mapping[str, Any]) -> _Predictions:
    return {int(row["id"]): row for row in item.get("predictions") or []}


def _vote(files: Files, read: Sequence[Task]) -> tuple[bytes, str]:
    """Return the majority of the masks that annotators drew for one task.

    Args:
        read: the task as each of them labels it, the newest first.

    Returns:
        the mask as PNG, and the boxes that it covers as the store keeps them.

    Raises:
        MaskError: their masks differ in size.
    """
    drawn = [masks.mask_from_png(files.read(task.mask_file)) for task in read]
    asked = [boxes_from_text(task.boxes) for task in read]
    sizes = [(mask.shape[0], mask.shape[1]) for mask in drawn]
    votes = [
        (covered_pixels(boxes, size) | (mask != IGNORE_INDEX)) if task.boxes else None
        for task, mask, boxes, size in zip(read, drawn, asked, sizes, strict=True)
    ]
    together = dict.fromkeys(box for boxes in asked for box in boxes)
    voted = majority(drawn, votes)
    if (voted == IGNORE_INDEX).all():
        raise MaskError("The annotators' labels leave no pixel labelled: most of them could not be read there.")
    return masks.png_bytes(voted), boxes_to_text(together) if all(task.boxes for task in read) else WHOLE_IMAGE
