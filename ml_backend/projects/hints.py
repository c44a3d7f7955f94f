"""What would make more of a project's labelling configuration: connect, status and doctor say the same."""

from __future__ import annotations

from ml_backend.annotations.label_map import POINTS_CONTROL, LabelMap, label_map_of
from ml_backend.annotations.shortcomings import Shortcoming, shortcomings
from ml_backend.errors import LabelConfigError
from ml_backend.settings import Settings
from strategies import catalogue


def hints(xml: str, settings: Settings, project_id: int) -> list[Shortcoming]:
    """Return what is to be told of a labelling configuration; nothing where it cannot be read, which is an error.

    Args:
        xml: the project's `label_config`; empty where it was not read yet.
        settings: of the project.
    """
    try:
        label_map = label_map_of(xml, settings)
    except LabelConfigError:
        return []
    questions = question_hint(label_map, settings, project_id)
    return [*shortcomings(xml, label_map), *([questions] if questions else [])]


def question_hint(label_map: LabelMap, settings: Settings, project_id: int) -> Shortcoming | None:
    """Say that regions or points are asked for and cannot be shown; None where they can, or are not asked for."""
    strategy = catalogue.described(settings.strategy)
    remedy = f"To add it: nextmask connect {project_id} --add-query-control"
    if strategy.without_points and label_map.points_control is None:
        return Shortcoming(
            f"The labelling configuration has no control {POINTS_CONTROL!r}, so strategy {settings.strategy} asks for"
            " whole masks alone. With it, it asks for a few points of an image wherever these teach more per click.",
            remedy,
        )
    if strategy.asks_for_regions and label_map.query_control is None:
        what, control = "regions", settings.query_control
    elif strategy.asks_for_points and label_map.points_control is None:
        what, control = "points", POINTS_CONTROL
    else:
        return None
    return Shortcoming(
        f"Strategy {settings.strategy} asks for {what}, but the labelling configuration has no control {control!r} to"
        " show them, so whole images are asked for.",
        remedy,
    )
