"""Training and measuring the networks of a simulation: small ones, compared to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from simulated_data import CLASSES, material, picture, plan, shapes, with_mask
from torch import Tensor

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.masks import png_bytes
from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks import SegmentationNetwork, labels_at
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.ranking import make_strategy
from ml_backend.learning.training.data import Samples
from ml_backend.learning.training.job import Item
from ml_backend.learning.training.loop import fit
from ml_backend.learning.training.measures import count, held_out_measures, measures
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material
from ml_backend.simulation.training import trainer as trainer_module
from ml_backend.simulation.training.evaluation import evaluate
from ml_backend.simulation.training.objects import instances_of, object_scores
from ml_backend.simulation.training.trainer import Trained, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Material:
    return material(6, 3)


def labelled(data: Material, *numbers: int) -> Labels:
    labels = Labels(data.pool, data.background)
    labels.add([Pick(number) for number in numbers])
    return labels


def state(trained: Trained) -> dict[str, Tensor]:
    return trained.predictor.network.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- training ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("train_encoder", [False, True])
def test_the_same_labels_and_seed_give_the_same_weights(data: Material, tmp_path: Path, train_encoder: bool) -> None:
    def train(seed: int, *numbers: int) -> Trained:
        trainer = Trainer(plan(train_encoder=train_encoder), data, tmp_path)
        return trainer.train(labelled(data, *numbers), seed)

    one = train(0, 1, 2)
    again = train(0, 1, 2)
    assert same(state(one), state(again))
    assert one.measured == again.measured
    assert not same(state(one), state(train(1, 1, 2)))
    assert not same(state(one), state(train(0, 1, 3)))


def test_what_was_trained_before_does_not_matter(data: Material, tmp_path: Path) -> None:
    """A simulation that goes on has an empty memory of maps, and none of the trainings before."""
    fresh, used = (Trainer(plan(), data, tmp_path) for _ in range(2))
    used.train(labelled(data, 0, 3, 5), 1)
    used.masks(used.train(labelled(data, 4), 2), (0, 1, 2))
    torch.manual_seed(5)
    assert same(state(fresh.train(labelled(data, 1, 2, 3), 0)), state(used.train(labelled(data, 1, 2, 3), 0)))


def test_training_gives_the_callers_randomness_back(data: Material, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Trainer(plan(views=3), data, tmp_path).train(labelled(data, 1, 2), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_only_what_is_labelled_matters(data: Material, tmp_path: Path) -> None:
    """Other masks of images that are not labelled, and outside of labelled boxes, change no weight."""
    noise = np.random.default_rng(0).integers(0, 3, (40, 48)).astype(np.uint8)
    half = data.pool[2].truth().copy()
    half[:, 24:] = noise[:, 24:]
    pool = dict(data.pool) | {4: with_mask(data.pool[4], noise), 2: with_mask(data.pool[2], half)}
    other = replace(data, pool=pool)
    weights = []
    for one in (data, other):
        labels = labelled(one, 1)
        labels.add([Pick(2, (Box(0, 0, 24, 40),))])
        weights.append(state(Trainer(plan(), one, tmp_path).train(labels, 0)))
    assert same(*weights)


def test_an_encoder_that_is_not_trained_keeps_its_weights(data: Material, tmp_path: Path) -> None:
    trainer = Trainer(plan(), data, tmp_path)
    one, other = state(trainer.train(labelled(data, 1), 0)), state(trainer.train(labelled(data, 2, 3), 1))
    encoder = [name for name in one if "encoder" in name.split(".")]
    assert encoder
    assert all(torch.equal(one[name], other[name]) for name in encoder)


def test_a_network_learns(data: Material, tmp_path: Path) -> None:
    trainer = Trainer(plan(iterations=120, learning_rate=1e-2), data, tmp_path)
    short = Trainer(plan(iterations=1), data, tmp_path).train(labelled(data, *data.pool), 0)
    assert trainer.train(labelled(data, *data.pool), 0).measured.miou > short.measured.miou + 0.2


def test_every_training_sees_its_images_equally_often(
    data: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a number of steps alone, the network that learns from all labels has seen each of them the least."""
    seen = []

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments[2].iterations)
        return fit(*arguments, **options)

    monkeypatch.setattr(trainer_module, "fit", noted)
    trainer = Trainer(plan(iterations=4, passes=6, batch_size=2), data, tmp_path)
    labels = labelled(data, 1, 2)
    pseudo = {3: torch.zeros_like(data.pool[3].mask)}
    trainer.train(labels, 0)
    trainer.train(labels, 0, pseudo)
    trainer.train(labelled(data, *data.pool), 0)
    trainer.committee(make_strategy("suggestive_annotation", {}), trainer.train(labelled(data, 1), 0), labels, 0)
    assert seen == [6, 9, 3 * len(data.pool), 4, 6, 6]  # passes * images / batch, or the fewest


def test_pseudo_labels_train_and_count_for_nothing(data: Material, tmp_path: Path) -> None:
    trainer, labels = Trainer(plan(), data, tmp_path), labelled(data, 1, 2)
    without = trainer.train(labels, 0)
    masks = trainer.masks(without, (4, 5))
    assert {number: mask.shape for number, mask in masks.items()} == {4: (27, 32), 5: (27, 32)}
    assert all(mask.dtype == torch.uint8 and int(mask.max()) < 3 for mask in masks.values())
    assert not same(state(without), state(trainer.train(labels, 0, masks)))
    assert (len(labels), labels.numbers) == (2, [1, 2])


def test_predicted_masks_are_those_of_the_network(data: Material, tmp_path: Path) -> None:
    trainer = Trainer(plan(), data, tmp_path)
    trained = trainer.train(labelled(data, 1, 2), 0)
    with torch.no_grad():
        expected = trained.predictor.network(data.pool[4].pixels[None] / 255)[0].argmax(dim=0)
    assert torch.equal(trainer.masks(trained, (4,))[4].long(), expected)


def test_an_image_of_which_nothing_is_known_does_not_train(data: Material, tmp_path: Path) -> None:
    ignored = with_mask(data.pool[5], np.full((40, 48), 255, np.uint8))
    other = replace(data, pool=dict(data.pool) | {5: ignored})
    trainer = Trainer(plan(), other, tmp_path)
    assert same(state(trainer.train(labelled(other, 1, 2), 0)), state(trainer.train(labelled(other, 1, 2, 5), 0)))


# -- first -------------------------------------------------------------------------------------------------------------
def test_the_first_network_is_trained_once_and_kept(
    data: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = labelled(data, 1, 2)
    first = Trainer(plan(), data, tmp_path).first(labels, 0)
    fresh = Trainer(plan(), data, tmp_path)
    monkeypatch.setattr(fresh, "train", lambda *_: pytest.fail("it was trained again"))
    again = fresh.first(labels, 0)
    assert same(state(first), state(again))
    assert (first.measured, first.seconds) == (again.measured, again.seconds)
    assert not again.predictor.network.training
    with torch.no_grad():
        pixels = data.pool[3].pixels[None] / 255
        assert torch.equal(first.predictor.network(pixels), again.predictor.network(pixels))


def test_the_first_network_is_that_of_its_seed(data: Material, tmp_path: Path) -> None:
    trainer, labels = Trainer(plan(), data, tmp_path), labelled(data, 1, 2)
    assert not same(state(trainer.first(labels, 0)), state(trainer.first(labels, 1)))
    assert same(state(trainer.first(labels, 0)), state(trainer.train(labels, 0)))


# -- committees --------------------------------------------------------------------------------------------------------
def test_a_committee_is_made_where_a_strategy_needs_one(data: Material, tmp_path: Path) -> None:
    trainer, labels = Trainer(plan(dropout=0.5), data, tmp_path), labelled(data, 1, 2, 3)
    trained = trainer.train(labels, 0)
    assert trainer.committee(make_strategy("entropy", {}), trained, labels, 0) is None
    dropout = trainer.committee(make_strategy("bald", {}), trained, labels, 0)
    assert dropout is not None
    assert dropout.members == 4
    ensemble = trainer.committee(make_strategy("suggestive_annotation", {}), trained, labels, 0)
    assert ensemble is not None
    assert ensemble.members == 2


def opinions(trainer: Trainer, data: Material, labels: Labels, seed: int) -> list[Tensor]:
    trained = trainer.train(labels, 0)
    committee = trainer.committee(make_strategy("suggestive_annotation", {}), trained, labels, seed)
    assert committee is not None
    with torch.no_grad():
        found, _ = committee.opinions(trained.predictor.network, data.pool[5].pixels[None] / 255, features=False)
        return list(found)


def test_an_ensemble_follows_from_labels_and_seed(data: Material, tmp_path: Path) -> None:
    labels = labelled(data, 1, 2, 3)
    one, again, other = (opinions(Trainer(plan(), data, tmp_path), data, labels, seed) for seed in (0, 0, 1))
    assert not torch.equal(one[0], one[1])
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])


# -- measuring ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def predictor(data: Material, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A network that has learned something, but makes mistakes."""
    trainer = Trainer(plan(iterations=40, learning_rate=3e-2), data, tmp_path_factory.mktemp("learned"))
    return trainer.train(labelled(data, *data.pool), 0).predictor


@pytest.mark.parametrize(
    ("size", "off"),
    [
        pytest.param((32, 30), 1e-6, id="of the network's size"),
        # Probabilities are upsampled, not logits as production does: borders differ by pixels.
        pytest.param((40, 48), 0.02, id="larger"),
    ],
)
def test_measured_as_trainings_are(predictor: Predictor, tmp_path: Path, size: tuple[int, int], off: float) -> None:
    """The same numbers as production's measures, of the same network, on files of the same images."""
    items, pictures = [], []
    for number in (1000, 1001, 1002):
        image, mask = shapes(number, *size)
        mask[:5] = 255
        pictures.append(picture(number, mask, image))
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}-mask.png").write_bytes(png_bytes(mask))
        items.append(Item(str(number), tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png", True, ""))
    held_out = Samples(items, classes=3, input_size=32)
    counts = count(predictor.network, held_out, CLASSES, device=CPU, report=lambda _: None)
    expected = held_out_measures(counts)
    assert 0.3 < expected["miou"] < 0.95
    for batch_size in (1, 2, 8):
        found = evaluate(predictor, pictures, at="original", batch_size=batch_size)
        assert found.miou == pytest.approx(expected["miou"], abs=off)
        assert found.dice == pytest.approx(expected["mean_dice"], abs=off)
        assert (found.object_f1, found.object_dice) == (None, None)


def test_measured_at_the_size_of_the_network(data: Material, predictor: Predictor) -> None:
    """Counted pixel by pixel, from the network's own prediction."""
    counts = torch.zeros(3, 3, dtype=torch.int64)
    for one in data.test:
        with torch.no_grad():
            predicted = predictor.network(one.pixels[None] / 255)[0].argmax(dim=0)
        for true in range(3):
            for given in range(3):
                counts[true, given] += int(((one.mask == true) & (predicted == given)).sum())
    expected = measures(counts, CLASSES)
    found = evaluate(predictor, data.test, at="network", batch_size=2)
    assert found.miou == pytest.approx(expected["miou"], abs=0.005)
    assert found.dice == pytest.approx(expected["mean_dice"], abs=0.005)
    assert found.miou != evaluate(predictor, data.test, at="original", batch_size=2).miou


def test_ignored_pixels_do_not_measure(data: Material, predictor: Predictor) -> None:
    """What is wrong is ignored: all that is left is right."""
    pictures = []
    for one in data.test:
        predicted = predict(predictor.network, one.pixels, one.size)
        truth = one.truth().copy()
        truth[truth != predicted] = 255
        pictures.append(with_mask(one, truth))
    assert evaluate(predictor, pictures, at="original", batch_size=1).miou == pytest.approx(1, abs=0.01)


def predict(network: SegmentationNetwork, pixels: Tensor, size: tuple[int, int]) -> np.ndarray:
    with torch.no_grad():
        return labels_at(network(pixels[None] / 255)[0].softmax(dim=0), *size)


def largest(mask: np.ndarray) -> int:
    """The class, but background, that most pixels have."""
    return int(np.bincount(mask.ravel(), minlength=3)[1:].argmax()) + 1


def test_objects_are_those_of_one_class(data: Material, predictor: Predictor) -> None:
    one = data.test[0]
    predicted = predict(predictor.network, one.pixels, one.size)
    value = largest(predicted)
    truth = np.roll(predicted, 1, axis=1)
    nothing = np.zeros(truth.shape, bool)
    expected = object_scores(
        instances_of(truth, value), instances_of(predicted, value, nothing, minimum_area=20), nothing
    )
    found = evaluate(predictor, [with_mask(one, truth)], at="network", batch_size=1, object_class=value)
    assert found.object_f1 == pytest.approx(expected.f1, abs=0.02)
    assert found.object_dice == pytest.approx(expected.dice, abs=0.02)
    assert found.object_dice is not None
    assert 0 < found.object_dice < 1


def test_given_objects_come_before_connected_components(data: Material, predictor: Predictor) -> None:
    """A truth that is predicted exactly, but that the data set cuts in two down the middle."""
    one = data.test[0]
    predicted = predict(predictor.network, one.pixels, one.size)
    value = largest(predicted)
    halves = instances_of(predicted, value)
    middle = int(np.median(np.nonzero(halves)[1]))
    halves[:, :middle][halves[:, :middle] > 0] += 100
    whole = evaluate(predictor, [with_mask(one, predicted)], at="original", batch_size=1, object_class=value)
    told = replace(with_mask(one, predicted), instances=halves)
    apart = evaluate(predictor, [told], at="original", batch_size=1, object_class=value)
    assert whole.object_dice is not None
    assert apart.object_dice is not None
    assert apart.object_dice < whole.object_dice
    assert whole.miou == apart.miou


def test_the_objects_of_a_plan_are_those_of_its_class(data: Material, tmp_path: Path) -> None:
    measured = Trainer(plan(object_class="disc"), data, tmp_path).train(labelled(data, 1, 2), 0).measured
    assert measured.object_f1 is not None
    assert Trainer(plan(), data, tmp_path).train(labelled(data, 1, 2), 0).measured.object_f1 is None


def test_a_committee_of_copies_says_so(data: Material, tmp_path: Path) -> None:
    trainer, labels = Trainer(plan(dropout=0.0), data, tmp_path), labelled(data, 1, 2)
    trained = trainer.train(labels, 0)
    with pytest.raises(ConfigurationError, match="NEXTMASK_DROPOUT"):
        trainer.committee(make_strategy("bald", {}), trained, labels, 0)
