"""Training: formulas by hand, reading and augmentation, and whole small trainings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import disc_job, same_weights
from torch import Tensor, nn

from ml_backend.errors import CheckpointError, ConfigurationError, TrainingError
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.measuring import Counts
from ml_backend.learning.measuring.comparison import Comparison, compared
from ml_backend.learning.networks import build
from ml_backend.learning.training import Item, Job, Progress, gate, train
from ml_backend.learning.training.data import Samples
from ml_backend.learning.training.fit import Average, finite, parameter_groups, rate, seeded
from ml_backend.learning.training.gate import Verdict, judge, judge_trial
from ml_backend.learning.training.length import LEAST_PASSES
from ml_backend.learning.training.losses import class_weights_of, cross_entropy, cross_entropy_dice, dice, pixel_weights
from ml_backend.learning.training.measures import count, held_out_measures, measures
from ml_backend.learning.training.recipe import resolved
from ml_backend.learning.training.start import initial_network, rebuild

CPU = torch.device("cpu")
CLASSES = ("background", "disc")

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(job: Job, version: Version) -> dict[str, Tensor]:
    return Checkpoints(job.folder).load_state(version)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Version, list[Progress]]:
    """One training that others are compared with."""
    job = disc_job(tmp_path_factory.mktemp("trained"))
    shown: list[Progress] = []
    return job, train(job, shown.append), shown


# -- losses ----------------------------------------------------------------------------------------------------------


def test_cross_entropy_of_uniform_logits_is_log_c() -> None:
    target = torch.tensor([[[0, 1, 2, 255]]])
    assert cross_entropy(torch.zeros(1, 3, 1, 4), target).item() == pytest.approx(math.log(3))


def test_dice_by_hand() -> None:
    # class 0: 2 true pixels, class 1: 1, class 2: none; every probability 1/3, the fourth pixel not labelled
    target = torch.tensor([[[0, 0, 1, 255]]])
    expected = 1 - (2 * (2 / 3) / (1 + 2) + 2 * (1 / 3) / (1 + 1)) / 2
    assert dice(torch.zeros(1, 3, 1, 4), target).item() == pytest.approx(expected)


def test_each_image_of_a_batch_counts_alike() -> None:
    """One labelled pixel beside four: of two images, half of the loss is the first one's."""
    target = torch.full((2, 2, 2), 255)
    target[0, 0, 0], target[1] = 0, 1
    logits = torch.zeros(2, 2, 2, 2)
    logits[0, 0] = math.log(3)  # the right class of the first has a probability of 3/4, that of the second 1/2
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert cross_entropy(logits, target).item() == pytest.approx(expected)
    # class 0: 1 of truth, 3/4 predicted there, 1/2 in the other; class 1: 1, 1/2, 1/4
    by_hand = 1 - (2 * 0.75 / (0.75 + 0.5 + 1) + 2 * 0.5 / (0.5 + 0.25 + 1)) / 2
    assert dice(logits, target).item() == pytest.approx(by_hand)
    assert pixel_weights(target)[0].sum() == pixel_weights(target)[1].sum() == 2.5


def test_images_that_are_labelled_alike_weigh_by_their_pixels() -> None:
    target = torch.randint(0, 3, (3, 5, 6))
    assert torch.equal(pixel_weights(target), torch.ones(3, 5, 6))
    assert torch.equal(pixel_weights(torch.full((2, 3, 3), 255)), torch.zeros(2, 3, 3))


def test_rare_classes_weigh_more_and_no_class_all() -> None:
    weights = class_weights_of(torch.tensor([0.8, 0.2]))
    assert weights.tolist() == pytest.approx([1 / 1.2, 2 / 1.2])  # the root of 4 apart, 1 in the mean over the pixels
    assert class_weights_of(torch.tensor([0.5, 0.5])).tolist() == [1, 1]
    logits = torch.zeros(1, 2, 1, 5)
    target = torch.tensor([[[0, 0, 0, 0, 1]]])
    logits[0, 1, 0, 4] = math.log(3)  # the pixel of class 1 is right with 3/4
    expected = (4 * math.log(2) / 1.2 + math.log(4 / 3) * 2 / 1.2) / 5
    assert cross_entropy(logits, target, weights).item() == pytest.approx(expected)
    one_pixel, none = class_weights_of(torch.tensor([1 - 1e-9, 1e-9])), class_weights_of(torch.tensor([1.0, 0.0]))
    assert one_pixel[1] / one_pixel[0] == pytest.approx(1000**0.5)
    assert none[0] == 1
    assert none.isfinite().all()


def test_losses_vanish_for_certain_and_right_logits() -> None:
    target = torch.randint(0, 3, (2, 5, 6))
    logits = 50 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    assert cross_entropy_dice(logits, target).item() == pytest.approx(0, abs=1e-5)


def test_pixels_that_are_not_labelled_change_nothing() -> None:
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    target[:, :4] = 255
    other = logits.clone()
    other[:, :, :4] = 100 * torch.randn(2, 3, 4, 8)
    assert torch.allclose(cross_entropy_dice(logits, target), cross_entropy_dice(other, target))


def test_a_batch_without_labels_teaches_nothing_and_is_finite() -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss = cross_entropy_dice(logits, torch.full((2, 8, 8), 255))
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# -- measures --------------------------------------------------------------------------------------------------------


def test_measures_by_hand() -> None:
    # rows truth, columns prediction; class c has no true pixel, but one was given to it
    found = measures(torch.tensor([[6, 1, 1], [2, 10, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert found["iou"] == {"a": pytest.approx(6 / 10), "b": pytest.approx(10 / 13), "c": None}
    assert found["dice"] == {"a": pytest.approx(12 / 16), "b": pytest.approx(20 / 23), "c": None}
    assert found["miou"] == pytest.approx((6 / 10 + 10 / 13) / 2)
    assert found["pixel_accuracy"] == pytest.approx(16 / 20)
    assert found["pixels"] == 20


def test_measures_of_nothing() -> None:
    found = measures(torch.zeros(2, 2, dtype=torch.int64), CLASSES)
    assert (found["miou"], found["mean_dice"], found["pixel_accuracy"]) == (None, None, None)
    assert found["iou"] == {"background": None, "disc": None}


class RedIsClassOne(nn.Module):
    """Logits (B,2,H,W) that choose class 1 where the red channel is above one half."""

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0] - 0.5
        return torch.stack([-red, red], dim=1)


def test_pixels_are_counted_at_the_original_size(tmp_path: Path) -> None:
    mask = np.zeros((100, 160), np.uint8)
    mask[:, 80:] = 1
    image = np.zeros((100, 160, 3), np.uint8)
    image[:, 80:, 0] = 255
    mask[:10] = 255
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    item = Item("1", tmp_path / "image.png", tmp_path / "mask.png", True, "")
    samples = Samples([item], classes=2, input_size=32)
    done: list[int] = []
    counts = count(RedIsClassOne(), samples, CLASSES, device=CPU, report=done.append)
    assert counts.labels == ("1",)
    assert counts.pixels.tolist() == [[[90 * 80] * 3, [90 * 80] * 3]]
    assert done == [1]


# -- the gate --------------------------------------------------------------------------------------------------------


def measured(first: list[float], second: list[float]) -> Comparison | None:
    """Compare two versions by the accuracy of each of some images of 100 pixels, half of which are of each class."""
    made = [
        np.array([[[50, 50, round(50 * one)], [50, 50, round(50 * one)]] for one in shares])
        for shares in (first, second)
    ]
    labels = tuple(map(str, range(len(first))))
    return compared(*(Counts(CLASSES, labels, labels, pixels) for pixels in made))


def judged(first: list[float], second: list[float]) -> Verdict:
    """Judge version 5 against version 4."""
    return judge(4, measured(first, second))


def test_a_version_that_is_worse_beyond_chance_is_kept_back() -> None:
    verdict = judged([0.9, 0.8, 0.7, 0.9], [0.88, 0.78, 0.66, 0.88])
    assert not verdict.accepted
    assert verdict.reason.startswith("worse than version 4: -3.5 points (-")
    assert verdict.reason.endswith(") of mIoU on the same 4 images")


def test_a_difference_that_may_be_chance_is_no_reason_to_keep_a_version_back() -> None:
    verdict = judged([0.9, 0.8, 0.7, 0.9], [0.8, 0.86, 0.66, 0.9])
    assert verdict.accepted
    assert verdict.reason.startswith("cannot be told apart from version 4 yet: -2.8 points (-17.8 to +12.1)")


def test_a_version_that_is_better_beyond_chance_is_said_to_be() -> None:
    verdict = judged([0.88, 0.78, 0.66, 0.88], [0.9, 0.8, 0.7, 0.9])
    assert verdict.accepted
    assert verdict.reason.startswith("better than version 4: +3.5 points (+")


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_broken_version_is_kept_back_however_few_images_measure(images: int) -> None:
    verdict = judged([0.9, 0.7, 0.8][:images], [0.2, 0.5, 0.1][:images])
    assert not verdict.accepted
    assert verdict.reason.startswith("cannot be told apart from version 4 yet: -")
    assert verdict.reason.endswith("; a loss of more than 10 points keeps it back all the same")
    assert judged([0.9, 0.7, 0.8][:images], [0.88, 0.7, 0.78][:images]).accepted


def test_what_cannot_be_compared_is_accepted_and_says_why() -> None:
    assert judge(None, None) == Verdict(True, "first version")
    expected = Verdict(True, "not compared with version 4: it has other classes")
    assert judge(4, None, why_not="it has other classes") == expected


@pytest.mark.parametrize(
    ("second", "learns", "is_better", "words"),
    [
        (
            [0.84, 0.84],
            True,
            True,
            ": the encoder learns from now on",
        ),
        (
            [0.84, 0.84],
            False,
            True,
            ": the encoder stays as it is from now on",
        ),
        ([0.98, 0.72], True, True, ": the encoder learns from now on"),
        ([0.80, 0.80], True, False, ": so the encoder stays as it is"),
        ([0.62, 0.80], True, False, ": so the encoder stays as it is"),
        ([0.62, 0.80], False, False, ": so the encoder goes on learning"),
    ],
)
def test_a_trial_has_to_be_better_by_a_lead(second: list[float], learns: bool, is_better: bool, words: str) -> None:
    """A difference that may be chance is enough: the third row's interval holds everything."""
    verdict = judge_trial(measured([0.8, 0.8], second), learns=learns)
    assert verdict.accepted is is_better
    assert verdict.reason.endswith(words)


def test_a_trial_says_what_was_measured() -> None:
    tried = judge_trial(measured([0.8, 0.8], [0.84, 0.84]), learns=True)
    assert tried.reason.startswith("An encoder that learns measured mIoU 0.72 against 0.67 on the same 2 images: ")
    back = judge_trial(measured([0.8, 0.8], [0.84, 0.84]), learns=False)
    assert back.reason.startswith("An encoder that stays as it is measured mIoU 0.72 against 0.67 on the same 2 ima")


def test_a_trial_that_cannot_be_compared_is_kept_back() -> None:
    verdict = judge_trial(None, learns=True, why_not="no label is held out")
    assert not verdict.accepted
    assert (
        verdict.reason
        == "An encoder that learns could not be compared: no label is held out, so the encoder stays as it is"
    )


@pytest.mark.parametrize(("lead", "is_accepted"), [(-1.0, True), (1.0, False)])
def test_a_trial_tries_the_other_way_on_the_labels_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lead: float, is_accepted: bool
) -> None:
    monkeypatch.setattr(gate, "LEAD", lead)
    job = disc_job(tmp_path, training=3, held_out=2, iterations=2, input_size=32, train_encoder=False)
    frozen = train(job)
    trial = train(dataclasses.replace(job, parent=frozen.number, trial=True, train_encoder=True))
    assert (trial.record.trial, trial.record.accepted) == (True, is_accepted)
    assert "trial" not in trial.record.settings
    assert (trial.record.settings["train_encoder"], frozen.record.settings["train_encoder"]) == (True, False)
    assert trial.record.measures["parent_miou"] == pytest.approx(frozen.record.measures["miou"])
    before, after = weights(job, frozen), weights(job, trial)
    moved = {name for name in before if "encoder" in name and not before[name].equal(after[name])}
    assert moved, "the encoder learned"
    back = train(dataclasses.replace(job, parent=trial.number, trial=True, train_from="scratch"))
    again = weights(job, back)
    assert all(again[name].equal(before[name]) for name in before if "encoder" in name), "as it came"


# -- data ------------------------------------------------------------------------------------------------------------


# -- optimisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 2, 10, 200])
def test_rate_rises_then_falls(iterations: int) -> None:
    rates = [rate(step / iterations) for step in range(iterations)]
    peak = rates.index(max(rates))
    assert all(0 < value <= 1 for value in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if iterations >= 10:
        assert max(rates) == 1
        assert peak == iterations // 10


def test_the_encoder_gets_its_own_rate() -> None:
    network = build(encoder="mobilenet_v2", encoder_weights="none", classes=2, dropout=0)
    encoder, rest = parameter_groups(network, 1e-3, 0.1)
    assert (encoder["lr"], rest["lr"]) == (pytest.approx(1e-4), 1e-3)
    assert len(encoder["params"]) == len(list(network.model.get_submodule("encoder").parameters()))
    assert len(encoder["params"]) + len(rest["params"]) == len(list(network.parameters()))


def test_a_diverged_training_ends() -> None:
    with pytest.raises(TrainingError, match="became nan at iteration 3: lower NEXTMASK_LEARNING_RATE"):
        finite(torch.tensor(torch.nan), 3)


def test_seeding_gives_the_callers_randomness_back() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with seeded(9, CPU):
        torch.rand(3)
    assert torch.equal(torch.rand(1), expected)


# -- the job ---------------------------------------------------------------------------------------------------------


def test_a_job_survives_json(tmp_path: Path) -> None:
    job = disc_job(tmp_path, parent=3, train_from="scratch", seed=7)
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 0}, "input_size of a training must be positive, not 0"),
        ({"batch_size": -1}, "batch_size of a training must be 0 or more, not -1"),
        ({"iterations": -1}, "iterations of a training must be 0 or more, not -1"),
        ({"learning_rate": math.nan}, "learning_rate of a training must be 0 or more, not nan"),
        ({"training_budget": math.inf}, "training_budget of a training must be 0 or more, not inf"),
        ({"classes": ()}, "1 to 255 classes, not 0"),
        ({"train_from": "first"}, "'last' or 'scratch', not 'first'"),
    ],
)
def test_an_impossible_job_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        dataclasses.replace(disc_job(tmp_path), **changes)


def test_ids_must_differ(tmp_path: Path) -> None:
    job = disc_job(tmp_path)
    with pytest.raises(TrainingError, match="same id"):
        dataclasses.replace(job, items=(job.items[0], job.items[0]))


# -- whole trainings -------------------------------------------------------------------------------------------------


def test_it_learns(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, version, _ = trained
    record = version.record
    assert record.measures["miou"] > 0.8
    assert record.measures["iou"]["disc"] > 0.65
    assert record.measures["pixels"] == 3 * 40 * 48
    counts = {name: record.measures[name] for name in ("trained", "held_out", "skipped")}
    assert counts == {"trained": 6, "held_out": 3, "skipped": 0}
    assert record.labels == {str(index): f"digest-{index}" for index in range(9)}
    assert record.held_out == ("6", "7", "8")
    assert (record.classes, record.data_digest, record.label_map_digest) == (CLASSES, "data", "map")
    assert record.settings["encoder"] == job.encoder
    assert record.accepted
    assert record.reason == "first version"
    assert Checkpoints(job.folder).current() is None  # the caller publishes


def test_progress_is_told(trained: tuple[Job, Version, list[Progress]]) -> None:
    _, _, shown = trained
    reading = [step for step in shown if step.stage == "reading"]
    training = [step for step in shown if step.stage == "training"]
    assert [step.done for step in reading] == list(range(1, 10))
    assert [step.done for step in training] == list(range(1, 21))
    assert {step.total for step in training} == {20}
    assert all(step.loss is not None and step.loss > 0 for step in training)
    assert {step.total for step in shown if step.stage == "measuring"} == {3}
    assert (training[0].held_out, training[-1].held_out[:2]) == ("", "0.")
    assert training[-1].held_out.endswith(") on 3 images")


def test_the_course_of_a_training_has_the_interval_of_each_measure(
    trained: tuple[Job, Version, list[Progress]],
) -> None:
    measures, course = trained[1].record.measures, trained[1].record.course["miou"]
    assert course[-1] == [20, measures["miou"], *measures["intervals"]["miou"]]
    assert all(0 <= low <= value <= high <= 1 for _, value, low, high in course)


def test_the_stored_weights_are_those_that_were_measured(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, version, _ = trained
    network = rebuild(Checkpoints(job.folder), version)
    samples = Samples([item for item in job.items if item.held_out], classes=2, input_size=job.input_size)
    counts = count(network, samples, CLASSES, device=CPU, report=lambda _: None)
    assert counts.texts() == version.record.counts
    assert held_out_measures(counts)["miou"] == version.record.measures["miou"]


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=2, training=3, held_out=1, input_size=32)
    torch.rand(3)  # what was drawn before does not matter
    first, second = train(job), train(job)
    other = train(dataclasses.replace(job, seed=1))
    assert (first.number, second.number, other.number) == (1, 2, 3)
    assert same_weights(weights(job, first), weights(job, second))
    assert not same_weights(weights(job, first), weights(job, other))


def test_training_goes_on_from_the_parent(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = dataclasses.replace(job, parent=parent.number, iterations=1, learning_rate=1e-9)
    child = train(job).record
    assert child.parent == parent.number
    assert child.measures["parent_miou"] == pytest.approx(parent.record.measures["miou"])
    assert child.measures["miou"] > 0.7
    assert child.reason.startswith("cannot be told apart from version 1 yet: ")
    assert (child.measures["images"], child.measures["groups"]) == (3, 3)
    low, high = child.measures["intervals"]["miou"]
    assert 0 <= low < child.measures["miou"] < high <= 1


def test_a_worse_version_is_kept_but_not_accepted(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = dataclasses.replace(job, parent=parent.number, iterations=1, learning_rate=1e-9, train_from="scratch")
    child = train(job)
    assert not child.record.accepted
    assert child.record.reason.startswith("worse than version 1: -")
    assert Checkpoints(job.folder).get(child.number) == child


def test_labels_that_trained_the_parent_measure_neither_it_nor_what_starts_from_it(
    trained: tuple[Job, Version, list[Progress]],
) -> None:
    job, parent, _ = trained
    swapped = [dataclasses.replace(item, held_out=item.id in {"0", "1", "6"}) for item in job.items]
    job = dataclasses.replace(job, items=tuple(swapped), parent=parent.number, iterations=1, learning_rate=1e-9)
    child = train(job).record
    assert child.counts.keys() == {"0", "1", "6"}
    assert child.parent_counts.keys() == {"6"}  # version 1 has learned 0 and 1
    assert child.measures["miou"] < 0.7  # from the beginning: with the weights of version 1 it would be as good
    only_learned = [dataclasses.replace(item, held_out=item.id in {"0", "1"}) for item in job.items]
    child = train(dataclasses.replace(job, items=tuple(only_learned))).record
    assert child.reason == "not compared with version 1: it was trained on the labels that are held out now"


def test_images_of_a_group_are_counted_as_one(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, _, _ = trained
    grouped = tuple(dataclasses.replace(item, group="patient 7" if item.id in {"6", "7"} else "") for item in job.items)
    record = train(dataclasses.replace(job, items=grouped, iterations=1)).record
    assert (record.measures["images"], record.measures["groups"]) == (3, 2)
    assert record.groups.keys() == {"6", "7"}
    assert "patient" not in str(record)


def test_a_parent_of_another_input_size_is_measured_at_its_own(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = dataclasses.replace(job, parent=parent.number, iterations=1, input_size=32)
    assert train(job).record.measures["parent_miou"] == pytest.approx(parent.record.measures["miou"])


def test_classes_that_stay_keep_their_rows(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = resolved(dataclasses.replace(job, classes=("ring", "disc", "background")))
    checkpoints = Checkpoints(job.folder)
    before = checkpoints.load_state(parent)
    with seeded(0, CPU):
        after = initial_network(job, checkpoints, parent).state_dict()
    head = [name for name in before if before[name].shape != after[name].shape]
    assert len(head) == 2  # weight and bias
    for name in head:
        assert torch.equal(after[name][1], before[name][1])
        assert torch.equal(after[name][2], before[name][0])
    assert same_weights(*({name: state[name] for name in before if name not in head} for state in (before, after)))


def test_classes_of_the_same_number_are_not_mixed_up(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = resolved(dataclasses.replace(job, classes=("disc", "background")))
    state = initial_network(job, Checkpoints(job.folder), parent).state_dict()
    before = Checkpoints(job.folder).load_state(parent)
    bias = next(name for name in before if "head" in name and name.endswith("bias"))
    assert torch.equal(state[bias], before[bias].flip(0))


def test_changed_classes_train_and_are_not_compared(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = dataclasses.replace(job, classes=("background", "disc", "ring"), parent=parent.number, iterations=1)
    record = train(job).record
    assert record.accepted
    assert record.measures["parent_miou"] is None
    assert record.measures["iou"]["ring"] is None
    assert "other classes" in record.reason


def test_another_network_starts_afresh(trained: tuple[Job, Version, list[Progress]]) -> None:
    job, parent, _ = trained
    job = dataclasses.replace(job, encoder="mobilenet_v2", encoder_weights="none", parent=parent.number, iterations=1)
    record = train(job).record
    assert record.settings["encoder"] == "mobilenet_v2"
    assert record.measures["parent_miou"] == pytest.approx(parent.record.measures["miou"])


def test_held_out_labels_choose_nothing(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=8, training=3, held_out=2, input_size=32)
    swapped = [dataclasses.replace(item, mask=job.items[0].mask) if item.held_out else item for item in job.items]
    one, other = train(job), train(dataclasses.replace(job, items=tuple(swapped), folder=tmp_path / "other"))
    assert one.record.measures["miou"] != other.record.measures["miou"]
    assert same_weights(weights(job, one), Checkpoints(tmp_path / "other").load_state(other))


def test_the_weights_are_averaged_over_the_second_half(tmp_path: Path) -> None:
    network = nn.Linear(1, 1, bias=False)
    average = Average(network)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(network.weight, value)
        average.add()
    with average.in_place():
        averaged = network.weight.item()
    assert network.weight.item() == 3.0
    expected = 1.0 + 0.9 * (2.0 - 1.0)  # the second has a weight of 1 - 1/10
    expected += (1 - 2 / 11) * (3.0 - expected)
    assert averaged == pytest.approx(expected)
    average.load()
    assert network.weight.item() == averaged


def test_a_training_by_time_takes_the_least_passes_when_the_time_is_over(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=0, training_budget=1e-6, training=6, held_out=0, input_size=32)
    record = train(job).record
    assert record.measures["iterations"] == math.ceil(LEAST_PASSES * 6 / 4)
    assert record.settings["iterations"] == 0


def test_without_held_out_labels_all_iterations_are_used(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=3, training=2, held_out=0)
    record = train(job).record
    assert record.measures["iterations"] == 3
    assert record.measures["miou"] is None
    assert record.held_out == ()


def test_one_image_is_enough(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=1, training=1, held_out=0, batch_size=1, input_size=32)
    assert train(job).record.measures["trained"] == 1


def test_unreadable_items_are_skipped_and_counted(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=1, training=3, held_out=2)
    job.items[1].image.write_bytes(b"")
    job.items[4].mask.unlink()
    record = train(job).record
    assert record.labels.keys() == {"0", "2", "3"}
    assert record.skipped.keys() == {"1", "4"}
    assert record.measures["skipped"] == 2
    assert record.held_out == ("3",)


def spoil(job: Job) -> Job:
    for item in job.items:
        if not item.held_out:
            item.image.write_bytes(b"")
    return job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil, r"nothing to train on: 3 labels, 1 of them held out, 2 not usable \(0: "),
        (lambda job: dataclasses.replace(job, items=()), "nothing to train on: 0 labels"),
        (
            lambda job: dataclasses.replace(job, items=job.items[2:]),
            "1 labels, 1 of them held out, 0 not usable",
        ),
    ],
)
def test_nothing_to_train_on(tmp_path: Path, change: Callable[[Job], Job], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train(change(disc_job(tmp_path, training=2, held_out=1)))


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    job = disc_job(tmp_path, training=1, held_out=0)
    with pytest.raises(CheckpointError, match="Version 5 cannot be used"):
        train(dataclasses.replace(job, parent=5))
    with pytest.raises(ConfigurationError, match="NEXTMASK_DEVICE = 'tpu'"):
        train(dataclasses.replace(job, device="tpu"))


def test_what_progress_raises_ends_the_training(tmp_path: Path) -> None:
    job = disc_job(tmp_path, iterations=1000)

    def stop(progress: Progress) -> None:
        if progress.stage == "training":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(job, stop)
    assert Checkpoints(job.folder).versions() == []


def test_an_encoder_that_is_not_trained_stays_as_it_was_statistics_included(tmp_path: Path) -> None:
    job = disc_job(tmp_path / "data", train_encoder=False, iterations=6)
    before = initial_network(resolved(job), Checkpoints(job.folder), None).state_dict()
    version = train(job)
    after = Checkpoints(job.folder).load_state(version)
    encoder = [name for name in after if name.startswith("model.encoder.")]
    rest = [name for name in after if name.startswith(("model.decoder.", "model.segmentation_head."))]
    assert len(encoder) > 100
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert sum(not torch.equal(before[name], after[name]) for name in rest) > len(rest) / 2
    assert version.record.settings["train_encoder"] is False
    trained = Checkpoints(job.folder).load_state(train(dataclasses.replace(job, train_encoder=True)))
    assert sum(not torch.equal(before[name], trained[name]) for name in encoder) > 100
