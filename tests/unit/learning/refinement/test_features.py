"""The refiner on real networks and real images: of the sample data, before the first training and after one."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ml_backend.datasets import read_mask, sample_dataset
from ml_backend.errors import ImageError, OutOfMemory
from ml_backend.images.decoding import load_image
from ml_backend.learning.networks import build
from ml_backend.learning.prediction.predictor import Encoded, Predictor
from ml_backend.learning.prediction.predictors import fresh_predictor
from ml_backend.learning.refinement.features import FeatureRefiner
from ml_backend.learning.refinement.prompts import Prompt
from ml_backend.learning.refinement.refiner import Kept
from ml_backend.settings import Settings

GREY = 1


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    settings = Settings(model_dir=tmp_path_factory.mktemp("models"), device="cpu")
    return fresh_predictor(settings, ("background", "grey matter", "white matter"))


@pytest.fixture(scope="module")
def learned() -> Predictor:
    """A network that learned two classes by heart: what is bright, and what is not."""
    torch.manual_seed(0)
    network = build("fpn", "tu-tf_efficientnet_lite0", "bundled", classes=2, dropout=0.0).freeze_encoder()
    optimizer = torch.optim.Adam([weight for weight in network.parameters() if weight.requires_grad], lr=3e-3)
    image, mask = discs()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    truth = torch.from_numpy(mask.astype(np.int64))[None]
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), truth).backward()
        optimizer.step()
    return Predictor(network, ("background", "disc"), 384, torch.device("cpu"))


def discs() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Two bright discs of one size on a dark noisy ground."""
    mask = np.zeros((128, 192), np.uint8)
    for column in (48, 144):
        cv2.circle(mask, (column, 64), 30, 1, -1)
    noise = np.random.default_rng(0).normal(0, 8, (*mask.shape, 3))
    image = np.where(mask[..., None] == 1, [210, 180, 70], [40, 60, 80]) + noise
    return image.clip(0, 255).astype(np.uint8), mask.astype(bool)


def overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def test_a_click_on_a_learned_object_gives_this_object_and_no_other(learned: Predictor) -> None:
    image, mask = discs()
    left = mask & (np.arange(192) < 96)
    found = FeatureRefiner(learned).refine(image, "discs", 1, [Prompt.click(1, 64, 48)])
    assert overlap(found, left) > 0.85


@pytest.mark.parametrize("target", [1, 7], ids=["learned", "never heard of"])
def test_a_box_gives_the_object_in_it(learned: Predictor, target: int) -> None:
    image, mask = discs()
    right = mask & (np.arange(192) > 96)
    found = FeatureRefiner(learned).refine(image, "discs", target, [Prompt(target, True, 30, 110, 98, 178)])
    assert overlap(found, right) > 0.85


def test_a_negative_click_takes_away_what_is_near_and_leaves_what_is_far(learned: Predictor) -> None:
    image, mask = discs()
    refiner = FeatureRefiner(learned)
    clicks = [Prompt.click(1, 64, 48), Prompt.click(1, 64, 144)]
    both = refiner.refine(image, "discs", 1, clicks)
    less = refiner.refine(image, "discs", 1, [*clicks, Prompt.click(1, 85, 144, is_positive=False)])
    taken = both & ~less
    assert taken[85, 144]
    assert np.array_equal(both[:, :80], less[:, :80])
    assert less[64, 144]
    assert overlap(both, mask) > 0.85


@pytest.mark.parametrize("target", [1, 7], ids=["learned", "never heard of"])
def test_both_ends_of_what_is_drawn_stay_where_a_click_cuts_it_in_two(learned: Predictor, target: int) -> None:
    bar = np.zeros((128, 192), bool)
    bar[54:74, 8:184] = True
    image = np.where(bar[..., None], [210, 180, 70], [40, 60, 80]).astype(np.uint8)
    clicks = [Prompt.click(target, 64, 16), Prompt.click(target, 64, 96, is_positive=False)]
    found = FeatureRefiner(learned).refine(image, f"bar {target}", target, clicks, bar)
    assert not found[64, 96]
    assert found[64, 16]
    assert found[64, 176], "nobody clicked there"


@pytest.mark.parametrize("target", [1, 7], ids=["learned", "never heard of"])
def test_a_click_takes_a_corner_of_a_small_thing_and_not_all_of_it(learned: Predictor, target: int) -> None:
    """Nothing but the click is near it, and all of it looks alike."""
    small = np.zeros((128, 192), bool)
    small[60:72, 90:106] = True
    image = np.where(small[..., None], [210, 180, 70], [40, 60, 80]).astype(np.uint8)
    click = Prompt.click(target, 61, 104, is_positive=False)
    found = FeatureRefiner(learned).refine(image, f"small {target}", target, [click], small)
    assert not found[61, 104]
    assert (found & small).sum() > small.sum() / 3


@pytest.mark.parametrize("target", [GREY, 2])
def test_more_clicks_on_the_truth_raise_the_overlap_before_the_first_training(
    untrained: Predictor, target: int
) -> None:
    """Clicks at the middle of the largest error, on an image of the sample data: the tenth mask beats the first."""
    sample = sample_dataset().splits["test"][4]
    image, truth = load_image(sample.image), read_mask(sample.mask) == target
    refiner = FeatureRefiner(untrained, is_trained=False)
    prompts: list[Prompt] = []
    found = np.zeros_like(truth)
    overlaps = []
    for _ in range(10):
        missing, superfluous = truth & ~found, found & ~truth
        is_positive = bool(missing.sum() >= superfluous.sum())
        depth = cv2.distanceTransform((missing if is_positive else superfluous).astype(np.uint8), cv2.DIST_L2, 5)
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        prompts.append(Prompt.click(target, int(row), int(column), is_positive=is_positive))
        found = refiner.refine(image, "sample", target, prompts)
        overlaps.append(overlap(found, truth))
    assert max(overlaps[5:]) > overlaps[0] + 0.15


def test_the_same_prompts_give_the_same_mask_whatever_is_kept(untrained: Predictor) -> None:
    image, _ = discs()
    prompts = [Prompt.click(1, 64, 48), Prompt.click(1, 5, 5, is_positive=False)]
    refiner = FeatureRefiner(untrained, is_trained=False)
    first = refiner.refine(image, "discs", 1, prompts)
    assert refiner.nbytes > 0
    refiner.release()
    assert refiner.nbytes == 0
    assert np.array_equal(refiner.refine(image, "discs", 1, prompts), first)


def test_hundreds_of_prompts_and_images_of_a_pixel_are_answered(untrained: Predictor) -> None:
    refiner = FeatureRefiner(untrained, is_trained=False)
    random = np.random.default_rng(0)
    image, _ = discs()
    prompts = [
        Prompt.click(1, int(row), int(column), is_positive=bool(sign))
        for row, column, sign in zip(*(random.integers(0, most, 500) for most in (128, 192, 2)), strict=True)
    ]
    assert refiner.refine(image, "discs", 1, prompts).shape == (128, 192)
    pixel = np.zeros((1, 1, 3), np.uint8)
    assert refiner.refine(pixel, "pixel", 1, [Prompt.click(1, 0, 0)]).tolist() == [[True]]
    assert refiner.refine(pixel, "pixel", 1, [Prompt.click(1, 0, 0, is_positive=False)]).tolist() == [[False]]
    assert refiner.refine(pixel, "pixel", 1, []).tolist() == [[False]]


def test_what_is_no_image_is_refused_each_time(untrained: Predictor) -> None:
    refiner = FeatureRefiner(untrained, is_trained=False)
    for _ in range(2):
        with pytest.raises(ImageError, match="must be"):
            refiner.refine(np.zeros((4, 4), np.uint8), "grey", 1, [])


def test_where_memory_runs_out_what_is_kept_is_given_back_and_the_click_answered(
    untrained: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = FeatureRefiner(untrained, is_trained=False)
    image, _ = discs()
    refiner.prepare({"first": image})
    usual, kept = untrained.encoded, list[int]()

    def short(given: NDArray[np.uint8]) -> Encoded:
        kept.append(refiner.nbytes)
        if len(kept) == 1:
            raise MemoryError
        return usual(given)

    monkeypatch.setattr(untrained, "encoded", short)
    click = [Prompt.click(1, 64, 48)]
    assert refiner.refine(image, "second", 1, click)[64, 48]
    assert kept[0] > 0
    assert kept[1] == 0


def test_an_image_that_no_memory_holds_is_told(untrained: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(given: NDArray[np.uint8]) -> Encoded:
        raise MemoryError(given.shape)

    monkeypatch.setattr(untrained, "encoded", short)
    with pytest.raises(OutOfMemory, match="NEXTMASK_INPUT_SIZE"):
        FeatureRefiner(untrained, is_trained=False).prepare({"discs": discs()[0]})


class Bytes:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_what_is_kept_is_bounded_in_bytes_and_the_last_used_stays() -> None:
    kept = Kept[Bytes](100)
    for key in ("a", "b"):
        kept.get(key, lambda: Bytes(40))
    kept.get("a", lambda: pytest.fail("a is kept"))
    kept.get("c", lambda: Bytes(40))
    kept.get("a", lambda: pytest.fail("a was used after b"))
    assert kept.nbytes == 80
    kept.get("large", lambda: Bytes(1000))
    assert kept.nbytes == 1000


def test_what_many_threads_ask_for_is_computed_once() -> None:
    kept, computed, go = Kept[Bytes](100), [], threading.Event()

    def compute() -> Bytes:
        go.wait(10)
        computed.append(1)
        return Bytes(1)

    threads = [threading.Thread(target=kept.get, args=("image", compute)) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert computed == [1]


def test_what_could_not_be_computed_is_tried_anew() -> None:
    kept = Kept[Bytes](100)

    def fail() -> Bytes:
        raise ImageError("no")

    with pytest.raises(ImageError):
        kept.get("image", fail)
    assert kept.get("image", lambda: Bytes(3)).nbytes == 3
