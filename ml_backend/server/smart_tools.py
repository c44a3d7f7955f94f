"""What a smart tool is answered with: clicks and boxes of a person in, the regions that they ask for out.

    prompts and what the editor holds   annotations/prompts, annotations/drafts
    the mask that agrees with prompts   learning/refinement, by `refiners`
    the regions                         annotations/suggestions

An editor that accepts a suggestion forgets its prompts, and Label Studio learns of it up to five seconds later. So what
was suggested and asked last is remembered here for each task, and laid over what Label Studio knows.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations.drafts import Held, held
from ml_backend.annotations.label_map import LabelMap, label_map_of
from ml_backend.annotations.prompts import DrawnPrompt, read_prompts
from ml_backend.annotations.suggestions import Drawn, mended, write_suggestion
from ml_backend.errors import ImageError, NextmaskError, first_few
from ml_backend.images.references import as_imported, in_project
from ml_backend.projects.services import Services
from ml_backend.projects.settings import project_settings
from ml_backend.server.refiners import Refiners, ServingRefiner
from ml_backend.settings import Settings
from ml_backend.store import Project

_KINDS: Final = frozenset(("keypoint", "keypointlabels", "rectangle", "rectanglelabels"))
_TASKS: Final = 256
"""Tasks whose last prompts are remembered."""
_EARLIER: Final = 60
"""Clicks on a task that are remembered, the newest."""
_MOST: Final = 400
"""Prompts of a request that are looked at, the newest: nobody clicks that often before accepting."""
_UNSAVED_SECONDS: Final = 30.0
"""An editor saves a draft within five seconds: a suggestion that is in none after so long was not accepted."""


@dataclass(frozen=True)
class Suggestion:
    """What a smart tool is answered with.

    Attributes:
        problem: why there is none, or what of the request was left out; empty when nothing was.
    """

    regions: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


@dataclass
class _Memory:
    """What was asked and suggested last of a task.

    Attributes:
        clicks: by their ids, the newest last.
        asked: ids of the prompts of the last request.
        suggested: regions of its answer. accepted: those of answers before, by their ids, that no draft has yet.
        stamp: of the newest draft at that time.
        at: when that was, on the monotonic clock.
    """

    clicks: dict[str, DrawnPrompt] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    suggested: list[dict[str, Any]] = field(default_factory=list)
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    stamp: str = ""
    at: float = 0.0

    def drawn(self, held: Held, ids: frozenset[str], now: float) -> list[Any]:
        """Return the regions that the editor holds: those that are known, and what was accepted since.

        An editor that sends new prompts without those before has accepted what these brought about, or refused it; the
        next draft tells. A draft that has these prompts is older than that.
        """
        is_newer = held.stamp != self.stamp and self.asked.isdisjoint(held.ids)
        if is_newer or now - self.at > _UNSAVED_SECONDS:
            self.accepted, self.suggested = {}, []
        elif ids.isdisjoint(self.asked):
            self.accepted.update((region["id"], region) for region in self.suggested)
        regions = {str(region.get("id")): region for region in held.result if isinstance(region, Mapping)}
        return list((regions | self.accepted).values())

    def earlier(self, drawn: Drawn, ids: frozenset[str]) -> list[DrawnPrompt]:
        """Return the clicks before, as long as what is drawn agrees with them: others were refused, or drawn over."""
        seen = {index: drawn.seen(index) for index in {click.index for click in self.clicks.values()}}
        return [
            click
            for name, click in self.clicks.items()
            if name not in ids and bool(seen[click.index][click.box.slices].all()) == click.is_positive
        ]

    def note(
        self, held: Held, prompts: Sequence[DrawnPrompt], earlier: Sequence[DrawnPrompt], regions: list[dict[str, Any]]
    ) -> None:
        """Remember a request and its answer."""
        clicks = [click for click in (*earlier, *prompts) if click.box.is_point]
        self.clicks = {click.id: click for click in clicks[-_EARLIER:]}
        self.asked, self.suggested = frozenset(prompt.id for prompt in prompts), regions
        self.stamp, self.at = held.stamp, time.monotonic()


class SmartTools:
    """Answers the smart tools of all projects; safe to use from many threads.

    Attributes:
        used_at: when a person clicked last, on the monotonic clock; 0.0: never.
    """

    def __init__(self, services: Services) -> None:
        self._services, self._refiners = services, Refiners(services)
        self._lock = threading.Lock()
        self._memories: OrderedDict[tuple[int, str], _Memory] = OrderedDict()
        self.used_at = 0.0

    def answer(
        self, project: Project, task: Mapping[str, Any], context: object, label_config: str | None = None
    ) -> Suggestion:
        """Return the suggestion for what a person drew on a task, or why there is none.

        Args:
            task: Label Studio's, with drafts, annotations and predictions.
            context: with `result`; or with `event`, which asks for no suggestion.
            label_config: of the project; without it, the one that the store knows.

        Raises:
            MemoryError, RuntimeError: where the memory does not suffice.
        """
        self.used_at = time.monotonic()
        result = prompts_in(context)
        try:
            settings, _ = project_settings(self._services.settings, self._services.store, project)
            label_map = label_map_of(label_config or project.label_config, settings)
            if result is not None:
                return self._suggestion(project, task, result, settings, label_map)
            event = context.get("event") if isinstance(context, Mapping) else None
            if event == "prewarm":
                problems = self.prepare(project, [_reference(task, label_map)], settings, label_map)
                return Suggestion(problem="; ".join(problems.values()))
            if event == "release":
                self._forget(project, task)
        except NextmaskError as error:
            return Suggestion(problem=str(error))
        return Suggestion()

    def together(self, project: Project, settings: Settings, label_map: LabelMap) -> int:
        """Return how many images of a project are best prepared at a time; errors as in `prepare`."""
        return self._refiners.of(project, settings, label_map).refiner.together

    def prepare(
        self, project: Project, references: Sequence[str], settings: Settings, label_map: LabelMap
    ) -> dict[str, str]:
        """Compute what the first click on images will need, and keep it.

        Returns:
            Why images could not be prepared, by their references.

        Raises:
            CheckpointError, ConfigurationError: there is no network for it, or the memory does not suffice.
        """
        images, problems = dict[str, NDArray[np.uint8]](), dict[str, str]()
        for reference in references:
            try:
                images[in_project(reference, project.id)] = self._services.images_of(project.id).load(reference)
            except ImageError as error:
                problems[reference] = str(error)
        if images:
            self._refiners.of(project, settings, label_map).refiner.prepare(images)
        return problems

    def release(self) -> None:
        """Give back the memory of all that is kept of images."""
        self._refiners.release()

    def _suggestion(
        self,
        project: Project,
        task: Mapping[str, Any],
        result: Sequence[object],
        settings: Settings,
        label_map: LabelMap,
    ) -> Suggestion:
        reference = _reference(task, label_map)
        image = self._services.images_of(project.id).load(reference)
        size = (image.shape[0], image.shape[1])
        prompts, problems = read_prompts(result[-_MOST:], label_map, size)
        if not prompts:
            return Suggestion(problem="; ".join(first_few(problems)))
        index, ids = prompts[-1].index, frozenset(prompt.id for prompt in prompts)
        if label_map.writer_of(index) is None:
            return Suggestion(
                problem=f"{label_map.classes[index]!r} cannot be suggested: masks are written with BrushLabels, "
                "BitmaskLabels or PolygonLabels, and none of them has that label"
            )
        serving = self._refiners.of(project, settings, label_map)
        editor = held(task, ids, project.published_version or "")
        memory = self._memory(project, task)
        with self._lock:
            regions = memory.drawn(editor, ids, time.monotonic())
        drawn = Drawn(regions, label_map, size)
        earlier = memory.earlier(drawn, ids)
        new = [prompt for prompt in prompts if prompt.index == index]
        target, seen = serving.target(label_map, index), drawn.seen(index)
        asked = [_as_asked(prompt, serving, label_map) for prompt in (*earlier, *prompts)]
        mask = serving.refiner.refine(image, in_project(reference, project.id), target, asked, seen)
        regions = write_suggestion(
            mended(mask, seen, new),
            index,
            drawn,
            label_map,
            new,
            minimum_area=settings.minimum_area,
            tolerance=settings.polygon_tolerance,
        )
        with self._lock:
            memory.note(editor, prompts, earlier, regions)
        told = [serving.problem] if serving.problem else []
        return Suggestion(regions, "; ".join(first_few([*told, *problems])))

    def _memory(self, project: Project, task: Mapping[str, Any]) -> _Memory:
        key = (project.id, str(task.get("id")))
        with self._lock:
            memory = self._memories.setdefault(key, _Memory())
            self._memories.move_to_end(key)
            while len(self._memories) > _TASKS:
                self._memories.popitem(last=False)
            return memory

    def _forget(self, project: Project, task: Mapping[str, Any]) -> None:
        with self._lock:
            self._memories.pop((project.id, str(task.get("id"))), None)


def is_about_smart_tools(context: object) -> bool:
    """Whether a request comes from a smart tool: with clicks or boxes, with none that are left, or with an event.

    Strokes of a smart brush ask for nothing that they could say; they are answered as any other request is.
    """
    if not isinstance(context, Mapping):
        return False
    return prompts_in(context) is not None or (context.get("event") is not None and not context.get("result"))


def prompts_in(context: object) -> list[object] | None:
    """Return the regions of a request that has clicks or boxes, or none at all; None for any other request."""
    result = context.get("result") if isinstance(context, Mapping) else None
    if not isinstance(result, list) or (not result and isinstance(context, Mapping) and context.get("event")):
        return None
    kinds = {str(region.get("type")) for region in result if isinstance(region, Mapping)}
    return result if not result or kinds & _KINDS else None


def _reference(task: Mapping[str, Any], label_map: LabelMap) -> str:
    """Return the image of a task as it was imported.

    Raises:
        ImageError: it has none.
    """
    data = task.get("data")
    reference = label_map.image_reference(data) if isinstance(data, Mapping) else None
    if not reference:
        raise ImageError(f"The task's data has no image under {label_map.image_variable!r}.")
    return as_imported(reference)


def _as_asked(prompt: DrawnPrompt, serving: ServingRefiner, label_map: LabelMap) -> Any:
    """Return a prompt as refiners take it."""
    from ml_backend.learning.refinement.prompts import Prompt  # takes torch with it

    box = prompt.box
    target = serving.target(label_map, prompt.index)
    return Prompt(target, prompt.is_positive, box.top, box.left, box.top + box.height, box.left + box.width)
