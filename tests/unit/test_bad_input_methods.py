"""Methods on bad input: kinds of images, one class, a pool of one, brush only, odd rectangles, 80 million pixels."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from memory_studio import MemoryStudio
from PIL import Image
from wiring import (
    PROJECT,
    SHAPE,
    XML,
    data_uri,
    disc,
    make_services,
    nothing,
    open_installation,
    png,
    region,
    renderer_of,
    serve_model,
    task_of,
)

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_from_text, boxes_to_text, covered_pixels
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.annotations.query_regions import overlap
from ml_backend.errors import TrainingError
from ml_backend.images import decoding
from ml_backend.images.cache import ImageCache
from ml_backend.images.decoding import load_image
from ml_backend.learning.ranking import MOST_BOXES, PoolRanking
from ml_backend.learning.training import Item, Job, train
from ml_backend.projects.services import Services
from ml_backend.projects.shown_masks import Shown
from ml_backend.store import Task
from ml_backend.worker.look import Look
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.score_pool import PoolRanker
from strategies import available

QUICK: dict[str, dict[str, Any]] = {
    "cereals": {"window": 16, "stride": 8, "iterations": 2, "cost_width": 4},
    "vaal": {"epochs": 1, "image_size": 16, "width": 4, "latent": 4},
    "suggestive_annotation": {"candidates": 8, "picks": 4},
}
PARTS_XML = with_query_control(XML)
ONE_XML = PARTS_XML.replace('<Label value="nucleus"/>', "")
ONE_CLASS = parse_label_config(ONE_XML, unpainted="ignore")
TWO_CLASSES = parse_label_config(ONE_XML)
LARGE = (8_000, 10_000)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input")


@pytest.fixture(scope="module")
def studio() -> MemoryStudio:
    return MemoryStudio()


@pytest.fixture(scope="module")
def services(folder: Path, studio: MemoryStudio) -> Iterator[Services]:
    """Models of one class in project 1, of two in project 2."""
    with open_installation(folder / "state", studio, batch_size=3) as services:
        for label_map in (ONE_CLASS, TWO_CLASSES):
            _train(folder, label_map)
            shutil.copytree(folder / f"model-{_project(label_map)}", services.checkpoints(_project(label_map)).folder)
        yield services


def _project(label_map: LabelMap) -> int:
    return len(label_map.classes)


def _mask(index: int, label_map: LabelMap) -> Any:
    return np.where(disc(index)[1], len(label_map.classes) - 1, label_map.unpainted_index).astype(np.uint8)


def _train(folder: Path, label_map: LabelMap) -> None:
    items = []
    for index in range(2):
        image, mask = folder / f"{index}.png", folder / f"{_project(label_map)}-{index}.png"
        image.write_bytes(png(disc(index)[0]))
        mask.write_bytes(png(_mask(index, label_map)))
        items.append(Item(str(index), image, mask, False, str(index)))
    job = Job(
        items=tuple(items),
        classes=label_map.classes,
        label_map_digest=label_map.digest,
        data_digest="data",
        folder=folder / f"model-{_project(label_map)}",
        **{"iterations": 2, "batch_size": 2, "input_size": 32, "learning_rate": 1e-3, "device": "cpu"},
    )
    train(job, None)


def labelled(folder: Path, number: int, label_map: LabelMap) -> Task:
    """A disc with its mask, and some effort."""
    file, points = folder / f"{_project(label_map)}-{number}.png", folder / f"{number}.npy"
    file.write_bytes(masks.png_bytes(_mask(number, label_map)))
    np.save(points, np.array([[3, 3, 5]], np.float32))
    fields = {"mask_file": str(file), "effort_file": str(points), "effort": 5.0}
    return task_of(number, _project(label_map), image=data_uri(number), status="labelled", **fields)


def ranked(services: Services, tasks: list[Task], label_map: LabelMap, name: str, **settings: Any) -> PoolRanking:
    project = _project(label_map)
    usual = {"strategy": name, "strategy_options": QUICK.get(name, {}), "members": 3, "committee": "mc_dropout"}
    own = replace(services, settings=services.settings.for_project({**usual, **settings}))
    model = services.checkpoints(project).get(1)
    scorer = PoolRanker(Look(own, project, label_map), model)
    return scorer.rank(tasks, round_number=1)


# -- one class, a pool of one ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("label_map", [ONE_CLASS, TWO_CLASSES], ids=["one class", "two classes"])
@pytest.mark.parametrize("name", available())
def test_every_method_ranks_a_pool_of_one(name: str, label_map: LabelMap, services: Services, folder: Path) -> None:
    task = task_of(1, _project(label_map), image=data_uri(1))
    for known in ([], [labelled(folder, 20, label_map)]):
        ranking = ranked(services, [task, *known], label_map, name, query_images=1)
        assert set(ranking.priorities) == {1}
        assert 0 <= ranking.priorities[1] <= 1
    if name == "cereals":
        assert not any(overlap([one], [other]) for one, other in combinations(ranking.queries[1].boxes, 2))


@pytest.mark.parametrize("known", [1, 2])
def test_a_method_that_lost_all_it_could_learn_from_leaves_the_order_to_chance(
    known: int, services: Services, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All masks are gone: VAAL cannot compare, and nobody is to be kept from labelling by that."""
    pool = [task_of(number, 2, image=data_uri(number)) for number in range(1, 5)]
    gone = [replace(labelled(folder, 30 + n, TWO_CLASSES), image=f"/data/upload/gone-{n}.png") for n in range(known)]
    # options of its own: what was learned before must not help out
    options = {**QUICK["vaal"], "latent": 4 + known}
    ranking = ranked(services, [*pool, *gone], TWO_CLASSES, "vaal", strategy_options=options)
    assert sorted(ranking.priorities) == [1, 2, 3, 4]
    assert ranking.scored == 0
    assert "vaal had nothing to learn from" in caplog.text


def test_a_single_class_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    studio = MemoryStudio(xml=ONE_XML)
    services = make_services(tmp_path, studio, unpainted="ignore", train_after=2, audit_share=0.0)
    services.store.wake(PROJECT, label_config=ONE_XML)
    for index in range(4):
        studio.add_task(index)
    for number in (1, 2):
        studio.label(number)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"one class, 'cell'.*NEXTMASK_UNPAINTED to background"):
            reconcile(services, PROJECT, nothing)
        assert sorted(studio.queue()) == [3, 4]  # the first batch, without false masks
    services.store.close()


# -- kinds of images -------------------------------------------------------------------------------------------------
def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _kinds() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Name -> file, and height and width as a browser shows it."""
    height, width = SHAPE
    colours = Image.fromarray(disc(3)[0])
    grey = colours.convert("L")
    fading = Image.linear_gradient("L").resize(colours.size)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16)
    sideways = Image.Exif()
    sideways[0x0112] = 6
    transparent = colours.convert("P")
    return {
        "colours": (_encoded(colours), SHAPE),
        "16 bits": (_encoded(deep), SHAPE),
        "16 bits, constant": (_encoded(Image.fromarray(np.full(SHAPE, 40_000, np.uint16))), SHAPE),
        "floating": (_encoded(Image.fromarray(np.asarray(grey) / np.float32(7)), "TIFF"), SHAPE),
        "grey": (_encoded(grey), SHAPE),
        "grey and alpha": (_encoded(Image.merge("LA", [grey, fading])), SHAPE),
        "colours and alpha": (_encoded(Image.merge("RGBA", [*colours.split(), fading])), SHAPE),
        "palette": (_encoded(colours.convert("P")), SHAPE),
        "palette, transparent": (_encoded(transparent, transparency=0), SHAPE),
        "1 bit": (_encoded(colours.convert("1")), SHAPE),
        "inks": (_encoded(colours.convert("CMYK"), "JPEG"), SHAPE),
        "turned": (_encoded(colours, "JPEG", exif=sideways), (width, height)),
        "a pixel": (_encoded(colours.resize((1, 1))), (1, 1)),
        "a line": (_encoded(colours.resize((300, 1))), (1, 300)),
        "a column": (_encoded(colours.resize((1, 300))), (300, 1)),
    }


@pytest.fixture(scope="module")
def kinds(studio: MemoryStudio, services: Services) -> dict[int, tuple[str, tuple[int, int]]]:
    """One task of each kind in project 2: id -> reference and size."""
    found = {}
    for number, (file, size) in enumerate(_kinds().values(), start=1):
        studio.files[f"/data/upload/kind-{number}"] = file
        found[number] = (f"/data/upload/kind-{number}", size)
    services.store.put_tasks(task_of(number, 2, image=image) for number, (image, _) in found.items())
    return found


@pytest.mark.parametrize("name", available())
def test_every_method_ranks_images_of_every_kind(
    name: str, services: Services, kinds: dict[int, tuple[str, tuple[int, int]]], folder: Path
) -> None:
    pool = [task_of(number, 2, image=image) for number, (image, _) in kinds.items()]
    known = [labelled(folder, 40, TWO_CLASSES), labelled(folder, 41, TWO_CLASSES)]
    ranking = ranked(services, [*pool, *known], TWO_CLASSES, name, query_images=100)
    assert set(ranking.priorities) == set(kinds)
    assert not [task.error for task in services.store.tasks(2) if task.error]
    if name == "cereals":  # asked for all there is: every image, and no pixel beyond its upright border
        assert set(ranking.queries) == set(kinds)
        for number, query in ranking.queries.items():
            height, width = kinds[number][1]
            assert all(box.left + box.width <= width and box.top + box.height <= height for box in query.boxes)


def test_masks_have_the_size_that_the_editor_shows(
    services: Services, kinds: dict[int, tuple[str, tuple[int, int]]]
) -> None:
    scorer = renderer_of(services, services.checkpoints(2).get(1), TWO_CLASSES, project=2)
    shown = list(scorer.show([image for image, _ in kinds.values()]))
    for (image, size), one in zip(kinds.values(), shown, strict=True):
        assert isinstance(one, Shown), image
        assert one.size == masks.mask_from_png(one.png).shape == size
        stated = {(region["original_height"], region["original_width"]) for region in one.regions}
        assert stated <= {size}


def test_strips_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are turned into RGB strip by strip: the same as in one go, whatever the kind."""
    for number, (file, size) in enumerate(_kinds().values()):
        path = tmp_path / str(number)
        path.write_bytes(file)
        whole = load_image(path)
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "STRIP_PIXELS", 100)
            np.testing.assert_array_equal(load_image(path), whole)
        assert whole.shape == (*size, 3)
        assert whole.flags.writeable


# -- rectangles, and effort of brushes -------------------------------------------------------------------------------
CEREALS = {"strategy": "cereals", "strategy_options": QUICK["cereals"], "query_images": 2}


@pytest.fixture
def host() -> MemoryStudio:
    studio = MemoryStudio(xml=PARTS_XML)
    for index in range(6):
        studio.add_task(index)
    return studio


@pytest.fixture
def served(tmp_path: Path, host: MemoryStudio) -> Iterator[Services]:
    """Six images and a model: CEREALS asks for regions from the start."""
    quick = {"input_size": 32, "iterations": 2, "train_after": 1000, "queue_window": 6}
    with open_installation(tmp_path, host, audit_share=0.0, **quick, **CEREALS) as services:
        services.store.wake(PROJECT, label_config=PARTS_XML)
        serve_model(services)
        reconcile(services, PROJECT, nothing)
        yield services


def rectangle(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """A query rectangle as an annotator draws it, in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["Please label"]}
    size = {"original_height": SHAPE[0], "original_width": SHAPE[1]}
    common = {"id": f"{x}-{y}", "from_name": "query", "to_name": "image", "type": "rectanglelabels"}
    return {**common, **size, "value": value}


def submit(host: MemoryStudio, number: int, *rectangles: dict[str, Any], **fields: Any) -> None:
    rows = [row for row in host.predictions if row["task"] == number]
    mask = disc(number - 1)[1]
    host.annotate(number, [region(mask), *rectangles], parent_prediction=rows[-1]["id"], **fields)


OUTSIDE, FLAT = rectangle(120, 120, 10, 10), rectangle(10, 10, 0, 20)


def test_rectangles_outside_and_of_no_size_become_no_labels(served: Services, host: MemoryStudio) -> None:
    first, second, third = host.queue()[:3]
    submit(host, first, OUTSIDE, FLAT)
    submit(host, second, OUTSIDE, FLAT, rectangle(90, 0, 50, 50))
    submit(host, third, rectangle(-50, -50, 300, 300))
    reconcile(served, PROJECT, nothing)
    found = {task.task_id: task for task in served.store.tasks(PROJECT)}
    assert found[first].status == "broken"
    assert "covers no pixel of the image" in found[first].error
    assert (found[second].status, boxes_from_text(found[second].boxes)) == ("labelled", (Box(36, 0, 4, 16),))
    assert "covers no pixel of the image" in found[second].error
    assert boxes_from_text(found[third].boxes) == (Box(0, 0, SHAPE[1], SHAPE[0]),)
    assert not {first, second, third} & set(host.queue())
    assert served.store.project(PROJECT).error == ""  # type: ignore[union-attr]  # it is known
    assert ranked_again(served, host)


def ranked_again(services: Services, host: MemoryStudio) -> PoolRanking:
    """Rank with what is labelled by now, whatever is open."""
    own = replace(services, settings=services.settings.for_project({**CEREALS, "query_images": 50}))
    model, label_map = services.checkpoints(PROJECT).get(1), parse_label_config(host.xml)
    scorer = PoolRanker(Look(own, PROJECT, label_map), model)
    return scorer.rank(services.store.tasks(PROJECT), round_number=1)


def test_hundreds_of_rectangles_are_one_label_of_their_pixels(served: Services, host: MemoryStudio) -> None:
    number = host.queue()[0]
    rows, columns = SHAPE
    pixel = 100 / columns, 100 / rows
    every = [
        rectangle(column * pixel[0], row * pixel[1], *pixel)
        for row in range(rows)
        for column in range(columns // 2)  # the left half, pixel by pixel
    ]
    assert len(every) == 640
    submit(host, number, *every, *[OUTSIDE] * 300, lead_time=4.0)
    began = time.monotonic()
    reconcile(served, PROJECT, nothing)
    task = served.store.task(PROJECT, number)
    assert task is not None
    assert task.status == "labelled"
    assert len(boxes_from_text(task.boxes)) == 640
    known = masks.mask_from_png(served.files.read(task.mask_file)) != IGNORE_INDEX
    assert known[:, : columns // 2].all()
    assert not known[:, columns // 2 :].any()
    assert len(task.error) < 2000
    again = ranked_again(served, host)
    same = {one.task_id for one in served.store.tasks(PROJECT) if one.image == task.image}  # a follow-up may stand in
    (asked,) = [query for one, query in again.queries.items() if one in same]
    assert all(box.left >= columns // 2 for box in asked.boxes)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("measure", ["clicks", "seconds"])
def test_brushes_without_a_vertex_teach_the_cost_network(measure: str, served: Services, host: MemoryStudio) -> None:
    own = replace(served, settings=served.settings.for_project({"cost_measure": measure}))
    asked = host.queue()
    for number in asked[:2]:
        submit(host, number, rectangle(0, 0, 60, 100), lead_time=7.0)
    reconcile(own, PROJECT, nothing)
    tasks = {task.task_id: task for task in served.store.tasks(PROJECT)}
    for number in asked[:2]:
        assert tasks[number].vertices == 0
        assert tasks[number].effort is not None
        assert tasks[number].effort > 0
    if measure == "seconds":
        assert [tasks[number].effort for number in asked[:2]] == pytest.approx([7, 7], abs=0.01)
    queries = ranked_again(served, host).queries
    assert queries
    assert all(query.cost is not None and query.cost > 0 for query in queries.values())


# -- 80 million pixels -----------------------------------------------------------------------------------------------
def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def peak() -> Iterator[list[float]]:
    """Gives the largest growth of memory meanwhile, in megabytes."""
    before, grown, ended = resident(), [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            grown[0] = max(grown[0], resident() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield grown
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def large(folder: Path) -> Path:
    """A grey image of 10,000 x 8,000 pixels with smooth spots."""
    small = np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8)
    file = folder / "large.png"
    pixels = cv2.resize(small, LARGE[::-1], interpolation=cv2.INTER_NEAREST)
    assert cv2.imwrite(str(file), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return file


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_large_images_are_ranked_and_shown_within_bounds(
    large: Path, services: Services, studio: MemoryStudio, folder: Path
) -> None:
    """CEREALS with a committee, an image labelled in part among them, and the masks: memory does not explode."""
    references = [f"/data/upload/large-{number}.png" for number in (1, 2)]
    studio.files |= dict.fromkeys(references, large.read_bytes())
    limits = {"max_bytes": 10**9, "max_image_bytes": 10**9, "max_pixels": 2 * 10**8}
    own = replace(services, images=ImageCache(folder / "large", studio.fetch, **limits))
    done = Box(0, 0, 5_000, 8_000)
    mask, points = folder / "large-mask.png", folder / "large.npy"
    mask.write_bytes(masks.png_bytes(np.where(covered_pixels([done], LARGE), 1, IGNORE_INDEX).astype(np.uint8)))
    places = np.random.default_rng(0).random((50_000, 2)) * (5_000, 8_000)
    np.save(points, np.column_stack([places, np.ones(len(places))]).astype(np.float32))
    known = {"boxes": boxes_to_text([done]), "mask_file": str(mask), "effort_file": str(points), "effort": 5e4}
    tasks = [task_of(101, 2, image=references[0]), task_of(102, 2, image=references[1], status="labelled", **known)]
    options = {"measure": "vote_entropy", "window": 128, "stride": 32, "iterations": 5}
    with peak() as grown:
        ranking = ranked(own, tasks, TWO_CLASSES, "cereals", strategy_options=options, members=20)
        scorer = renderer_of(own, own.checkpoints(2).get(1), TWO_CLASSES, project=2)
        (shown,) = scorer.show(references[:1])
    assert grown[0] < 2_500
    assert set(ranking.priorities) == set(ranking.queries) == {101, 102}
    for query in ranking.queries.values():  # there is room for thousands
        assert len(query.boxes) == MOST_BOXES
    assert all(box.left >= 5_000 for box in ranking.queries[102].boxes)
    assert isinstance(shown, Shown)
    assert shown.size == LARGE
    assert sum(len(one["value"]["rle"]) for one in shown.regions) < 10_000_000
