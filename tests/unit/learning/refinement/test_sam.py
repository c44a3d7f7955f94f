"""The refiner on SAM 2, on a small one with weights by chance: how prompts reach it, what holds whatever it says."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sam_weights import SIDE, small_folder

from ml_backend.annotations.masks import touched
from ml_backend.errors import ImageError, OutOfMemory
from ml_backend.learning.refinement.prompts import Prompt, about, settled
from ml_backend.learning.refinement.sam import SamRefiner, parts_of
from ml_backend.learning.refinement.sam_network import Embedding, SamNetwork, load_sam

SIZE = (30, 40)
EMBEDDING_BYTES = 2 * (4 * 16 * 16 + 8 * 8 * 8 + 32 * 4 * 4)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> SamNetwork:
    return load_sam(str(small_folder(tmp_path_factory.mktemp("sam"))), torch.device("cpu"))


class Counted:
    """A network that counts the images of its passes."""

    def __init__(self, network: SamNetwork) -> None:
        self._network, self.passes = network, list[int]()
        self.side, self.device = network.side, network.device
        self.logits = network.logits

    def embeddings(self, images: list[NDArray[np.uint8]]) -> list[Embedding]:
        self.passes.append(len(images))
        return self._network.embeddings(images)


def image(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def boxes(*places: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Boxes of top, left, bottom and right."""
    found = np.zeros(SIZE, bool)
    for top, left, bottom, right in places:
        found[top:bottom, left:right] = True
    return found


def no(row: int, column: int) -> Prompt:
    return Prompt.click(1, row, column, is_positive=False)


def yes(row: int, column: int) -> Prompt:
    return Prompt.click(1, row, column)


# -- what SAM 2 is asked ---------------------------------------------------------------------------------------------
def test_clicks_where_nothing_is_drawn_are_about_one_object() -> None:
    (part,) = parts_of([yes(5, 5), no(20, 30), yes(9, 9)], SIZE)
    points, labels = part.asked(SIZE, 1024)
    assert labels == [1, 0, 1]
    assert np.allclose(points[0], [5.5 * 1024 / 40, 5.5 * 1024 / 30]), "columns first, middles of pixels"
    assert part.logits(256) is None
    assert parts_of([no(5, 5)], SIZE) == [], "nothing says where it is"


def test_a_box_goes_with_the_clicks_in_it_and_is_given_by_its_corners() -> None:
    around = Prompt(1, True, 3, 4, 13, 24)
    first, new = parts_of([around, no(5, 6), yes(20, 30)], SIZE)
    points, labels = first.asked(SIZE, 400)
    assert labels == [2, 3, 0]
    assert np.allclose(points[:2], [[40, 40], [240, 13 * 400 / 30]])
    assert new.asked(SIZE, 400)[1] == [1]


def test_what_is_drawn_is_mended_part_by_part() -> None:
    one, two = boxes((2, 2, 12, 20)), boxes((18, 2, 28, 20))
    (part,) = parts_of([yes(22, 10), no(4, 18)], SIZE, one | two)
    assert part.drawn is not None
    assert np.array_equal(part.drawn, one)
    assert not part.clicks[0].is_positive
    stands = part.clicks[1]
    assert stands.is_positive
    assert one[stands.centre], "a click that stands for the rest of it"
    assert abs(stands.centre[1] - 18) > 5
    logits = part.logits(64)
    assert logits is not None
    assert (logits.shape, logits.min(), logits.max()) == ((64, 64), -10, 10)


def test_a_click_into_the_middle_of_a_part_says_that_none_of_it_is_there(network: SamNetwork) -> None:
    one, two = boxes((2, 2, 13, 13)), boxes((18, 2, 28, 20))
    (part,) = parts_of([no(7, 7)], SIZE, one | two)
    assert not part.is_anywhere
    assert np.array_equal(SamRefiner(network).refine(image(), "a", 1, [no(7, 7)], one | two), two)


# -- what it answers -------------------------------------------------------------------------------------------------
PLACES = st.tuples(st.integers(-3, 40), st.integers(-3, 50))


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    top, left = draw(PLACES)
    height, width = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (8, 12)]))
    return Prompt(draw(st.integers(1, 2)), draw(st.booleans()), top, left, top + height, left + width)


@settings(max_examples=40, deadline=None)
@given(said=st.lists(prompts(), max_size=6), seed=st.integers(0, 3), is_drawn=st.booleans())
def test_no_prompt_is_contradicted_and_parts_without_a_click_stay(
    network: SamNetwork, said: list[Prompt], seed: int, is_drawn: bool
) -> None:
    refiner = SamRefiner(network)
    drawn = np.random.default_rng(seed).random((6, 8)).repeat(5, 0).repeat(5, 1) > 0.7 if is_drawn else None
    mask = refiner.refine(image(), "a", 1, said, drawn)
    about_it = about(1, said, *SIZE)
    inside, outside = settled(about_it, *SIZE)
    assert (mask.shape, mask.dtype) == (SIZE, np.bool_)
    assert mask[inside].all()
    assert not mask[outside].any()
    assert np.array_equal(mask, refiner.refine(image(), "a", 1, said, drawn))
    if drawn is not None:
        clicked = np.zeros(SIZE, bool)
        for prompt in about_it:
            clicked[prompt.area] = True
        assert mask[drawn & ~touched(drawn, clicked)].all()


def test_hundreds_of_prompts_and_an_image_of_a_pixel_are_answered(network: SamNetwork) -> None:
    random = np.random.default_rng(0)
    many = [
        Prompt.click(1, int(r), int(c), is_positive=bool(s)) for r, c, s in random.integers(0, (30, 40, 2), (400, 3))
    ]
    refiner = SamRefiner(network)
    assert refiner.refine(image(), "a", 1, many).shape == SIZE
    pixel = np.zeros((1, 1, 3), np.uint8)
    assert refiner.refine(pixel, "pixel", 1, [yes(0, 0)]).tolist() == [[True]]
    assert refiner.refine(pixel, "pixel", 1, [no(0, 0)], np.ones((1, 1), bool)).tolist() == [[False]]


# -- what it keeps ---------------------------------------------------------------------------------------------------
def test_an_image_is_embedded_once_and_again_after_a_release(network: SamNetwork) -> None:
    counted = Counted(network)
    refiner = SamRefiner(counted)  # type: ignore[arg-type]
    first = refiner.refine(image(), "a", 1, [yes(5, 5)])
    refiner.prepare({"a": image()})
    refiner.refine(image(), "a", 1, [yes(9, 9)])
    assert (counted.passes, refiner.nbytes) == ([1], EMBEDDING_BYTES)
    refiner.release()
    assert refiner.nbytes == 0
    assert np.array_equal(refiner.refine(image(), "a", 1, [yes(5, 5)]), first)
    assert counted.passes == [1, 1]


def test_images_are_embedded_together_as_each_by_itself(network: SamNetwork) -> None:
    counted = Counted(network)
    refiner = SamRefiner(counted)  # type: ignore[arg-type]
    refiner.together = 2
    refiner.prepare({str(seed): image(seed) for seed in range(3)})
    refiner.prepare({str(seed): image(seed) for seed in range(4)})
    assert counted.passes == [2, 1, 1]
    assert SamRefiner(network).together == 1, "on a CPU, a click would wait for all of them"
    alone = network.embeddings([image(1)])[0]
    for both, one in zip(network.embeddings([image(0), image(1)])[1].maps, alone.maps, strict=True):
        assert torch.allclose(both.float(), one.float(), atol=1e-3)


def test_what_is_kept_is_bounded(network: SamNetwork) -> None:
    refiner = SamRefiner(network, most_bytes=2 * EMBEDDING_BYTES)
    refiner.prepare({str(seed): image(seed) for seed in range(4)})
    assert refiner.nbytes == 2 * EMBEDDING_BYTES


def test_many_threads_ask_for_one_image(network: SamNetwork) -> None:
    counted, found = Counted(network), list[NDArray[np.bool_]]()
    refiner = SamRefiner(counted)  # type: ignore[arg-type]
    threads = [
        threading.Thread(target=lambda: found.append(refiner.refine(image(), "a", 1, [yes(5, 5)]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.passes == [1]
    assert len(found) == 8
    assert all(np.array_equal(mask, found[0]) for mask in found)


@pytest.mark.parametrize("shortage", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_where_memory_runs_out_what_is_kept_is_given_back_and_the_click_answered(
    network: SamNetwork, monkeypatch: pytest.MonkeyPatch, shortage: Exception
) -> None:
    refiner, kept = SamRefiner(network), list[int]()
    refiner.prepare({"first": image(1)})
    usual = network.embeddings

    def short(images: list[NDArray[np.uint8]]) -> list[Embedding]:
        kept.append(refiner.nbytes)
        if len(kept) == 1:
            raise shortage
        return usual(images)

    monkeypatch.setattr(network, "embeddings", short)
    assert refiner.refine(image(), "second", 1, [yes(5, 5)])[5, 5]
    assert kept == [EMBEDDING_BYTES, 0]


def test_an_image_that_no_memory_holds_is_told(network: SamNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(_: object) -> list[Embedding]:
        raise MemoryError

    monkeypatch.setattr(network, "embeddings", short)
    with pytest.raises(OutOfMemory, match="Take a smaller SAM 2, or unset NEXTMASK_SAM"):
        SamRefiner(network).prepare({"a": image()})


def test_what_is_no_image_is_refused(network: SamNetwork) -> None:
    with pytest.raises(ImageError, match=r"must be \(height, width, 3\) uint8, not \(4, 4\)"):
        SamRefiner(network).refine(np.zeros((4, 4), np.uint8), "grey", 1, [yes(1, 1)])


def test_of_three_masks_of_a_single_click_the_best_is_taken(network: SamNetwork) -> None:
    """Hugging Face's network, asked by hand."""
    embedding = network.embeddings([image()])[0]
    point = np.array([[10.0, 20.0]], np.float32)
    found = network._model(
        image_embeddings=[level.float() for level in embedding.maps],
        input_points=torch.from_numpy(point - 0.5)[None, None],
        input_labels=torch.ones(1, 1, 1, dtype=torch.int32),
        multimask_output=True,
    )
    best = int(found.iou_scores[0, 0].argmax())
    wanted = found.pred_masks[0, 0, best].detach().numpy()
    assert np.allclose(network.logits(embedding, point, [1]), wanted, atol=1e-5)
    assert network.logits(embedding, point, [1]).shape == (SIDE // 4, SIDE // 4)
