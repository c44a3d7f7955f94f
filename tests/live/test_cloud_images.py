"""Images in an S3 bucket that a real Label Studio is connected to: signed by it, or passed on by it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from object_store import ObjectStore
from processes import wait_for
from steps import label, predictions
from support import Nextmask, Studio

from ml_backend.datasets import Dataset
from ml_backend.errors import ImageError
from ml_backend.images.hosts import ImageHosts
from ml_backend.images.references import in_project
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.audit import AuditSet

pytestmark = pytest.mark.live

BUCKET = "nextmask-images"
IMAGES = 8
# The host cuts a key at a question mark, in both ways of giving files out (seen in 1.23.2).
ODD_KEYS = ("with space.png", "ümläut/猫.png", "a+b&c=d.png", "percent%20.png", "hash#tag.png", "quote'\".png")
SIGNATURES = ("Signature", "AKIANEXTMASK", "5ec2e7")


@pytest.fixture(scope="module")
def filled(s3: ObjectStore, shapes: Dataset) -> str:
    """The server with images in its bucket, under plain keys and under odd ones."""
    s3.make_bucket(BUCKET)
    files = [sample.image for sample in shapes.splits["train"][:IMAGES]]
    keys = {f"folder/{file.name}": file.read_bytes() for file in files}
    keys |= {key: f"content of {key}".encode() for key in ODD_KEYS}
    for key, content in keys.items():
        assert requests.put(f"{s3.url}/{BUCKET}/{quote(key)}", data=content, timeout=30).ok
    return s3.url


def connect_storage(client: LabelStudio, project: int, url: str, *, presign: bool) -> int:
    fields = {
        **{"project": project, "bucket": BUCKET, "s3_endpoint": url, "region_name": "us-east-1", "title": "bucket"},
        **{"aws_access_key_id": "AKIANEXTMASK", "aws_secret_access_key": "5ec2e7"},
        **{"prefix": "folder", "use_blob_urls": True, "presign": presign},
    }
    return int(client.transport.json("POST", "/api/storages/s3/", json=fields)["id"])


def fetched(client: LabelStudio, reference: str) -> bytes:
    with client.fetch(reference) as chunks:
        return b"".join(chunks)


@pytest.mark.parametrize("presign", [True, False], ids=["signed", "passed on"])
def test_files_of_the_bucket(
    filled: str, studio: Studio, make_project: Callable[..., int], label_studio: LabelStudio, presign: bool
) -> None:
    project, other = make_project(images=0), make_project(images=0)
    connect_storage(label_studio, project, filled, presign=presign)
    server = filled.removeprefix("http://")
    client = LabelStudio(studio.url, studio.token, image_hosts=ImageHosts.parse(f"public,{server}"))
    for key in ODD_KEYS:
        assert fetched(client, in_project(f"s3://{BUCKET}/{key}", project)) == f"content of {key}".encode(), key

    for uri, where, reason in (
        (
            f"s3://{BUCKET}/missing.png",
            project,
            r"127\.0\.0\.1: refused|127\.0\.0\.1: not found|from its storage \(424\)",
        ),
        ("s3://another-bucket/a.png", project, r"finds no storage for it \(404\)"),
        (f"s3://{BUCKET}/folder/shape_00.png", other, r"finds no storage for it \(404\)"),
    ):
        with pytest.raises(ImageError, match=rf"^Image {uri} cannot be fetched: .*({reason})") as caught:
            fetched(client, in_project(uri, where))
        assert not any(secret in str(caught.value) for secret in SIGNATURES)

    closed = LabelStudio(studio.url, studio.token)  # the storage is on a private address, as a MinIO would be
    reference = in_project(f"s3://{BUCKET}/{ODD_KEYS[0]}", project)
    if presign:
        with pytest.raises(ImageError, match=f"redirected to 127.0.0.1; .*add {server} to NEXTMASK_IMAGE_HOSTS"):
            fetched(closed, reference)
    else:
        assert fetched(closed, reference) == f"content of {ODD_KEYS[0]}".encode()


def test_a_project_whose_images_are_in_a_bucket(
    filled: str,
    make_nextmask: Callable[..., Nextmask],
    make_project: Callable[..., int],
    label_studio: LabelStudio,
    shapes: Dataset,
) -> None:
    """Sync, train, rank, publish and predict; what is stored of an image is its URI."""
    nextmask = make_nextmask(image_hosts=filled.removeprefix("http://"))
    project = make_project(images=0, dataset=shapes)
    storage = connect_storage(label_studio, project, filled, presign=True)
    label_studio.transport.json("POST", f"/api/storages/s3/{storage}/sync", slow=True)
    tasks = wait_for(lambda: _all_tasks(label_studio, project), name="the sync of the storage")
    nextmask.connect(project)
    label(label_studio, project, shapes, tasks[:4])
    status = nextmask.wait_for_version(project, 1)

    assert (status.labels, status.pool, status.queue, dict(status.errors)) == (4, IMAGES - 4, IMAGES - 4, {})
    stored = nextmask.services.store.tasks(project)
    assert {task.image for task in stored} == {f"s3://{BUCKET}/folder/shape_{n:02}.png" for n in range(IMAGES)}
    assert all(task.held_out == AuditSet(0.0, 0).has(task.image) for task in stored)
    rows = predictions(label_studio, project, status.version)
    assert {row["task"] for row in rows} == set(tasks[4:])
    assert all(row["result"] for row in rows)

    # Whichever form Label Studio sends a reference in, it is the same image, and fetched once.
    image = next(task.image for task in stored if task.task_id == tasks[5])
    resolved = f"/tasks/{tasks[5]}/resolve/?fileuri={base64.urlsafe_b64encode(image.encode()).decode()}"
    before = sorted((nextmask.folder / "state" / "images").iterdir())
    asked = [{"id": tasks[5], "data": {"image": reference}} for reference in (image, resolved, f"http://x{resolved}")]
    answers = nextmask.post("/predict", {"project": f"{project}.1", "tasks": asked}).json()["results"]
    assert answers[0]["result"]
    assert answers[0]["result"] == answers[1]["result"] == answers[2]["result"]
    assert sorted((nextmask.folder / "state" / "images").iterdir()) == before
    assert len(before) == IMAGES

    nextmask.stop()
    kept = nextmask.log.read_text() + _text_of(nextmask.folder / "state")
    assert not [secret for secret in SIGNATURES if secret in kept]


def _all_tasks(client: LabelStudio, project: int) -> list[int]:
    found = client.task_ids(project)
    return found if len(found) == IMAGES else []


def _text_of(folder: Path) -> str:
    return "".join(file.read_bytes().decode("latin-1") for file in folder.glob("*.sqlite3*"))
