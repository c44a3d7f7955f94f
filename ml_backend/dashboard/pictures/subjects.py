"""What a picture is of: one task of a connected project, with what is needed to draw it."""

from __future__ import annotations

from dataclasses import dataclass

from ml_backend.annotations.config_edits import Colour
from ml_backend.annotations.label_map import LabelMap, label_map_of
from ml_backend.dashboard.pictures.colours import class_colours, hex_colour
from ml_backend.dashboard.pictures.drawing import SIDE
from ml_backend.errors import LabelConfigError, NextmaskError
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.settings import project_settings
from ml_backend.settings import Settings
from ml_backend.store import Project, Store, Task


class NoPicture(NextmaskError):
    """There is nothing to draw; the message says why, for people who look at the page."""


@dataclass(frozen=True)
class Labels:
    """The classes of a project as pictures show them.

    Attributes:
        label_map: the classes. colours: (red, green, blue) of each, by class index.
    """

    label_map: LabelMap
    colours: tuple[Colour, ...]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Name and colour, as web pages write it, of each class that masks show."""
        painted = enumerate(zip(self.label_map.classes, self.colours, strict=True))
        return [
            (name, hex_colour(colour)) for index, (name, colour) in painted if index != self.label_map.unpainted_index
        ]

    @property
    def colour_by_name(self) -> dict[str, Colour]:
        """The colour of each class by its name."""
        return dict(zip(self.label_map.classes, self.colours, strict=True))

    @property
    def key(self) -> str:
        """A text that changes when masks look different."""
        return f"{self.label_map.training_digest}{self.colours}"


@dataclass(frozen=True)
class Subject:
    """A task, its project, the project's settings and its classes.

    Attributes:
        side: longest side of the pictures, in pixels.
    """

    project: Project
    settings: Settings
    labels: Labels
    task: Task
    side: int = SIDE


class Subjects:
    """Looks up the subjects of pictures by their ids."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings, self._store = settings, store

    def find(self, project_id: int, task_id: int, side: int = SIDE) -> Subject | None:
        """Return a task of a connected project; None where there is none of these ids.

        Raises:
            NoPicture: the project's labelling configuration cannot be read.
        """
        project = self._store.project(project_id)
        task = self._store.task(project_id, task_id)
        if project is None or not project.managed or task is None:
            return None
        settings, _ = project_settings(self._settings, self._store, project)
        return Subject(project, settings, labels_of(project, settings), task, side)


def labels_of(project: Project, settings: Settings) -> Labels:
    """Return the classes of a project, with their colours.

    Raises:
        NoPicture: its labelling configuration cannot be read, or has not been read yet.
    """
    if not project.label_config:
        raise NoPicture("The worker has not read the project's labelling configuration yet.")
    try:
        label_map = label_map_of(project.label_config, settings)
        return Labels(label_map, class_colours(project.label_config, label_map))
    except LabelConfigError as error:
        raise NoPicture(f"The project's labels cannot be shown: {error}.") from error


def serving_number(project: Project) -> int:
    """Return the number of the version that predicts what annotators see; 0 before the first."""
    return model_number(project.published_version)


def ranking_number(project: Project) -> int:
    """Return the number of the version that the stored ranking was made with; 0 where it was made without one."""
    return model_number(project.ranking_version)
