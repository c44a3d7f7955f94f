"""Batch, Observation, Region, Ranking and Budget are checked when they are created."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch

from strategies import Batch, Budget, Observation, Ranking, Region


def batch(**changes):
    given = {
        "ids": ("a", "b"),
        "images": torch.rand(2, 3, 4, 5),
        "probabilities": torch.full((2, 2, 3, 4, 5), 1 / 3),
        "features": torch.rand(2, 6),
        "cost": torch.rand(2, 4, 5),
    }
    return Batch(**given | changes)


def observation(**changes):
    given = {
        "ids": (1, 2),
        "information": torch.tensor([0.25, 0.5]),
        "confidence": torch.tensor([0.9, 0.8]),
        "class_fraction": torch.tensor([[0.5, 0.5], [1.0, 0.0]]),
        "descriptors": torch.rand(2, 6),
        "size": torch.tensor([[4, 5], [6, 7]]),
        "regions": (torch.rand(2, 3, 4), torch.rand(2, 1, 1)),
    }
    return Observation(**given | changes)


BOX = Region(top=0, left=0, height=2, width=3, score=0.5)


@pytest.mark.parametrize("kind", [Batch, Observation, Region, Ranking, Budget])
def test_frozen_and_keywords_only(kind):
    assert all(field.kw_only for field in fields(kind))
    with pytest.raises(FrozenInstanceError):
        BOX.top = 1


def test_field_names_are_the_contract():
    assert [field.name for field in fields(Batch)] == [
        *("ids", "images", "probabilities", "features", "places", "place_size", "valid", "labelled", "cost", "size")
    ]
    assert {field.name for field in fields(Observation)} == {
        *(
            "ids",
            "information",
            "confidence",
            "class_fraction",
            "descriptors",
            "size",
            "regions",
            "candidates",
            "excluded",
        )
    }
    assert [field.name for field in fields(Ranking)] == [
        *("ids", "priority", "regions", "points", "pseudo_labels", "picks", "reason")
    ]


def test_batch_fills_in_what_is_omitted():
    made = batch()
    assert made.valid.all()
    assert not made.labelled.any()
    assert made.valid.shape == made.labelled.shape == (2, 4, 5)
    assert made.size.tolist() == [[4, 5], [4, 5]]


def test_batch_reads_ids_from_arrays():
    assert batch(ids=torch.tensor([7, 8])).ids == (7, 8)
    assert batch(ids=np.array(["x", "y"])).ids == ("x", "y")
    assert batch(ids=["x", "y"]).ids == ("x", "y")


SPOILT = torch.full((1, 2, 3, 4, 5), 1 / 3)
SPOILT[0, 1, 0, 2, 3] = float("nan")
NEGATIVE = torch.full((1, 2, 3, 4, 5), 1 / 3)
NEGATIVE[0, 0, :, 0, 0] = torch.tensor([-0.5, 0.75, 0.75])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ("a", "a")}, r"Batch.ids: expected every id once, received 'a' more than once"),
        ({"ids": ("a", 1)}, r"Batch.ids: expected all str or all int, received int, str"),
        ({"ids": (True, False)}, r"Batch.ids: expected all str or all int, received bool"),
        ({"ids": ("a",)}, r"Batch.images: expected shape \(B=1, channels=3, H, W\), received \(2, 3, 4, 5\)"),
        ({"images": torch.rand(2, 1, 4, 5)}, r"Batch.images: expected shape"),
        ({"images": np.zeros((2, 3, 4, 5))}, r"Batch.images: expected a torch.Tensor, received ndarray"),
        ({"images": torch.zeros(2, 3, 4, 5, dtype=torch.uint8)}, r"Batch.images: expected floating-point values"),
        ({"images": torch.rand(2, 3, 4, 5) * 255}, r"Batch.images: expected finite values in \[0, 1\]"),
        ({"images": torch.full((2, 3, 4, 5), torch.nan)}, r"Batch.images: expected finite values in \[0, 1\]"),
        ({"probabilities": torch.rand(2, 3, 4, 5)}, r"\(M, B=2, C, H=4, W=5\), received \(2, 3, 4, 5\)"),
        ({"probabilities": torch.ones(0, 2, 3, 4, 5)}, r"Batch.probabilities: expected shape \(M,"),
        ({"probabilities": torch.randn(1, 2, 3, 4, 5)}, r"sum to 1 over C .* pass the softmax of the logits"),
        ({"probabilities": SPOILT}, r"received a sum of nan .* in image 'b', member 0, row 2, column 3; 1 pixels"),
        ({"probabilities": NEGATIVE}, r"a sum of 1 with a least value of -0.5 in image 'a'"),
        ({"probabilities": torch.ones(1, 2, 1, 4, 5).long()}, r"Batch.probabilities: expected floating-point values"),
        ({"features": torch.rand(3, 6)}, r"Batch.features: expected shape \(B=2, D\), received \(3, 6\)"),
        ({"features": torch.full((2, 6), torch.inf)}, r"Batch.features: expected finite values, received inf \(12 not"),
        ({"valid": torch.ones(2, 4, 5)}, r"Batch.valid: expected torch.bool, received torch.float32"),
        ({"valid": torch.zeros(2, 4, 5, dtype=torch.bool)}, r"Batch.valid: expected a valid pixel in every image"),
        ({"labelled": torch.zeros(2, 4, 4, dtype=torch.bool)}, r"Batch.labelled: expected shape \(B=2, H=4, W=5\)"),
        ({"labelled": torch.zeros(2, 4, 5)}, r"Batch.labelled: expected torch.bool"),
        ({"cost": -torch.ones(2, 4, 5)}, r"Batch.cost: expected finite values in \[0, inf\], received -1 to -1"),
        ({"cost": torch.full((2, 4, 5), torch.inf)}, r"Batch.cost: expected finite values, received inf"),
        ({"size": torch.ones(2, 3).long()}, r"Batch.size: expected shape \(N=2, sides=2\), received \(2, 3\)"),
        ({"size": torch.zeros(2, 2).long()}, r"Batch.size: expected integers from 1 up, received torch.int64 from 0"),
        ({"size": torch.ones(2, 2)}, r"Batch.size: expected integers from 1 up, received torch.float32"),
        ({"features": torch.rand(2, 6, device="meta")}, r"Batch.features: expected on cpu as images, received meta"),
    ],
)
def test_wrong_batches_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batch(**changes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_probabilities_are_accepted(dtype):
    probabilities = (torch.randn(2, 2, 255, 4, 5, generator=torch.Generator().manual_seed(0)) * 2).softmax(dim=2)
    assert batch(probabilities=probabilities.to(dtype)).probabilities.dtype == dtype


def test_padding_may_hold_anything():
    valid = torch.ones(2, 4, 5, dtype=torch.bool)
    valid[:, 3] = False
    assert torch.equal(
        batch(
            probabilities=torch.where(valid[:, None], 1 / 3, torch.nan).expand(1, 2, 3, 4, 5),
            valid=valid,
            cost=torch.where(valid, 1.0, -1.0),
        ).valid,
        valid,
    )


def test_batch_of_no_images():
    made = Batch(ids=(), images=torch.zeros(0, 3, 4, 5), probabilities=torch.zeros(1, 0, 2, 4, 5))
    assert made.size.shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": (1, 1)}, r"Observation.ids: expected every id once"),
        ({"information": torch.zeros(3)}, r"Observation.information: expected shape \(N=2\), received \(3,\)"),
        ({"information": torch.tensor([0, torch.nan])}, r"Observation.information: expected finite values"),
        ({"confidence": torch.tensor([0.5, 1.5])}, r"Observation.confidence: expected finite values in \[0, 1\]"),
        ({"confidence": torch.tensor([0.5])}, r"Observation.confidence: expected shape \(N=2\)"),
        ({"class_fraction": torch.rand(2)}, r"Observation.class_fraction: expected shape \(N=2, C\)"),
        ({"class_fraction": torch.full((2, 3), 0.5)}, r"class_fraction, summed: .* received 1.5 to 1.5"),
        ({"descriptors": torch.full((2, 3), torch.nan)}, r"Observation.descriptors: expected finite values"),
        ({"size": torch.zeros(2, 2)}, r"Observation.size: expected integers from 1 up"),
        ({"regions": (torch.rand(2, 3, 4),)}, r"Observation.regions: expected one entry for each of 2 images"),
        ({"regions": (torch.rand(3, 4), torch.rand(3, 4))}, r"regions: expected shape \(sums=2, rows, columns\)"),
        ({"excluded": ((BOX,),)}, r"Observation.excluded: expected one entry for each of 2 images, received 1"),
    ],
)
def test_wrong_observations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        observation(**changes)


def test_observation_excludes_nothing_when_omitted():
    assert observation().excluded == ((), ())
    assert observation(excluded=[[BOX], []]).excluded == ((BOX,), ())


def test_concatenate_keeps_every_field():
    first = observation(excluded=((BOX,), ()))
    second = observation(ids=(3, 4))
    joined = Observation.concatenate([first, second])
    assert joined.ids == (1, 2, 3, 4)
    for name in ("information", "confidence", "class_fraction", "descriptors", "size"):
        assert torch.equal(getattr(joined, name), torch.cat([getattr(first, name), getattr(second, name)]))
    assert joined.regions == (*first.regions, *second.regions)
    assert joined.excluded == ((BOX,), (), (), ())


def test_concatenate_takes_a_stream_and_skips_empty_parts():
    empty = Observation.concatenate([])
    assert empty.ids == ()
    joined = Observation.concatenate(part for part in (empty, observation(), empty))
    assert joined.ids == (1, 2)
    assert joined.descriptors.shape == (2, 6)


@pytest.mark.parametrize("name", ["confidence", "class_fraction", "descriptors", "regions"])
def test_concatenate_refuses_fields_that_only_some_have(name):
    with pytest.raises(
        ValueError, match=rf"Observation.{name}: expected in all observations or in none, received 1 of 2"
    ):
        Observation.concatenate([observation(), observation(ids=(3, 4), **{name: None})])


def test_concatenate_refuses_an_image_observed_twice():
    with pytest.raises(ValueError, match=r"expected every id once, received 1 more than once"):
        Observation.concatenate([observation(), observation()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": -1}, r"Region.top: expected an integer from 0 up, received -1"),
        ({"width": 0}, r"Region.width: expected an integer from 1 up, received 0"),
        ({"height": 2.0}, r"Region.height: expected an integer from 1 up, received 2.0"),
        ({"score": float("nan")}, r"Region.score: expected a finite number, received nan"),
    ],
)
def test_wrong_regions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(BOX, **changes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"expected either images or pixels, received neither"),
        ({"images": 1, "pixels": 1}, r"expected either images or pixels, received \{'images': 1, 'pixels': 1\}"),
        ({"images": 0}, r"Budget.images: expected an integer from 1 up, received 0"),
        ({"pixels": 1.5}, r"Budget.pixels: expected an integer from 1 up, received 1.5"),
        ({"images": True}, r"Budget.images: expected an integer from 1 up, received True"),
    ],
)
def test_wrong_budgets_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Budget(**given)


def test_ranking_holds_regions_and_pseudo_labels():
    made = Ranking(ids=["b", "a"], priority=[0.5, 0.25], regions={"a": [BOX]}, pseudo_labels=["b"])
    assert made.ids == ("b", "a")
    assert made.priority.dtype == torch.float64
    assert made.regions == {"a": (BOX,)}
    assert made.pseudo_labels == ("b",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ("a", "a")}, r"Ranking.ids: expected every id once"),
        ({"priority": [0.5]}, r"Ranking.priority: expected shape \(N=2\), received \(1,\)"),
        ({"priority": [0.5, 0.5]}, r"Ranking.priority: expected strictly decreasing"),
        ({"priority": [0.25, 0.5]}, r"Ranking.priority: expected strictly decreasing"),
        ({"priority": [1.5, 0.5]}, r"Ranking.priority: expected finite values in \[0, 1\]"),
        ({"priority": [float("nan"), 0.5]}, r"Ranking.priority: expected finite values"),
        ({"regions": {"c": (BOX,)}}, r"Ranking.regions: expected ids of the ranking, received \[\"'c'\"\]"),
        ({"pseudo_labels": ("c",)}, r"Ranking.pseudo_labels: expected ids of the ranking"),
    ],
)
def test_wrong_rankings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Ranking(**{"ids": ("a", "b"), "priority": [0.5, 0.25]} | changes)


def test_a_million_images_keep_their_places():
    count = 1_000_000
    ranking = Ranking.in_order(range(count), np.arange(count)[::-1])
    assert ranking.ids[0] == count - 1
    assert (ranking.priority.diff() < 0).all()


@pytest.mark.parametrize("value", [batch(), observation(), BOX, Budget(images=1)])
def test_all_cross_process_borders(value):
    assert repr(pickle.loads(pickle.dumps(value))) == repr(value)
