"""Which refiner answers the clicks of a project: SAM 2 where a team has it, which answers those of all projects.

Else one on the version that serves the project, one for each, kept in memory. So too while SAM 2 cannot be used.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ml_backend.annotations.label_map import LabelMap
from ml_backend.errors import ConfigurationError
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.services import Services
from ml_backend.projects.serving import serving_predictor
from ml_backend.settings import Settings
from ml_backend.store import Project

if TYPE_CHECKING:
    from ml_backend.learning.refinement.refiner import Refiner

logger = logging.getLogger(__name__)

_CAPACITY: Final = 4
"""Projects whose refiner is kept: as many as predictors are."""


@dataclass(frozen=True)
class ServingRefiner:
    """A refiner and what its classes are called.

    Attributes:
        classes: that its network has learned; none before the first training, and of SAM 2.
        problem: why it stands in for SAM 2; empty where it does not.
    """

    refiner: Refiner[Any]
    classes: tuple[str, ...] = ()
    problem: str = ""

    def target(self, label_map: LabelMap, index: int) -> int:
        """Return a class of the label map as the refiner counts; beyond all of its own where it does not know it."""
        known = (number for number, name in enumerate(self.classes) if label_map.index_of(name) == index)
        return next(known, len(self.classes) + index)


class Refiners:
    """The refiners of the projects that were asked for last, each made once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._sam = _Sam(services.settings) if services.settings.sam else None
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, tuple[object, ServingRefiner]] = OrderedDict()

    def of(self, project: Project, settings: Settings, label_map: LabelMap) -> ServingRefiner:
        """Return the refiner of a project.

        Args:
            settings: of the project.
            label_map: whose classes a network has before the first training; it learned none of them.

        Raises:
            CheckpointError: no version can be loaded.
            ConfigurationError: the network cannot be built as configured, or the device is not available here.
        """
        sam, problem = self._sam.refiner() if self._sam else (None, "")
        if sam is not None:
            return ServingRefiner(sam)
        return replace(self._of_project(project, settings, label_map), problem=problem)

    def _of_project(self, project: Project, settings: Settings, label_map: LabelMap) -> ServingRefiner:
        number = model_number(project.published_version)
        network = settings.architecture, settings.encoder, settings.encoder_weights, settings.input_size
        key = (number, () if number else (network, len(label_map.classes)))
        with self._lock:
            kept = self._kept.get(project.id)
            if kept is None or kept[0] != key:
                self._kept.pop(project.id, None)  # its maps leave before the next ones come
                kept = self._kept[project.id] = (key, self._made(project.id, number, settings, label_map.classes))
            self._kept.move_to_end(project.id)
            while len(self._kept) > _CAPACITY:
                self._kept.popitem(last=False)
            return kept[1]

    def release(self) -> None:
        """Give back the memory of all that is kept of images."""
        with self._lock:
            kept = list(self._kept.values())
        for _, serving in kept:
            serving.refiner.release()
        if self._sam is not None:
            self._sam.release()

    def _made(self, project_id: int, number: int | None, settings: Settings, classes: Sequence[str]) -> ServingRefiner:
        from ml_backend.learning.refinement.features import FeatureRefiner  # takes torch with it

        if number:
            predictor = serving_predictor(self._services, project_id, number)
            return ServingRefiner(FeatureRefiner(predictor), tuple(predictor.classes))
        from ml_backend.learning.prediction.predictors import fresh_predictor

        return ServingRefiner(FeatureRefiner(fresh_predictor(settings, classes), is_trained=False))


class _Sam:
    """SAM 2, loaded when the first click asks for it; what could not be loaded is tried again when its files change."""

    def __init__(self, settings: Settings) -> None:
        self._path, self._device = settings.sam, settings.device
        self._lock = threading.Lock()
        self._refiner: Refiner[Any] | None = None
        self._problem = ""
        self._tried: tuple[tuple[str, int, int], ...] | None = None

    def refiner(self) -> tuple[Refiner[Any] | None, str]:
        """Return the refiner on SAM 2; or None, and why there is none."""
        from ml_backend.learning.refinement.sam_files import signature

        with self._lock:
            if self._refiner is None and (found := signature(self._path)) != self._tried:
                self._tried = found
                self._load()
            return self._refiner, self._problem

    def release(self) -> None:
        """Give back the memory of all that is kept of images."""
        if self._refiner is not None:
            self._refiner.release()

    def _load(self) -> None:
        from ml_backend.learning.networks import resolve_device
        from ml_backend.learning.refinement.sam import SamRefiner
        from ml_backend.learning.refinement.sam_network import load_sam

        try:
            self._refiner = SamRefiner(load_sam(self._path, resolve_device(self._device)))
        except ConfigurationError as error:
            self._problem = f"{error} Until then the project's own network answers clicks."
            logger.warning("%s", self._problem)
            return
        self._problem = ""
        logger.info("SAM 2 of %s answers clicks", self._path)
