"""Pictures of tasks, with a real small model: what is drawn, what is kept, and what is said where nothing can be."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_studio import MemoryStudio
from PIL import Image
from wiring import BROKEN, LABEL_MAP, PROJECT, SHAPE, XML, disc, give_project, png, task_of

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_to_text
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.dashboard.pictures import (
    SIDE,
    NoPicture,
    Picture,
    PictureCache,
    Pictures,
    Subject,
    Subjects,
    class_colours,
    drawing,
    pictures,
    placeholder,
)
from ml_backend.dashboard.pictures.cache import key_of
from ml_backend.dashboard.pictures.pictures import FORGET_SECONDS
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.projects.services import Services
from ml_backend.store import Task
from strategies import Batch

pytestmark = [
    pytest.mark.usefixtures("one_thread", "filled"),
    pytest.mark.studio(range(1, 5)),
]

VERSION = "nextmask-1.1"


@pytest.fixture
def filled(services: Services) -> None:
    """The project is served, and knows the tasks of Label Studio and a broken one."""
    give_project(services, version=VERSION)
    services.store.put_tasks([task_of(index) for index in range(1, 5)] + [task_of(9, image=BROKEN)])


@pytest.fixture
def drawer(services: Services, tmp_path: Path) -> Pictures:
    return Pictures(services, PictureCache(tmp_path / "pictures", max_bytes=10**7))


@pytest.fixture
def subject(services: Services) -> Callable[[int], Subject]:
    def find(task_id: int) -> Subject:
        subject = Subjects(services.settings, services.store).find(PROJECT, task_id)
        assert subject is not None
        return subject

    return find


def opened(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.content))


def rgba(picture: Picture) -> np.ndarray:
    return np.asarray(opened(picture).convert("RGBA"))


# -- heat maps ---------------------------------------------------------------------------------------------------------
def test_heat_map_is_the_entropy_of_the_probabilities_by_the_logarithm_of_their_number() -> None:
    probabilities = torch.tensor([[[0.5, 1.0, 0.9]], [[0.5, 0.0, 0.1]]])  # (C,1,3)
    prediction = pictures.small_prediction_of(probabilities, (1, 3))
    third = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)  # 0.469
    assert prediction.entropy.tolist() == [[255, 0, round(third * 255)]]
    assert prediction.entropy.tolist() == [[255, 0, 120]]
    assert prediction.mask.tolist() == [[0, 0, 0]]
    shown = opened(drawing.heat_picture(prediction.entropy))
    assert shown.mode == "P"
    assert np.asarray(shown).tolist() == [[255, 0, 120]]  # indices of the palette
    assert shown.convert("RGB").getpixel((1, 0)) == (0, 0, 4)  # inferno's first colour, and its last
    assert shown.convert("RGB").getpixel((0, 0)) == (252, 255, 164)


def test_heat_map_of_three_classes_alike_is_one_everywhere() -> None:
    prediction = pictures.small_prediction_of(torch.full((3, 2, 2), 1 / 3), (4, 4))
    assert (prediction.entropy == 255).all()


def test_brightness_of_the_heat_map_grows_with_the_entropy() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue in what eyes see as bright
    brightness = np.array(drawing.heat_colours()) @ weights
    assert (np.diff(brightness) > -0.5).all()
    assert brightness[-1] > 240
    assert brightness[0] < 5


def test_uncertainty_of_a_task_is_what_the_network_says_of_it(
    drawer: Pictures, subject: Callable[[int], Subject], services: Services
) -> None:
    from ml_backend.learning.prediction.batches import Item

    of_task = subject(1)
    shown = opened(drawer.uncertainty(of_task).draw())
    predictor = services.predictors.get(services.checkpoints(PROJECT), 1, "cpu")
    (batch,) = predictor.batches([Item(1, disc(1)[0])], features=False, batch_size=1)
    own = batch.probabilities[0, 0].numpy()  # (C,h,w)
    entropy = -(own * np.log(own)).sum(axis=0) / math.log(len(LABEL_MAP.classes))
    middle = tuple(side // 2 for side in SHAPE)
    near = tuple(int((at + 0.5) * ours / theirs) for at, ours, theirs in zip(middle, own.shape[1:], SHAPE, strict=True))
    assert shown.size == SHAPE[::-1]
    assert abs(int(np.asarray(shown)[middle]) - entropy[near] * 255) < 40  # between neighbours: the map is enlarged
    assert np.ptp(np.asarray(shown)) > 10


# -- masks -------------------------------------------------------------------------------------------------------------
def test_predicted_mask_is_that_of_the_predictor(
    drawer: Pictures, subject: Callable[[int], Subject], services: Services
) -> None:
    of_task = subject(2)
    predictor = services.predictors.get(services.checkpoints(PROJECT), 1, "cpu")
    expected = predictor.predict([disc(2)[0]])[0].mask
    assert (expected == 1).any()
    shown = rgba(drawer.mask(of_task).draw())
    assert (shown[..., 3] == np.where(expected == 0, 0, 255)).mean() > 0.995  # ties of rounding aside
    assert tuple(shown[expected == 1][0][:3]) == of_task.labels.colours[1]


def test_published_mask_is_shown_in_place_of_another_prediction(
    drawer: Pictures, subject: Callable[[int], Subject], services: Services
) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :5], mask[:, 5:8], mask[0, 0] = 1, 2, 255
    before = drawer.mask(subject(1)).tag
    services.store.put_published(PROJECT, VERSION, [(1, 0.1, masks.png_bytes(mask))])
    drawn = drawer.mask(subject(1))
    shown = rgba(drawn.draw())
    assert drawn.tag != before
    assert (shown[..., 3] > 0).tolist() == ((mask == 1) | (mask == 2)).tolist()
    assert tuple(shown[3, 6][:3]) == subject(1).labels.colours[2]
    assert drawer.class_shares(subject(1)) == pytest.approx(
        {"background": 32 / 40, "cell": (5 * 32 - 1) / 1280, "nucleus": 3 * 32 / 1280}, abs=1e-3
    )


def test_true_mask_and_differences(drawer: Pictures, subject: Callable[[int], Subject], tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    file.write_bytes(png(disc(1)[1]))
    of_task = subject(1)
    with pytest.raises(NoPicture, match="not labelled"):
        drawer.truth(of_task)
    labelled = replace(of_task, task=replace(of_task.task, mask_file=str(file), label_digest="d"))
    assert ((rgba(drawer.truth(labelled).draw())[..., 3] > 0) == (disc(1)[1] == 1)).all()
    assert not rgba(drawer.difference(of_task, 1, 1).draw())[..., 3].any()
    other = drawing.difference_picture(np.array([[0, 1, 255]], np.uint8), np.array([[1, 1, 1]], np.uint8))
    assert (rgba(other)[..., 3] > 0).tolist() == [[True, False, False]]


def test_a_large_image_and_its_layers_have_one_small_size(
    drawer: Pictures, subject: Callable[[int], Subject], services: Services, studio: MemoryStudio
) -> None:
    studio.files["/data/upload/large.png"] = png(np.zeros((600, 1501, 3), np.uint8))
    services.store.put_tasks([task_of(7, image="/data/upload/large.png")])
    services.store.put_published(PROJECT, VERSION, [(7, 0.1, masks.png_bytes(np.zeros((600, 1501), np.uint8)))])
    text = boxes_to_text([Box(0, 0, 1501, 600)])
    of_task = subject(7)
    for drawn in (
        drawer.image(of_task),
        drawer.mask(of_task),
        drawer.uncertainty(of_task),
        drawer.regions(of_task, text),
    ):
        assert opened(drawn.draw()).size == (SIDE, 192)


def test_frames_lie_where_the_boxes_are(drawer: Pictures, subject: Callable[[int], Subject]) -> None:
    shown = rgba(drawer.regions(subject(1), boxes_to_text([Box(10, 8, 20, 16)])).draw())
    assert shown.shape[:2] == SHAPE
    assert shown[8, 20].tolist() == [255, 255, 255, 255]
    assert shown[23, 20].tolist() == [255, 255, 255, 255]
    assert shown[16, 10].tolist() == [255, 255, 255, 255]
    assert shown[16, 20, 3] == 0
    assert shown[0, 0, 3] == 0


# -- colours -----------------------------------------------------------------------------------------------------------
def test_colours_are_those_of_the_labelling_configuration() -> None:
    xml = XML.replace('"cell"', '"cell" background="#0af"').replace('"nucleus"', '"nucleus" background="RED"')
    assert class_colours(xml, parse_label_config(xml))[1:] == ((0, 170, 255), (255, 0, 0))


@pytest.mark.parametrize("colour", ["", "no colour", "url(javascript:alert(1))", "#12", "rgb(" + "9" * 5000 + ")"])
def test_colours_that_are_none_give_way_to_a_palette(colour: str) -> None:
    xml = XML.replace('"cell"', f'"cell" background="{colour}"')
    colours = class_colours(xml, parse_label_config(xml))
    assert len({*colours}) == 3
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_a_class_has_the_colour_of_the_control_that_masks_are_predicted_with() -> None:
    xml = """<View><Image name="image" value="$image"/>
    <EllipseLabels name="e" toName="image"><Label value="a" background="red"/></EllipseLabels>
    <BrushLabels name="b" toName="image"><Label value="A" background="blue"/></BrushLabels></View>"""
    assert class_colours(xml, parse_label_config(xml))[1] == (0, 0, 255)


def test_labels_without_colours_get_those_that_connect_gives() -> None:
    from ml_backend.annotations.config_edits import with_palette

    given_colours = with_palette(XML)
    assert class_colours(XML, LABEL_MAP) == class_colours(given_colours, parse_label_config(given_colours))


# -- what is kept ------------------------------------------------------------------------------------------------------
def test_a_second_look_neither_fetches_nor_predicts(
    drawer: Pictures, subject: Callable[[int], Subject], studio: MemoryStudio, services: Services, tmp_path: Path
) -> None:
    def contents(pictures: Pictures) -> list[bytes]:
        drawn = (pictures.image(subject(3)), pictures.mask(subject(3)), pictures.uncertainty(subject(3)))
        return [picture.draw().content for picture in drawn]

    first = contents(drawer)
    studio.files.clear()
    for file in (services.settings.model_dir / "images").iterdir():
        file.unlink()
    again = Pictures(services, PictureCache(tmp_path / "pictures", max_bytes=10**7))  # as after a restart
    assert contents(again) == first


def test_many_who_ask_at_once_get_one_prediction(
    drawer: Pictures, subject: Callable[[int], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, most, running, lock = 0, 0, 0, threading.Lock()
    real = Predictor.batches

    def counted(self: Predictor, *arguments: Any, **options: Any) -> Iterator[Batch]:
        nonlocal calls, most, running
        with lock:
            calls, running = calls + 1, running + 1
            most = max(most, running)
        try:
            yield from real(self, *arguments, **options)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(Predictor, "batches", counted)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(drawer.uncertainty(subject(task)).draw) for task in (1, 2) * 6]
        contents = [answer.result().content for answer in waiting]
    assert len({*contents}) == 2
    assert (calls, most) == (2, 1)


def test_cache_stays_within_its_bytes_and_drops_what_was_used_least_recently(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, max_bytes=10_000)
    (tmp_path / "left.part").write_bytes(b"0")
    for number in range(100):
        cache.put(key_of(number), bytes(1000))
        assert cache.get(key_of(0)) is not None  # used all the time
        assert sum(file.stat().st_size for file in tmp_path.glob("*.picture")) <= 10_000
    assert cache.get(key_of(99)) is not None
    assert cache.get(key_of(50)) is None


def test_cache_whose_folder_cannot_be_written_still_shows(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    cache = PictureCache(blocked / "folder", max_bytes=1000)
    assert cache.made("key", lambda: b"drawn") == b"drawn"


def test_models_that_do_not_serve_leave_the_serving_ones_in_memory(
    drawer: Pictures, subject: Callable[[int], Subject], services: Services
) -> None:
    of_task = subject(1)
    checkpoints, device = services.checkpoints(PROJECT), of_task.settings.device
    serving = services.predictors.get(checkpoints, 1, device)
    other = replace(of_task, project=replace(of_task.project, published_version="nextmask-2.1"))
    assert drawer.predictor(other, 1) is not serving
    assert services.predictors.get(checkpoints, 1, device) is serving
    assert drawer.predictor(of_task, 1) is serving


# -- what goes wrong ---------------------------------------------------------------------------------------------------
def test_an_image_that_cannot_be_had_says_why_and_is_not_asked_for_again_at_once(
    drawer: Pictures, subject: Callable[[int], Subject], studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    for draw in (drawer.image(subject(9)).draw, drawer.uncertainty(subject(9)).draw):
        with pytest.raises(NoPicture, match="cannot be decoded"):
            draw()
    assert "cannot be decoded" in (drawer.failure(subject(9)) or "")
    studio.files[BROKEN] = studio.files["/data/upload/1.png"]
    with pytest.raises(NoPicture, match="cannot be decoded"):
        drawer.image(subject(9)).draw()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + FORGET_SECONDS)
    assert opened(drawer.image(subject(9)).draw()).size == SHAPE[::-1]


def test_no_model_no_labels_and_lost_files_are_reasons(
    drawer: Pictures, subject: Callable[[int], Subject], services: Services, tmp_path: Path
) -> None:
    of_task = subject(1)
    untrained = replace(of_task, project=replace(of_task.project, published_version="nextmask-0.1", ranking_version=""))
    with pytest.raises(NoPicture, match="No model yet"):
        drawer.mask(untrained)
    with pytest.raises(NoPicture, match="Version 77"):
        drawer.predicted(of_task, 77)
    lost = replace(of_task, task=replace(of_task.task, mask_file=str(tmp_path / "gone.png")))
    with pytest.raises(NoPicture, match="cannot be read"):
        drawer.truth(lost).draw()
    services.store.put_published(PROJECT, VERSION, [(2, 0.1, b"no png")])
    assert drawer.class_shares(subject(2)) is None
    with pytest.raises(NoPicture, match="cannot be read"):
        drawer.mask(subject(2)).draw()


def test_tasks_of_other_projects_and_projects_that_are_gone_have_no_pictures(services: Services) -> None:
    subjects = Subjects(services.settings, services.store)
    services.store.put_tasks([Task(PROJECT + 1, 100, "/data/upload/1.png")])
    assert subjects.find(PROJECT, 100) is None
    assert subjects.find(PROJECT + 1, 100) is None  # of a project that was never connected
    services.store.update_project(PROJECT, managed=False)
    assert subjects.find(PROJECT, 1) is None
    services.store.update_project(PROJECT, managed=True, label_config="<View/>")
    with pytest.raises(NoPicture, match="labels cannot be shown"):
        subjects.find(PROJECT, 1)


@pytest.mark.parametrize("image", ["../../../etc/passwd", "/etc/passwd", "a" * 100_000, "\ud800", "x\x00y", "%2e%2e/"])
def test_hostile_references_stay_out_of_paths(
    image: str, drawer: Pictures, subject: Callable[[int], Subject], tmp_path: Path
) -> None:
    hostile = replace(subject(1), task=replace(subject(1).task, image=image))
    with pytest.raises(NoPicture):
        drawer.image(hostile).draw()
    outside = [path for path in tmp_path.rglob("*") if "passwd" in path.name or len(path.name) > 60]
    assert outside == []


@given(st.text())
def test_placeholders_hold_any_reason_as_text(reason: str) -> None:
    content = placeholder(f"<script>alert(1)</script> ]]> {reason}").content
    root = ElementTree.fromstring(content)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} == {"svg", "rect", "text", "tspan"}
    assert "alert(1)" in "".join(root.itertext())
