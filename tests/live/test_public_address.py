"""Label Studio under two names: people open its public address with a path prefix, nextmask has an inner one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_fixtures import nextmasks
from prepared_studio import Account, host_on
from steps import label, predictions
from studio_client import StudioClient
from support import Studio

from ml_backend.datasets import Dataset, label_config
from ml_backend.images.decoding import load_image

pytestmark = pytest.mark.live

PUBLIC = "https://labels.example.org/label-studio"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files Label Studio may serve; its own data are in it."""
    return tmp_path_factory.mktemp("named-label-studio")


@pytest.fixture(scope="module")
def named_studio(label_studio_command: Path, first_starts: Path, root: Path) -> Iterator[Studio]:
    account = Account()
    host_on(label_studio_command, root / "data", first_starts, account=account)  # copies the data of a first start
    named = {"LABEL_STUDIO_HOST": PUBLIC}
    host = host_on(label_studio_command, root / "data", first_starts, account=account, environment=named)
    with host.running():
        yield Studio(host.url, account.token, account.user, account.password)


@pytest.fixture
def pictures(root: Path, shapes: Dataset) -> Path:
    """A folder of images that Label Studio may serve as local files."""
    folder = root / "pictures"
    folder.mkdir()
    for sample in shapes.splits["train"][20:24]:
        shutil.copy(sample.image, folder / sample.image.name)
    return folder


def test_uploads_and_local_files_are_trained_on_and_predicted(
    named_studio: Studio, pictures: Path, shapes: Dataset, tmp_path: Path
) -> None:
    client = StudioClient(named_studio.url, named_studio.token)
    project = int(client.create_project(title="two names", label_config=label_config(shapes, "BrushLabels"))["id"])
    uploaded = client.upload_images(project, [sample.image for sample in shapes.splits["train"][:6]])
    storage = client.transport.json(
        "POST", "/api/storages/localfiles", json={"project": project, "path": str(pictures), "use_blob_urls": True}
    )
    client.transport.json("POST", f"/api/storages/localfiles/{storage['id']}/sync", json={})
    local = sorted(set(client.task_ids(project)) - set(uploaded))
    assert len(local) == 4
    references = {task["id"]: next(iter(task["data"].values())) for task in client.some_tasks(project, 20)}
    assert all(references[task].startswith("/label-studio/data/upload/") for task in uploaded)
    assert all(references[task].startswith(f"{PUBLIC}/data/local-files/?d=") for task in local)

    with nextmasks(named_studio, tmp_path) as make:
        nextmask = make()  # nothing is set: Label Studio tells its public address when it calls /setup
        nextmask.connect(project)
        label(client, project, shapes, [*uploaded[:3], local[0]])
        status = nextmask.wait_for_version(project, 1)
        assert status.errors == {}
        assert (status.labels, status.pool, status.queue) == (4, 6, 6)
        rows = {row["task"]: row for row in predictions(client, project, status.version)}
        assert rows.keys() == {*uploaded[3:], *local[1:]}
        assert all(row["result"] for row in rows.values())
        images = nextmask.services.images_of(project)
        for task, sample in zip(
            local, sorted(shapes.splits["train"][20:24], key=lambda one: one.image.name), strict=True
        ):
            assert references[task].endswith(sample.image.name)
            assert (images.load(references[task]) == load_image(sample.image)).all()
