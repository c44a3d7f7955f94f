"""Images on their way to a strategy: what is labelled of them and what it cost, at the network's size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.errors import ImageError, MaskError
from ml_backend.learning.networks import build
from ml_backend.learning.prediction.batches import Item, image_batches, resize_cost
from ml_backend.learning.prediction.predictor import Predictor
from strategies import Batch, create

CPU = torch.device("cpu")
SIZES = [(48, 64), (64, 48), (96, 128), (30, 30), (120, 40), (1, 1), (7, 200), (64, 64), (33, 50)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(build(classes=2, dropout=0.1), ("a", "b"), 64, CPU)


def item(number: int, height: int, width: int, *, maps: bool = True) -> Item:
    random = np.random.default_rng(number)
    image = random.integers(0, 255, (height, width, 3), np.uint8)
    if not maps:
        return Item(number, image)
    cost = (random.random((height, width)) ** 20 * 1000).astype(np.float32)  # most of it in few pixels
    return Item(number, image, random.random((height, width)) < 0.5, cost)


def streams(items: list[Item], predictor: Predictor, batch_size: int = 3) -> Iterator[list[Batch]]:
    """The same items with a network and without."""
    yield list(predictor.batches(items, features=False, batch_size=batch_size))
    yield list(image_batches(items, input_size=64, batch_size=batch_size, device=CPU))


def test_every_image_comes_out_once_with_its_maps(predictor: Predictor) -> None:
    items = {n: item(n, *size) for n, size in enumerate(SIZES * 3)}
    for batches in streams(list(items.values()), predictor):
        assert sorted(number for batch in batches for number in batch.ids) == sorted(items)
        assert max(len(batch.ids) for batch in batches) == 3
        for batch in batches:
            assert batch.cost is not None
            for index, number in enumerate(batch.ids):
                own, valid = items[number], batch.valid[index]
                assert batch.size[index].tolist() == list(own.image.shape[:2])
                assert float(batch.cost[index].double().sum()) == pytest.approx(float(own.cost.sum()), rel=1e-4)
                assert not (batch.labelled[index] & ~valid).any()
                assert not batch.cost[index][~valid].any()


def test_without_a_network_images_look_as_they_do_with_one(predictor: Predictor) -> None:
    items = [item(n, *size) for n, size in enumerate(SIZES)]
    with_one, without = streams(items, predictor, 1)
    for one, other in zip(with_one, without, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.valid, other.valid)
        assert torch.equal(one.labelled, other.labelled)
        assert torch.equal(one.cost, other.cost)
        assert other.probabilities is other.features is None


def test_images_of_a_batch_are_padded_with_themselves() -> None:
    (batch,) = image_batches([item(1, 30, 30), item(2, 32, 28)], input_size=64, batch_size=2, device=CPU)
    assert batch.images.shape == (2, 3, 32, 30)
    assert batch.valid.sum(dim=(1, 2)).tolist() == [30 * 30, 32 * 28]
    assert torch.equal(batch.images[0, :, 30], batch.images[0, :, 28])  # mirrored


def test_what_is_labelled_stays_where_it_is(predictor: Predictor) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    labelled = np.zeros((200, 300), np.bool_)
    labelled[40:120, 100:250] = True
    for (batch,) in streams([Item(1, image, labelled)], predictor):
        rows, columns = batch.labelled[0].any(1).nonzero(), batch.labelled[0].any(0).nonzero()
        scale = 64 / 300
        assert (int(rows[0]), int(rows[-1]) + 1) == pytest.approx((40 * scale, 120 * scale), abs=0.6)
        assert (int(columns[0]), int(columns[-1]) + 1) == pytest.approx((100 * scale, 250 * scale), abs=0.6)
        assert float(batch.labelled.float().mean()) == pytest.approx(labelled.mean(), rel=0.05)


def test_an_image_may_be_labelled_in_full(predictor: Predictor) -> None:
    full = Item(1, np.zeros((50, 70, 3), np.uint8), np.ones((50, 70), np.bool_))
    for (batch,) in streams([full], predictor):
        assert batch.labelled.all()
    assert create("entropy").observe(next(predictor.batches([full], features=False, batch_size=1))).information == 0


def test_images_with_costs_and_without_are_not_mixed(predictor: Predictor) -> None:
    items = [item(n, 40, 40, maps=n % 2 == 0) for n in range(8)]
    for batches in streams(items, predictor, 100):
        assert sorted(batch.ids for batch in batches) == [(0, 2, 4, 6), (1, 3, 5, 7)]
        for batch in batches:
            assert (batch.cost is None) == (batch.ids[0] == 1)
            assert batch.ids[0] == 0 or not batch.labelled.any()


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    share=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 2**32),
)
def test_total_effort_is_kept(size: tuple[int, int], share: tuple[float, float], seed: int) -> None:
    cost = np.zeros(size, np.float32)
    random = np.random.default_rng(seed)
    for _ in range(3):  # single pixels are what a careless resampling loses
        cost[random.integers(size[0]), random.integers(size[1])] = random.random() * 1e4
    target = (max(1, int(size[0] * share[0])), max(1, int(size[1] * share[1])))
    smaller = resize_cost(cost, target)
    assert smaller.shape == target
    assert float(smaller.min()) >= 0
    assert float(smaller.double().sum()) == pytest.approx(cost.sum(dtype=np.float64), rel=1e-4)


def test_effort_stays_where_it_is() -> None:
    cost = np.zeros((400, 600), np.float32)
    cost[100:150, 300:420] = 2.0
    smaller = resize_cost(cost, (43, 64))
    inside = smaller[10:17, 31:46]
    assert float(inside.sum()) == pytest.approx(cost.sum(), rel=1e-4)


def test_no_effort_is_no_effort() -> None:
    assert not resize_cost(np.zeros((100, 10), np.float32), (20, 2)).any()


def test_the_stream_without_a_network_is_lazy() -> None:
    read: list[int] = []

    def endless() -> Iterator[Item]:
        for number in range(10**9):
            read.append(number)
            yield item(number, 20, 20)

    next(image_batches(endless(), input_size=64, batch_size=4, device=CPU))
    assert len(read) == 4


def changed(**fields: Any) -> Item:
    return Item(**({"id": 7, "image": np.zeros((20, 30, 3), np.uint8)} | fields))


def ones(*shape: int, dtype: npt.DTypeLike = np.float32, value: float = 1) -> npt.NDArray[Any]:
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            changed(labelled=ones(30, 20, dtype=np.bool_)),
            MaskError,
            r"Image 7 is \(20, 30\), but its labelled .*\(30, 2",
        ),
        (changed(cost=ones(20, 31)), MaskError, r"Image 7 is \(20, 30\), but its cost pixels are \(20, 31\)"),
        (changed(labelled=ones(20, 30, dtype=np.uint8)), MaskError, "Image 7: labelled must be bool, not uint8"),
        (changed(cost=ones(20, 30, value=-1)), MaskError, "Image 7: a cost is negative or not finite"),
        (changed(cost=ones(20, 30, value=np.nan)), MaskError, "Image 7: a cost is negative or not finite"),
        (changed(image=np.zeros((20, 30), np.uint8)), ImageError, r"Image 7 must be \(height, width, 3\) uint8"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Item, error: type, message: str, predictor: Predictor) -> None:
    with pytest.raises(error, match=message):
        list(predictor.batches([wrong], features=False, batch_size=1))
    with pytest.raises(error, match=message):
        list(image_batches([wrong], input_size=64, batch_size=1, device=CPU))
