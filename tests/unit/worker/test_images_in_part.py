"""Images whose files are cut short: used as the browser shows them, told once, and fetched anew now and then."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from memory_studio import MemoryStudio
from PIL import Image
from wiring import PROJECT, SHAPE, Clock, disc, look_at

from ml_backend.projects.services import Services
from ml_backend.projects.status import project_state
from ml_backend.worker.rank import rank
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.sync import RETRY_IMAGES_SECONDS, retry_images, sync

pytestmark = [pytest.mark.studio(4, connected=True), pytest.mark.usefixtures("served_project")]

CUT = "/data/upload/cut.jpg"


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(disc(9)[0]).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def told(services: Services) -> list[str]:
    return [event.text for event in services.store.events(PROJECT) if event.kind == "image_in_part"]


def hints(services: Services) -> list[str]:
    return [hint for hint in project_state(services.settings, services.store, PROJECT).hints if "cut short" in hint]


def look_once(services: Services) -> None:
    look = look_at(services)
    sync(look)
    retry_images(look)
    rank(look)


def test_it_is_used_and_told_once(services: Services, studio: MemoryStudio) -> None:
    task = studio.add_task(9, image=CUT)
    studio.files[CUT] = jpeg()[:-2]
    for _ in range(2):
        reconcile(services, PROJECT, lambda: None)
    assert services.images_of(PROJECT).load(CUT).shape == (*SHAPE, 3)
    assert services.store.task_errors(PROJECT) == {}
    assert task in services.store.priorities(PROJECT, [task])
    (text,) = told(services)
    assert text.startswith(f"The image of task {task} is used in part, as the browser shows it")
    assert hints(services) == [text]


def test_it_is_fetched_anew_and_no_longer_told_once_it_is_whole(
    services: Services, studio: MemoryStudio, clock: Clock
) -> None:
    studio.add_task(9, image=CUT)
    studio.files[CUT] = jpeg()[:-2]
    look_once(services)
    assert hints(services)
    studio.files[CUT] = jpeg()
    clock.go_on(hours=1 + RETRY_IMAGES_SECONDS / 3600)
    studio.add_task(10)  # a reason to rank again
    look_once(services)
    assert hints(services) == []
    whole = np.asarray(Image.open(io.BytesIO(jpeg())))
    np.testing.assert_array_equal(services.images_of(PROJECT).load(CUT), whole)


def test_an_image_in_its_reference(services: Services, studio: MemoryStudio) -> None:
    cut = base64.b64encode(jpeg()[:-2]).decode()
    task = studio.add_task(9, image=f" data:image/jpeg;base64,{cut[:20]}\n{cut[20:].rstrip('=')}")
    look_once(services)
    assert f"task {task} " in hints(services)[0]
