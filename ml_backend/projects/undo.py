"""What a project was like before `connect`: kept in the store, and what `disconnect` goes back to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ml_backend.store import Store


class Undo:
    """What was there before the first connect of one project, by name.

    Kept are fields of Label Studio's project, `label_config` among them where `connect` changed it, and
        all_tasks_tab: id of the tab that `connect` added because Label Studio no longer would.
        coloured_from, coloured_config: labelling configurations that the last `connect` started from and left.
    """

    def __init__(self, store: Store, project_id: int) -> None:
        self._store, self._id = store, project_id

    def values(self) -> dict[str, Any]:
        """Return what is kept; nothing where the project is not connected."""
        project = self._store.project(self._id)
        return dict(json.loads(project.undo)) if project and project.undo else {}

    def remember(self, values: Mapping[str, Any]) -> None:
        """Keep what was there; what an earlier connect kept stays."""
        self._put({**values, **self.values()})

    def remember_config(self, xml: str, changed: str) -> None:
        """Keep that `connect` turns one labelling configuration into another.

        What was there before any connect is what comes back, unless a person has changed the configuration since.
        Both are kept: a run that is killed right after this leaves the earlier one in place.
        """
        values = self.values()
        before = values["label_config"] if xml in _made_by_connect(values) else xml
        self._put({**values, "label_config": before, "coloured_from": xml, "coloured_config": changed})

    def is_made_by_connect(self, xml: object) -> bool:
        """Tell whether a labelling configuration is one that `connect` left behind, and not what was there before."""
        values = self.values()
        return xml in _made_by_connect(values) - {values.get("label_config")}

    def _put(self, values: Mapping[str, Any]) -> None:
        self._store.update_project(self._id, undo=json.dumps(values))


def _made_by_connect(values: Mapping[str, Any]) -> set[object]:
    return {values[name] for name in ("coloured_from", "coloured_config") if name in values}
