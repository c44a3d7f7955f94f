"""What keeps a project from being measured, or from being trained: status, dashboard and doctor say the same."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.annotations.shortcomings import Shortcoming
from ml_backend.projects.audit import AuditCounts
from ml_backend.settings import Settings


def audit_hints(counts: AuditCounts | None, settings: Settings) -> list[Shortcoming]:
    """Return what is to be told of an audit set; nothing before the first look, or where all is well.

    Args:
        settings: of the project.
    """
    if settings.audit_share == 0:
        return [
            Shortcoming(
                "No image measures (NEXTMASK_AUDIT_SHARE = 0): there is no learning curve and no advice, and a version"
                " that is worse serves like any other.",
                "Set it to 0.125, the default, for one image in eight.",
            )
        ]
    return list(_found(counts, settings)) if counts and counts.groups else []


def _found(counts: AuditCounts, settings: Settings) -> Iterator[Shortcoming]:
    labels = counts.labels + counts.training
    if counts.groups == 1:
        yield from _one_group(settings)
    elif not counts.measuring:
        yield Shortcoming(
            f"None of the {counts.groups} {_groups(settings)} measures: each has a label that trained, or that was"
            " made over a predicted mask.",
            f"Import {_groups(settings)} that nobody labelled yet: some are drawn of them.",
        )
    elif counts.measuring == counts.groups:
        yield Shortcoming(
            f"All {counts.groups} {_groups(settings)} measure, so nothing trains.",
            f"Lower NEXTMASK_AUDIT_SHARE, which is {settings.audit_share:g}, or import more {_groups(settings)}.",
        )
    elif labels and not counts.training:
        number = "The only label is" if labels == 1 else f"All {labels} labels are"
        yield Shortcoming(
            f"{number} of an audit image, which measures and does not train.",
            "Label on in the order of the queue: most of it trains.",
        )
    if counts.images and counts.skipped == counts.images:
        number = "The only audit image was" if counts.images == 1 else f"All {counts.images} audit images were"
        yield Shortcoming(
            f"{number} skipped, so nothing measures.",
            "Cancel the skip of those that can be judged, or raise NEXTMASK_AUDIT_SHARE, which draws others.",
        )


def _one_group(settings: Settings) -> Iterator[Shortcoming]:
    if settings.audit_group:
        yield Shortcoming(
            f"All tasks have the same {settings.audit_group!r} (NEXTMASK_AUDIT_GROUP), so none is left to measure.",
            "Import tasks of others, name another key, or leave the setting empty: then each image is by itself.",
        )
    else:
        yield Shortcoming("All tasks show the same image, so none is left to measure.", "Import others.")


def _groups(settings: Settings) -> str:
    return f"groups of {settings.audit_group!r}" if settings.audit_group else "images"
