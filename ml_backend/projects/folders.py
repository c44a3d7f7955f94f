"""Where a project's files are, below MODEL_DIR.

projects/<number>/model       its model versions, see `learning.checkpoints`
projects/<number>/masks       the masks that people drew
projects/<number>/strategy    what its strategies learned
"""

from __future__ import annotations

from pathlib import Path

from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.settings import Settings


def project_folder(settings: Settings, project_id: int) -> Path:
    """Return the folder of a project's masks and model versions; it need not exist."""
    return settings.model_dir / "projects" / str(project_id)


def checkpoints_of(settings: Settings, project_id: int) -> Checkpoints:
    """Return the model versions of a project."""
    return Checkpoints(project_folder(settings, project_id) / "model")
