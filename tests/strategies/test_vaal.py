from __future__ import annotations

import time

import pytest
import torch

from strategies import Batch, Budget, Observation, create
from strategies.autoencoder import Autoencoder, latents_drawn, negative_elbo
from strategies.training import Run
from strategies.vaal import adversarial_loss, discriminator_loss

SMALL = {"image_size": 16, "latent": 4, "width": 4, "epochs": 2, "batch_size": 8, "learning_rate": 2e-3}


def images(brightness, first=0, seed=0):
    """Noisy images of 20 x 24 pixels of the brightness given for each, two to a batch."""
    generator = torch.Generator().manual_seed(seed)
    made = [(value + 0.1 * torch.rand(3, 20, 24, generator=generator)).clamp(0, 1) for value in brightness]
    return [
        Batch(ids=tuple(range(first + start, first + start + len(part))), images=torch.stack(part))
        for start in range(0, len(made), 2)
        if (part := made[start : start + 2])
    ]


LABELLED = images([0.1] * 6, first=100, seed=1)
POOL = images([0.1, 0.8, 0.1, 0.8, 0.1, 0.8, 0.1, 0.8])


def prepared(labelled=LABELLED, pool=POOL, *, seed=0, deadline=None, progress=None, **options):
    strategy = create("vaal", **SMALL | options)
    generator = torch.Generator().manual_seed(seed)
    strategy.prepare(labelled, pool, generator=generator, deadline=deadline, progress=progress)
    return strategy


def observed(strategy, batches=POOL):
    return Observation.concatenate(strategy.observe(batch) for batch in batches)


@pytest.fixture(scope="module")
def trained():
    return prepared(epochs=60)


def test_bright_images_are_chosen_when_dark_ones_are_labelled(trained):
    generator = torch.Generator()
    ranking = trained.rank(observed(trained), None, budget=Budget(images=4), generator=generator)
    assert {one % 2 for one in ranking.ids[:4]} == {1}


def test_lowest_probability_of_being_labelled_first(trained):
    labelled = observed(trained, LABELLED).information
    pool = observed(trained).information
    assert pool[1::2].min() > labelled.max()


def test_score_is_independent_of_batch_order_and_size(trained):
    # evaluation mode forgotten, or scores on batch statistics, would show here
    whole = observed(trained)
    everything = Batch(ids=tuple(range(8)), images=torch.cat([batch.images for batch in POOL]))
    single = [Batch(ids=(one,), images=everything.images[one : one + 1]) for one in range(8)]
    assert torch.equal(trained.observe(everything).information, whole.information)
    assert torch.equal(observed(trained, single[::-1]).information, whole.information.flip(0))


def test_score_is_free_of_chance(trained):
    # neither augmented images nor a draw from the latent distribution
    torch.manual_seed(0)
    first = observed(trained).information
    torch.manual_seed(1)
    assert torch.equal(observed(trained).information, first)


def test_any_size_of_image_is_taken(trained):
    for height, width in ((1, 1), (7, 90), (33, 32)):
        seen = trained.observe(Batch(ids=(1,), images=torch.rand(1, 3, height, width)))
        assert seen.information.isfinite().all()


def test_order_and_size_of_the_training_batches_do_not_matter():
    regrouped = [
        Batch(ids=tuple(one.ids[0] for one in POOL), images=torch.cat([one.images[:1] for one in POOL])),
        Batch(ids=tuple(one.ids[1] for one in POOL), images=torch.cat([one.images[1:] for one in POOL])),
    ]
    one, other = prepared(), prepared(LABELLED[::-1], regrouped)
    assert torch.equal(observed(one).information, observed(other).information)


def test_seeded():
    one, same, other = (observed(prepared(seed=seed)).information for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_training_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    prepared()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_interrupted_training_goes_on_from_a_file(tmp_path):
    whole = prepared(epochs=6)
    halted = prepared(epochs=2)
    torch.save(halted.state_dict(), tmp_path / "vaal.pt")
    resumed = create("vaal", **SMALL | {"epochs": 6})
    resumed.load_state_dict(torch.load(tmp_path / "vaal.pt", weights_only=True))
    told = []
    resumed.prepare(LABELLED, POOL, generator=torch.Generator(), progress=lambda *done: told.append(done))
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert torch.equal(observed(resumed).information, observed(whole).information)


def test_a_pool_of_a_hundred_images_gets_hundreds_of_steps():
    """Passes over a small pool are few steps: with 20 of them 60 for 80 images."""

    class Started(Exception):
        pass

    def first(_, steps):
        told.append(steps)
        raise Started

    told = []
    strategy = create("vaal", image_size=16, latent=4, width=4)
    with pytest.raises(Started):
        strategy.prepare(LABELLED, images([0.5] * 80), generator=torch.Generator(), progress=first)
    assert told == [300]


def test_a_later_round_starts_warm_and_is_shorter():
    strategy = prepared(epochs=4, warm_epochs=1)
    told = []
    strategy.prepare(LABELLED, POOL[:2], generator=torch.Generator(), progress=lambda *done: told.append(done))
    assert told == [(1, 1)]
    frozen = prepared(epochs=4, learning_rate=0.0)
    before = observed(frozen, POOL[:2]).information
    frozen.prepare(LABELLED, POOL[:2], generator=torch.Generator().manual_seed(9))
    networks = [name for name in frozen.state_dict()["modules"][0] if "running" not in name and "tracked" not in name]
    again = prepared(epochs=4, learning_rate=0.0).state_dict()["modules"][0]
    assert all(torch.equal(frozen.state_dict()["modules"][0][name], again[name]) for name in networks)
    assert before.isfinite().all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_later_round_learns_what_was_labelled_meanwhile(seed):
    """The bright images that were asked for first are labelled: now grey ones, new in the pool, come before them.

    With the discriminator of the round before they do not, whatever the seed.
    """
    strategy = prepared(epochs=60, warm_epochs=30)
    labelled = LABELLED + images([0.8] * 6, first=200, seed=2)
    pool = images([0.1, 0.45, 0.8, 0.45, 0.1, 0.45, 0.8, 0.45], first=300, seed=3)
    strategy.prepare(labelled, pool, generator=torch.Generator().manual_seed(seed))
    seen = observed(strategy, pool)
    grey = torch.tensor([one % 2 == 1 for one in seen.ids])
    assert seen.information[grey].mean() > seen.information[~grey].mean() + 0.3


def test_an_interrupted_later_round_goes_on_as_one(tmp_path):
    halted = prepared(epochs=2, warm_epochs=3)
    halted.prepare(LABELLED, POOL[:2], generator=torch.Generator(), deadline=time.monotonic())
    torch.save(halted.state_dict(), tmp_path / "vaal.pt")
    resumed = create("vaal", **SMALL | {"warm_epochs": 3})
    resumed.load_state_dict(torch.load(tmp_path / "vaal.pt", weights_only=True))
    told = []
    resumed.prepare(LABELLED, POOL[:2], generator=torch.Generator(), progress=lambda *done: told.append(done))
    assert told[-1] == (3, 3)


def test_a_deadline_leaves_something_to_observe_with():
    strategy = prepared(deadline=time.monotonic())
    assert strategy.state_dict()["step"] == 0
    assert observed(strategy).information.isfinite().all()


@pytest.mark.parametrize(("labelled", "pool"), [([], POOL), (LABELLED, [])])
def test_with_images_of_one_kind_nothing_is_trained(labelled, pool):
    strategy = prepared(labelled, pool)
    assert strategy.state_dict() == {}
    with pytest.raises(ValueError, match=r"vaal is not trained: expected prepare\(\) with labelled and unlabelled"):
        strategy.observe(POOL[0])


def test_states_of_other_options_are_refused():
    with pytest.raises(ValueError, match="vaal: expected a state of"):
        create("vaal", **SMALL | {"latent": 8}).load_state_dict(prepared().state_dict())


# the training


def test_the_vae_is_trained_to_make_all_images_pass_for_labelled(monkeypatch):
    # with the wrong sign, with L_D for L_adv, or without the term, the discriminator, which stands still, would not be
    # taken in by it
    descend = Run.descend
    monkeypatch.setattr(Run, "descend", lambda run, index, loss: None if index else descend(run, index, loss))
    idle, trained = (prepared(epochs=30, reconstruction_weight=0.0, adversarial_weight=weight) for weight in (0.0, 1.0))
    for batches in (LABELLED, POOL):
        assert (observed(trained, batches).information < observed(idle, batches).information - 0.1).all()


def test_two_steps_of_the_vae_to_one_of_the_discriminator(monkeypatch):
    turns, descend = [], Run.descend
    monkeypatch.setattr(Run, "descend", lambda run, index, loss: (turns.append(index), descend(run, index, loss)))
    prepared(epochs=2)
    assert turns == [0, 0, 1] * 2


def autoencoder_of(strategy):
    network = Autoencoder(SMALL["latent"], SMALL["width"], SMALL["image_size"])
    network.load_state_dict(strategy.state_dict()["modules"][0])
    return network.eval()


@torch.no_grad()
def test_unlabelled_images_are_rebuilt_too(trained):
    # an ELBO of the labelled images alone never sees a bright one
    network = autoencoder_of(trained)
    mean, log_variance = network.encode(torch.full((1, 3, 16, 16), 0.85))
    assert network.decode(mean).mean() > 0.4
    assert log_variance.min() < -1, "without noise in the latents nothing moves their variance from 1"


def test_latents_are_drawn_with_their_deviation():
    mean, log_variance = torch.tensor([1.0, -2.0]), torch.tensor([2.0, -4.0])
    drawn = latents_drawn(mean.expand(20_000, 2), log_variance.expand(20_000, 2), torch.Generator().manual_seed(0))
    assert drawn.mean(dim=0).tolist() == pytest.approx(mean.tolist(), abs=0.1)
    assert drawn.std(dim=0).tolist() == pytest.approx([2.718, 0.1353], rel=0.03)  # exp(1), exp(-2)


# the losses


def slope(loss, name, value=0.3, **others):
    """The derivative by finite differences."""
    step = 1e-3
    up, down = (loss(**others, **{name: torch.tensor([value + sign * step])}).item() for sign in (1, -1))
    return (up - down) / (2 * step)


def test_signs_of_the_adversarial_losses():
    fixed = torch.tensor([0.1])
    assert slope(adversarial_loss, "labelled", unlabelled=fixed) < 0
    assert slope(adversarial_loss, "unlabelled", labelled=fixed) < 0, "the VAE wants both to pass for labelled"
    assert slope(discriminator_loss, "labelled", unlabelled=fixed) < 0
    assert slope(discriminator_loss, "unlabelled", labelled=fixed) > 0, "the discriminator wants them apart"


def test_losses_of_extreme_logits_are_finite():
    for loss in (adversarial_loss, discriminator_loss):
        assert loss(labelled=torch.tensor([-1e4]), unlabelled=torch.tensor([1e4])).isfinite()


def test_signs_of_the_elbo():
    zero = torch.zeros(1, 3, 2, 2)
    flat = torch.zeros(1, 4)

    def elbo(rebuilt=0.0, mean=0.0, log_variance=0.0):
        return negative_elbo(zero, zero + rebuilt, flat + mean, flat + log_variance, beta=1.0).item()

    assert elbo() == 0
    assert elbo(rebuilt=0.2) > elbo(rebuilt=0.1) > 0
    assert elbo(mean=0.2) > elbo(mean=-0.1) > 0
    assert elbo(log_variance=0.2) > 0
    assert elbo(log_variance=-0.2) > 0


def test_beta_weighs_the_divergence_alone():
    image, flat = torch.zeros(1, 3, 2, 2), torch.ones(1, 4)
    plain, doubled, triple = (
        negative_elbo(image, image + 1, flat, 0 * flat, beta=beta).item() for beta in (0.0, 2.0, 3.0)
    )
    assert (plain, doubled, triple) == (6, 10, 12)  # 12 values off by 1, 4 latents of 1² / 2


def test_elbo_belongs_to_each_image_alone():
    # a divergence summed over the batch would grow with it, the error would not
    generator = torch.Generator().manual_seed(0)
    pixels, rebuilt = torch.rand(5, 3, 4, 4, generator=generator), torch.rand(5, 3, 4, 4, generator=generator)
    mean, log_variance = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    together = negative_elbo(pixels, rebuilt, mean, log_variance, beta=2.0)
    for one in range(5):
        part = slice(one, one + 1)
        alone = negative_elbo(pixels[part], rebuilt[part], mean[part], log_variance[part], beta=2.0)
        assert torch.allclose(together[part], alone)


def test_latents_do_not_collapse(trained):
    # with a divergence that outweighs the error every image has the same latents
    means = autoencoder_of(trained).encode(torch.cat([torch.full((1, 3, 16, 16), value) for value in (0.1, 0.8)]))[0]
    assert (means[0] - means[1]).abs().max() > 0.5


def test_shapes_of_the_autoencoder():
    network = Autoencoder(latent=5, width=4, image_size=32)
    mean, log_variance = network.encode(torch.rand(3, 3, 47, 20))
    assert mean.shape == log_variance.shape == (3, 5)
    assert network.decode(mean).shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 40}, "image_size: expected a multiple of 16 from 16 up, received 40"),
        ({"latent": 0}, "latent: expected an integer from 1 up"),
        ({"epochs": 0}, "epochs: expected an integer from 1 up"),
        ({"beta": -1.0}, "beta: expected a number"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create("vaal", **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_trains_and_observes_on_a_gpu():
    def moved(batches):
        return [Batch(ids=batch.ids, images=batch.images.cuda()) for batch in batches]

    strategy = prepared(moved(LABELLED), moved(POOL), epochs=60)
    on_gpu = observed(strategy, moved(POOL)).information
    assert torch.allclose(observed(strategy).information, on_gpu, rtol=1e-2, atol=1e-2)
    assert on_gpu[1::2].min() > on_gpu[::2].max()
