"""The step that names files by keys: on both databases, whatever stood before a project's folder."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from ml_backend.store import Store
from ml_backend.store.database import parse
from ml_backend.store.migrate import upgrade

PATHS = {
    1: ("/srv/nextmask/projects/3/masks/1-a.png", "/srv/nextmask/projects/3/masks/1-a.npy"),
    2: ("/home/projects/3/masks/state/projects/3/masks/2-b.png", ""),  # MODEL_DIR looks like one of its own folders
    3: ("", ""),
    4: ("/data/projects/33/masks/4-d.png", ""),  # of another project: nobody wrote that
    5: ("/m.png", ""),
}
KEYS = {
    1: ("projects/3/masks/1-a.png", "projects/3/masks/1-a.npy"),
    2: ("projects/3/masks/2-b.png", ""),
    3: ("", ""),
    4: PATHS[4],
    5: PATHS[5],
}


def test_paths_of_files_become_keys(new_url: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()  # where SQLite's file will be

    engine = sa.create_engine(parse(new_url))
    with engine.begin() as connection:
        assert upgrade(connection, None, "0009")
        tasks = sa.Table("tasks", sa.MetaData(), autoload_with=connection)
        usual = {"image": "", "group_key": "", "updated_at": "", "status": "labelled", "error": "", "label_digest": ""}
        usual |= {"held_out": False, "regions": 0, "vertices": 0, "shown_version": ""}
        for task, (mask, effort) in PATHS.items():
            files = {"mask_file": mask, "effort_file": effort}
            connection.execute(sa.insert(tasks).values(project_id=3, task_id=task, **usual, **files))
    engine.dispose()
    store = Store(new_url)
    try:
        assert {task.task_id: (task.mask_file, task.effort_file) for task in store.tasks(3)} == KEYS
    finally:
        store.close()
