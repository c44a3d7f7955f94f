"""A simulated annotator: asks Label Studio for its next task, as a person would, and submits the true mask.

Where a task comes with rectangles of queried regions, it labels inside those, leaves the pre-annotation as it is
outside, and returns the rectangles.

What it says about time is simulated, too: looking at a task takes `LOOK_SECONDS`, drawing takes
`SECONDS_PER_EDGE` for each pixel edge on the outline of what the pre-annotation got wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.boxes import covered_pixels
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.masks import agreement, read_result, write_result
from ml_backend.annotations.query_regions import is_query, read_rectangles
from ml_backend.datasets import Mask, Truth
from ml_backend.errors import LabelStudioError, LabelStudioRefused, LabelStudioUnavailable, NextmaskError
from ml_backend.label_studio import LabelStudio

LOOK_SECONDS = 4.0
SECONDS_PER_EDGE = 0.02
FAILURES_TO_STOP = 3


@dataclass(frozen=True)
class Submission:
    """What became of one task.

    Attributes:
        task: id.
        image: as the task refers to it.
        agreement: mean IoU between the pre-annotation and the true mask; None without a pre-annotation.
        seconds: wall-clock time from asking for the task to the answer to its submission.
        lead_time: simulated drawing time in seconds, as submitted; None when nothing was submitted.
        error: why nothing was submitted; empty otherwise.
    """

    task: int
    image: str
    agreement: float | None
    seconds: float
    lead_time: float | None
    error: str = ""


class SimulatedAnnotator:
    """Knows the true masks and labels what Label Studio serves.

    Pixels that are unlabelled in a true mask are not painted: the project's label map says what that means.
    """

    def __init__(self, client: LabelStudio, project_id: int, truth: Truth, label_map: LabelMap) -> None:
        """Remembers where to work; annotations are made by the client's user."""
        self._client, self._project_id, self._truth, self._label_map = client, project_id, truth, label_map

    def annotate(self, count: int, progress: Callable[[Submission], None] | None = None) -> list[Submission]:
        """Labels up to `count` tasks; ends early when Label Studio has no task left.

        A task that fails counts, is reported with its error, and is skipped in Label Studio, which would serve it
        again otherwise; a task whose failure lies with Label Studio is not skipped.

        Args:
            count: how many tasks to ask for.
            progress: called after each task.

        Raises:
            NextmaskError: no task could be asked for, or three tasks in a row failed for the same reason.
        """
        submissions: list[Submission] = []
        failures: list[NextmaskError] = []
        for _ in range(count):
            begin = time.monotonic()
            task = self._client.next_task(self._project_id)
            if task is None:
                break
            try:
                submission = self._label(task, begin)
                failures.clear()
            except NextmaskError as error:
                submission = Submission(
                    task["id"], self._image(task), None, time.monotonic() - begin, None, error=str(error)
                )
                failures = [*(earlier for earlier in failures if _same_cause(earlier, error)), error]
                self._skip(task["id"], error)
            submissions.append(submission)
            if progress is not None:
                progress(submission)
            if len(failures) == FAILURES_TO_STOP:
                raise failures[-1]
        return submissions

    def _label(self, task: Mapping[str, Any], begin: float) -> Submission:
        """Submits the true mask of one task."""
        image = self._image(task)
        true_mask = self._truth.read(self._truth.find(image), self._label_map)
        prediction = next(iter(task.get("predictions") or ()), None)  # the editor starts from the first, too
        shown_regions = [] if prediction is None else list(prediction["result"])
        before = self._pre_annotation(shown_regions, true_mask)
        asked = self._asked(shown_regions, true_mask)
        submitted = np.where(asked, true_mask, before).astype(np.uint8)
        true_mask = np.where(asked, true_mask, IGNORE_INDEX).astype(np.uint8)
        lead_time = drawing_seconds(before, true_mask)
        self._client.submit_annotation(
            task["id"],
            self._result(submitted, shown_regions),
            lead_time,
            draft_id=0,
            parent_prediction=None if prediction is None else prediction["id"],
        )
        score = agreement(before, true_mask, len(self._label_map.classes)) if shown_regions else None
        return Submission(task["id"], image, score, time.monotonic() - begin, lead_time)

    def _pre_annotation(self, shown: Sequence[Mapping[str, Any]], true_mask: Mask) -> Mask:
        """Returns the mask (H, W) that the annotator starts from; nothing painted without a prediction."""
        height, width = true_mask.shape
        return read_result(shown, self._label_map, size=(height, width)).mask

    def _asked(self, shown: Sequence[Mapping[str, Any]], true_mask: Mask) -> NDArray[np.bool_]:
        """Returns (H, W) bool, what is to be labelled: inside of the rectangles, everything where there are none."""
        height, width = true_mask.shape
        boxes = read_rectangles(shown, self._label_map, (height, width)).boxes
        return covered_pixels(boxes, (height, width)) if boxes else np.ones((height, width), dtype=np.bool_)

    def _result(self, mask: Mask, shown: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns the regions of a mask as the editor would submit them, and the rectangles that were shown."""
        regions = write_result(mask, self._label_map, minimum_area=0)
        rectangles = [region for region in shown if is_query(region, self._label_map)]
        return [
            *({**region, "origin": _origin(region, shown)} for region in regions),
            *({**region, "origin": "prediction"} for region in rectangles),
        ]

    def _image(self, task: Mapping[str, Any]) -> str:
        return self._label_map.image_reference(task["data"]) or ""

    def _skip(self, task_id: int, error: NextmaskError) -> None:
        """Skips a task that cannot be labelled; when that fails as well, Label Studio serves it again."""
        if isinstance(error, (LabelStudioUnavailable, LabelStudioRefused)):
            return
        try:
            self._client.skip_task(task_id)
        except LabelStudioError:
            return  # the next failure tells: it has the same cause, and the third failure stops the run


def _origin(region: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the editor says of a region: as it was predicted, changed since, or drawn."""
    if any(other.get("value") == region["value"] for other in shown):
        return "prediction"
    return "prediction-changed" if any(other.get("id") == region["id"] for other in shown) else "manual"


def drawing_seconds(before: Mask, after: Mask) -> float:
    """Returns the simulated time to turn one mask (H, W) into another: looking, and tracing what was wrong."""
    wrong = (before != after) & (after != IGNORE_INDEX)
    outline = sum(int(np.count_nonzero(np.diff(wrong, axis=axis))) for axis in (0, 1))
    return round(LOOK_SECONDS + SECONDS_PER_EDGE * outline, 2)


def _same_cause(first: NextmaskError, second: NextmaskError) -> bool:
    """Returns whether two tasks failed alike: messages differ in ids and file names."""
    return type(first) is type(second) and getattr(first, "status", None) == getattr(second, "status", None)
