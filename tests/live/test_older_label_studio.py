"""A real Label Studio before the oldest release that nextmask is tested with: doctor says so, and it is worked with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_fixtures import nextmasks
from support import Studio

from ml_backend.datasets import Dataset, label_config
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

RELEASE = "1.21.0"


def test_doctor_names_the_release_and_the_loop_works(older_studio: Studio, shapes: Dataset, tmp_path: Path) -> None:
    with nextmasks(older_studio, tmp_path) as make:
        nextmask = make()
        client = LabelStudio(older_studio.url, older_studio.token)
        project = int(client.create_project(title="older", label_config=label_config(shapes, "BrushLabels"))["id"])
        client.upload_images(project, [one.image for one in shapes.splits["train"][:10]])
        nextmask.connect(project)
        nextmask.wait_settled(project)
        assert len(nextmask.annotate(project, shapes, 4)) == 4
        status = nextmask.wait_for_version(project, 1)
        assert (status.labels, status.trained_labels, status.queue) == (4, 4, 6)

        done = subprocess.run(
            [sys.executable, "-m", "ml_backend", "doctor", str(project)],
            env={**os.environ, **nextmask.settings.environment()},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert f"Label Studio {RELEASE}" in done.stdout
        assert "pip install -U label-studio==1.23.2" in done.stdout
        assert done.returncode == 0, done.stdout
