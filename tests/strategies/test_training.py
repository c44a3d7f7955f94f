from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from strategies.training import Run, Sample, before, digest, drawn, is_past


def line(seed=1, **changes):
    """A run that fits a straight line, and its step."""
    module = drawn(lambda: nn.Linear(2, 1), seed)
    given = {"kind": "line", "settings": {"width": 2}, "seed": seed, "data": "d", "learning_rate": 0.1}
    run = Run(**given | changes, modules=(module,))

    def step(chance):
        run.descend(0, (module(torch.randn(8, 2, generator=chance)) - 1).square().mean())

    return run, step, module


def saved(state, file):
    """The state after a trip through a file that may hold nothing but tensors and plain values."""
    torch.save(state, file)
    return torch.load(file, weights_only=True)


def test_a_run_taken_up_elsewhere_ends_like_one_never_interrupted(tmp_path):
    whole, step, straight = line()
    whole.until(12, step)
    first, step, _ = line()
    first.until(5, step)
    second, step, resumed = line(seed=99)
    second.load_state_dict(saved(first.state_dict(), tmp_path / "run.pt"))
    assert second.step == 5
    second.until(12, step)
    assert torch.equal(resumed.weight, straight.weight)
    assert second.state_dict()["seed"] == 1


def test_progress_and_deadline():
    run, step, _ = line()
    told = []
    run.until(4, step, progress=lambda done, steps: told.append((done, steps)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    run.until(9, step, deadline=time.monotonic())
    assert run.step == 4
    run.until(9, step, deadline=time.monotonic() + 60)
    assert run.step == 9


def test_in_training_mode_only_while_training():
    run, step, module = line()
    modes = []
    run.until(1, lambda chance: (modes.append(module.training), step(chance)))
    assert modes == [True]
    assert not module.training


def test_a_step_is_of_one_network_and_of_this_loss_alone():
    # what the other's loss left behind must not leak in, nor may the other network move
    one, other = drawn(lambda: nn.Linear(2, 1), 1), drawn(lambda: nn.Linear(1, 1), 2)
    run = Run(kind="pair", settings={}, seed=0, data="d", modules=(one, other), learning_rate=0.1)
    before_step = [module.weight.detach().clone() for module in (one, other)]
    images = torch.ones(4, 2)
    run.descend(0, other(one(images)).sum())
    assert not torch.equal(one.weight, before_step[0])
    assert torch.equal(other.weight, before_step[1])
    run.descend(1, other(torch.ones(4, 1)).sum())
    assert other.weight.grad.item() == 4, "the derivative of this loss, not of both"


def test_states_are_copies():
    run, step, module = line()
    run.until(1, step)
    state = run.state_dict()
    weight = module.weight.clone()
    run.until(5, step)
    assert torch.equal(state["modules"][0]["weight"], weight)


@pytest.mark.parametrize("changes", [{"kind": "other"}, {"settings": {"width": 3}}])
def test_foreign_states_are_refused(changes):
    run, _, _ = line()
    other, _, _ = line(**changes)
    with pytest.raises(ValueError, match="line: expected a state of"):
        run.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="line: expected a state of"):
        run.load_state_dict({"step": 1})


def test_weights_follow_from_the_seed_alone():
    before_building = torch.random.get_rng_state()
    one, same, other = (drawn(lambda: nn.Linear(3, 3), seed).weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before_building)


def test_sample_is_bounded_and_independent_of_the_order():
    names = [f"image-{one}" for one in range(200)]
    kept = []
    for order in (names, names[::-1], names[77:] + names[:77]):
        sample = Sample[str](50)
        for name in order:
            sample.offer(name, name.upper())
        kept.append(sample.values())
    assert kept[0] == kept[1] == kept[2]
    assert len(set(kept[0])) == 50


def test_sample_keeps_all_of_a_small_stream():
    sample = Sample[int](50)
    for one in range(10):
        sample.offer(str(one), one)
    assert sorted(sample.values()) == list(range(10))


def test_digest_sees_values_shape_and_kind():
    values = torch.arange(4.0)
    others = [values + 1, values.view(2, 2), values.int(), values.double()]
    assert digest([values]) == digest([values.clone()])
    assert len({digest([one]) for one in [values, *others]}) == 5


def test_before_a_deadline():
    assert list(before(None, [1, 2])) == [1, 2]
    assert list(before(time.monotonic(), [1, 2])) == [1], "there is always something to start from"
    assert not is_past(None)
