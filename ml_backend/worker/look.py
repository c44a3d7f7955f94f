"""One look at a project: what all of its steps work with."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from ml_backend.annotations.label_map import LabelMap
from ml_backend.errors import NextmaskError, StoreUnavailable
from ml_backend.images.cache import ProjectImages
from ml_backend.label_studio import LabelStudio
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.projects.services import Services
from ml_backend.settings import Settings
from ml_backend.store import Project, Store
from ml_backend.system.files import Files

logger = logging.getLogger(__name__)

_STAGE_SECONDS = 0.3
"""A stage that goes on is shown a few times a second at most."""


def _nothing(*_arguments: object) -> None:
    """Do nothing: no lease to lose, nobody to supply meanwhile."""


class Look:
    """One look at one project.

    Args:
        services: with the settings of this project.
        label_map: the project's classes; the sync of this look reads them anew.
        check: raises LeaseLost when this process no longer holds the project's lease; called before every write.
        meanwhile: called with this look every few seconds while a step takes long.

    Attributes:
        is_training: whether the project's training goes on.
        undecided: ids of tasks that wait for the decision of stream mode; they belong to no pool yet.
    """

    def __init__(
        self,
        services: Services,
        project_id: int,
        label_map: LabelMap | None = None,
        *,
        check: Callable[[], None] = _nothing,
        meanwhile: Callable[[Look], None] = _nothing,
    ) -> None:
        self.services, self.project_id, self.check = services, project_id, check
        self._label_map, self._meanwhile = label_map, meanwhile
        self.undecided, self.is_training = set[int](), False
        self._shown, self._shown_at, self._is_quiet = "", 0.0, False

    # -- parts --------------------------------------------------------------------------------------------------------
    @property
    def settings(self) -> Settings:
        """Settings of the project."""
        return self.services.settings

    @property
    def store(self) -> Store:
        """The state."""
        return self.services.store

    @property
    def client(self) -> LabelStudio:
        """Label Studio."""
        return self.services.client

    @cached_property
    def device(self) -> str:
        """Where networks of the project predict during this look: of several devices, one that does not train."""
        return self.services.turns.device_for(self.project_id, avoid_trainings=True)

    @property
    def images(self) -> ProjectImages:
        """The images of the project's tasks."""
        return self.services.images_of(self.project_id)

    @property
    def checkpoints(self) -> Checkpoints:
        """The project's model versions."""
        return self.services.checkpoints(self.project_id)

    @property
    def files(self) -> Files:
        """The masks and model versions of all projects, by key."""
        return self.services.files

    @property
    def folder(self) -> Path:
        """The folder of what the project's work needs on this machine."""
        return self.services.project_folder(self.project_id)

    @property
    def made_masks(self) -> Path:
        """The folder on this machine of masks that are made for trainings; in a folder, people's are there, too."""
        return self.folder / "masks"

    @property
    def project(self) -> Project:
        """The project as the store has it now.

        Raises:
            NextmaskError: it is not there any more.
        """
        project = self.store.project(self.project_id)
        if project is None:
            raise NextmaskError(f"Project {self.project_id} was forgotten while it was worked on.")
        return project

    @property
    def label_map(self) -> LabelMap:
        """The classes of the project."""
        if self._label_map is None:
            raise RuntimeError("the labelling configuration is read by the sync, which comes first")
        return self._label_map

    @label_map.setter
    def label_map(self, label_map: LabelMap) -> None:
        self._label_map = label_map

    # -- what goes on -------------------------------------------------------------------------------------------------
    def attend(self) -> None:
        """Check the lease, and do what cannot wait for a long step to end.

        Raises:
            LeaseLost: this process must stop.
        """
        self.check()
        self._meanwhile(self)

    def stage(self, stage: str, done: int = 0, total: int = 0, *, note: str = "", ends: float | None = None) -> None:
        """Show what is going on.

        Args:
            done, total: of whatever the stage counts; 0 and 0 where it counts nothing.
            note: what is known of its result so far, in words.
            ends: when it will have ended, in seconds since the epoch; None where that is not known.
        """
        now = time.monotonic()
        is_new = stage != self._shown
        if self._is_quiet or (not is_new and done < total and now - self._shown_at < _STAGE_SECONDS):
            return
        self._shown, self._shown_at = stage, now
        state = stage if stage in {"syncing", "ranking", "publishing"} else "training"
        shown = {"stage": stage, "stage_done": done, "stage_total": total, "stage_note": note, "stage_ends": ends}
        try:
            begins = {"stage_since": self.store.time()} if is_new else {}
            self.store.update_project(self.project_id, state=state, **shown, **begins)
        except StoreUnavailable as error:  # a training goes on, whether anybody sees it or not
            logger.warning("project=%s its stage is not shown: %s", self.project_id, error)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Show no stages meanwhile: those of the step that goes on stay."""
        before, self._is_quiet = self._is_quiet, True
        try:
            yield
        finally:
            self._is_quiet = before

    def tell(self, kind: str, text: str, *, level: str = "info") -> None:
        """Add an event to the project's log."""
        self.store.add_event(self.project_id, kind, text, level=level)
