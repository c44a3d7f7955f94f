"""Where a project's files are, below MODEL_DIR.

projects/<number>/model       its model versions, see `learning.checkpoints`
projects/<number>/masks       the masks that people drew
projects/<number>/strategy    what its strategies learned

The version that serves is named in the state database, which all processes of all machines see at once.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ml_backend.errors import DiskFull
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.checkpoints.pointer import CURRENT, PointerFile
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.system.bucket import Bucket
from ml_backend.system.files import Files, Folder, is_number


def files_of(settings: Settings) -> Files:
    """Return the files of an installation, by key."""
    if isinstance(settings.model_dir, Path):
        return Folder(settings.model_dir)
    return Bucket(settings.model_dir, settings.local_folder / "files", settings.files_bytes)


def try_out(settings: Settings) -> None:
    """Write, list, read and remove a small object where MODEL_DIR is a bucket.

    Raises:
        FilesUnavailable: one of these cannot be done.
    """
    files = files_of(settings)
    if isinstance(files, Bucket):
        files.try_out()


def project_folder(settings: Settings, project_id: int) -> Path:
    """Return the folder of what a project's work needs on this machine; it need not exist."""
    return settings.local_folder / project_key(project_id)


def project_key(project_id: int) -> str:
    """Return the key that those of a project's files begin with."""
    return f"projects/{project_id}"


def masks_key(project_id: int) -> str:
    """Return the folder, as a key, of the masks that people drew and of the effort that they took."""
    return f"{project_key(project_id)}/masks"


def checkpoints_of(settings: Settings, store: Store, project_id: int) -> Checkpoints:
    """Return the model versions of a project."""
    files = files_of(settings).below(f"{project_key(project_id)}/model")
    return Checkpoints(files, ServingPointer(store, project_id, files))


class ServingPointer:
    """The number of the version that serves a project, in the state database.

    Installations of 0.1 have it in a file: that is read once, moved to the database, and removed.

    Args:
        files: of the project's model.
    """

    def __init__(self, store: Store, project_id: int, files: Files) -> None:
        self._store, self._files, self._key = store, files, f"serving_{project_id}"

    def get(self) -> str:
        """Return what was set last; empty before the first time."""
        kept = self._store.value(self._key)
        return self._moved_over() if kept is None else kept

    def set(self, number: int) -> None:
        """Let a version serve."""
        self._store.set_value(self._key, str(number))
        self._forget_file()

    def _moved_over(self) -> str:
        earlier = PointerFile(self._files).get()
        if not earlier:  # there is none, or another process has just moved it
            return self._store.value(self._key) or ""
        if is_number(earlier):  # what cannot be read now may be readable the next time
            with suppress(DiskFull):  # the next one does it
                earlier = self._store.set_default(self._key, earlier)
                self._forget_file()
        return earlier

    def _forget_file(self) -> None:
        with suppress(OSError):
            self._files.remove(CURRENT)
