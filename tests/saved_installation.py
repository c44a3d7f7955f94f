"""A recorded installation: where it was, the Label Studio that it worked with, and what is in its database.

Shared by the recorder and by the test that opens what it recorded; see tests/saved_state/README.md.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from memory_studio import MemoryStudio
from wiring import Json, disc, png

RECORDED = Path(__file__).with_name("saved_state")
"""A folder for each release that was recorded."""
MODEL_DIR = Path("/srv/nextmask")
"""Where installations are recorded: the database keeps the paths of masks, and no path of a developer belongs there."""
CELLS, PARTS = 65, 66
"""Its projects: one in which whole images are labelled, one that asks for parts of them."""
SECRET = "recorded-webhook-secret"  # of no installation but the recorded ones
_KEPT = ("xml", "id", "predictions", "fields", "backends", "hooks", "tabs", "ticks")
_NOT_THERE = "/data/upload/gone.png"

Rows = dict[str, list[dict[str, Any]]]


@dataclass
class RecordedStudio(MemoryStudio):
    """Label Studio in memory with a clock that goes on; counts the images that it is asked for.

    Its images are discs, drawn anew: /data/upload/INDEX.png.
    """

    fetched: list[str] = field(default_factory=list)

    def add_missing_image(self) -> int:
        """Add a task whose image the host does not have; returns its id."""
        task_id = self.add_task(0)
        self.items[task_id]["data"]["image"] = _NOT_THERE
        return task_id

    def settled(self) -> str:
        return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    @contextmanager
    def fetch(self, reference: str) -> Iterator[Iterable[bytes]]:
        self.fetched.append(reference)
        with super().fetch(reference) as content:
            yield content

    def as_json(self) -> Json:
        return {name: getattr(self, name) for name in _KEPT} | {"items": list(self.items.values())}

    @classmethod
    def from_json(cls, kept: Json) -> RecordedStudio:
        items = {int(item["id"]): item for item in kept["items"]}
        references = {item["data"]["image"] for item in items.values()} - {_NOT_THERE}
        files = {reference: png(disc(int(Path(reference).stem))[0]) for reference in references}
        return cls(**{name: kept[name] for name in _KEPT}, items=items, files=files)


def rows_of(model_dir: Path) -> Rows:
    """Return all tables of an installation's database, read without nextmask."""
    with closing(sqlite3.connect(model_dir / "nextmask.sqlite3")) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
