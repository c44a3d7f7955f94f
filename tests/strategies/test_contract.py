"""What every registered method has to do, whatever it is; a new method is tested here without a word added.

So is one that another package registers: install it beside nextmask and run this file with -k NAME.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields, replace
from pathlib import Path

import grimp
import pytest
import torch

import strategies
from strategies import Batch, Budget, Observation, Ranking, Strategy, available, create
from strategies.catalogue import ENTRIES, entry
from strategies.entry import PRESET

BUDGET = Budget(images=2)
OWN = [own.name for own in ENTRIES]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=available())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def strategy(name, pools):
    """The method, prepared once; observe and rank must not change it."""
    made = create(name)
    made.prepare(
        pools.batches(pools.samples(4, seed=1, labelled=1, first=50)),
        pools.batches(pools.samples()),
        generator=seeded(),
    )
    return made


@pytest.fixture(scope="module")
def observe(strategy, pools):
    def observe(samples, size=3):
        return Observation.concatenate(strategy.observe(batch) for batch in pools.batches(samples, size))

    return observe


@pytest.fixture(scope="module")
def labelled(observe, pools):
    return observe(pools.samples(4, seed=1, labelled=1, first=50))


@pytest.fixture(scope="module")
def rank(strategy, labelled):
    def rank(unlabelled, *, labelled=labelled, budget=BUDGET, seed=0, round=0):
        return strategy.rank(unlabelled, labelled, budget=budget, round=round, generator=seeded(seed))

    return rank


def same(one: Ranking, other: Ranking) -> bool:
    return (
        one.ids == other.ids
        and torch.equal(one.priority, other.priority)
        and one.regions == other.regions
        and set(one.pseudo_labels) == set(other.pseudo_labels)
    )


def assert_complete(ranking: Ranking, ids) -> None:
    """Every id once; priorities in [0, 1] that fall strictly (what `Ranking` checks is asserted again here)."""
    assert isinstance(ranking, Ranking)
    assert sorted(ranking.ids) == sorted(ids)
    assert ranking.priority.dtype == torch.float64
    assert ranking.priority.shape == (len(ids),)
    assert (ranking.priority.diff() < 0).all()
    assert ((ranking.priority >= 0) & (ranking.priority <= 1)).all()


# what a method is


@pytest.mark.parametrize("name", OWN)
def test_our_methods_have_a_module_and_a_test_module_of_their_own(name):
    method = entry(name).load()
    assert method.__module__ == f"strategies.{name}"
    tests = Path(__file__).with_name(f"test_{name}.py")
    assert tests.exists(), f"write tests/strategies/test_{name}.py"
    assert f'create("{name}"' in tests.read_text(), f"test {name} in tests/strategies/test_{name}.py"


@pytest.mark.parametrize("name", OWN)
def test_our_methods_cite_their_paper(name):
    documentation = inspect.getmodule(entry(name).load()).__doc__
    assert "Paper:" in documentation
    assert "Deviations:" in documentation
    assert ">>>" in documentation, "a hand-computed example"


def test_every_method_in_the_package_is_in_the_catalogue():
    modules = [importlib.import_module(f"strategies.{one.name}") for one in pkgutil.iter_modules(strategies.__path__)]
    classes = {one for module in modules for one in vars(module).values() if inspect.isclass(one)}
    methods = {one for one in classes if issubclass(one, Strategy) and hasattr(one, "name")}
    assert {one.name for one in methods} == set(OWN)


def test_our_methods_never_import_each_other():
    modules = [entry(name).load().__module__ for name in OWN]
    imports = grimp.build_graph("strategies", cache_dir=None)
    for importer in modules:
        others = imports.find_upstream_modules(importer) & set(modules)
        assert not others, f"{importer} imports {', '.join(others)}: what both need belongs into a module of its own"


def test_class_and_catalogue_say_the_same(strategy, name):
    facts = entry(name)
    assert strategy.name == facts.name == name
    assert create(name).needs == facts.needs
    assert strategy.asks_for_regions == facts.asks_for_regions


def test_presets_are_options(name):
    assert PRESET not in entry(name).options()
    for preset, options in entry(name).presets.items():
        assert options.keys() <= entry(name).options().keys()
        assert create(name, preset=preset).name == name


def test_options_are_keywords_with_defaults(name):
    for option in inspect.signature(type(create(name))).parameters.values():
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
        assert option.default is not inspect.Parameter.empty


def test_unknown_option_is_refused_with_the_valid_ones(name):
    with pytest.raises(ValueError, match=f"unknown option 'no_such_option' of strategy '{name}'") as refusal:
        create(name, no_such_option=1)
    for option in inspect.signature(type(create(name))).parameters:
        assert option in str(refusal.value)


@pytest.mark.parametrize("worthless", [object(), -7, float("nan"), "no such thing"])
def test_worthless_values_of_options_are_refused(name, worthless):
    for option in inspect.signature(type(create(name))).parameters:
        with pytest.raises(ValueError, match=f"^{option}[:,]"):
            create(name, **{option: worthless})


# prepare


def test_prepares_for_nothing_at_all(name):
    made = create(name)
    made.prepare([], [], generator=seeded())
    assert made.state_dict() == {}


# observe


def test_observes_every_image(strategy, pools):
    batch = pools.batch(pools.samples(labelled=0.5))
    seen = strategy.observe(batch)
    assert seen.ids == batch.ids
    assert seen.information.shape == (7,)
    assert seen.information.isfinite().all()
    assert torch.equal(seen.size, batch.size)


def test_observing_changes_no_state(strategy, pools, observe):
    before = repr(strategy.state_dict())
    first, second = observe(pools.samples()), observe(pools.samples())
    assert torch.equal(first.information, second.information)
    assert repr(strategy.state_dict()) == before


def test_observation_is_independent_of_the_batch(pools, observe):
    whole = observe(pools.samples(), size=7)
    for size in (1, 2, 3):
        cut = observe(pools.samples(), size=size)
        for field in ("information", "confidence", "class_fraction", "descriptors", "size"):
            one, other = getattr(whole, field), getattr(cut, field)
            assert (one is None and other is None) or torch.equal(one, other), field


def test_padding_changes_nothing(strategy, pools):
    tight = strategy.observe(pools.batch(pools.samples()))
    for garbage in (-3.0, 0.5, float("nan")):
        loose = strategy.observe(pools.batch(pools.samples(), padding=5, garbage=garbage))
        assert torch.equal(loose.information, tight.information)


@pytest.mark.parametrize("field", ["images", "probabilities", "features", "cost"])
def test_not_a_number_is_refused(strategy, pools, field):
    batch = pools.batch(pools.samples())
    getattr(batch, field).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match=f"Batch.{field}: expected finite"):
        strategy.observe(replace(batch))


def test_what_it_needs_is_asked_for(strategy, pools):
    batch = pools.batch(pools.samples())
    missing = {"probabilities": {"probabilities": None}, "features": {"features": None}}
    missing["committee"] = {"probabilities": batch.probabilities[:1]}
    for need in strategy.needs & missing.keys():
        with pytest.raises(ValueError, match=next(iter(missing[need]))):
            strategy.observe(replace(batch, **missing[need]))


def test_observes_with_nothing_but_what_it_needs(strategy, pools):
    batch = pools.batch(pools.samples())
    wanted = {"ids": batch.ids, "images": batch.images, "valid": batch.valid}
    if strategy.needs & {"probabilities", "committee"}:
        wanted["probabilities"] = batch.probabilities
    if "features" in strategy.needs:
        wanted["features"] = batch.features
    assert strategy.observe(Batch(**wanted)).ids == batch.ids


@pytest.mark.parametrize("classes", [2, 19])
def test_binary_and_multi_class(pools, observe, rank, classes):
    samples = pools.samples(classes=classes)
    seen = observe(samples)
    if seen.class_fraction is not None:
        assert seen.class_fraction.shape == (7, classes)
    ranking = rank(seen)
    assert_complete(ranking, seen.ids)
    assert same(rank(observe(samples[::-1], size=1)), ranking)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_observes_half_precision(strategy, pools, dtype):
    batch = pools.batch(pools.samples())
    halved = replace(batch, probabilities=batch.probabilities.to(dtype))
    assert strategy.observe(halved).information.isfinite().all()


# rank


def test_ranks_every_image_once(pools, observe, rank):
    seen = observe(pools.samples())
    assert_complete(rank(seen), seen.ids)


@pytest.mark.parametrize("budget", [Budget(images=1), Budget(images=10_000), Budget(pixels=50), Budget(pixels=10**9)])
def test_any_budget_ranks_every_image_once(pools, observe, rank, budget):
    seen = observe(pools.samples())
    assert_complete(rank(seen, budget=budget), seen.ids)


@pytest.mark.parametrize("round", [0, 1, 50])
def test_any_round_ranks_every_image_once(pools, observe, rank, round):
    seen = observe(pools.samples())
    assert_complete(rank(seen, round=round), seen.ids)


def test_batch_size_and_order_do_not_matter(pools, observe, rank):
    samples = pools.samples()
    ranking = rank(observe(samples, size=7))
    for size in (1, 2, 3):
        assert same(rank(observe(samples, size=size)), ranking)
        assert same(rank(observe(samples[::-1], size=size)), ranking)
        assert same(rank(observe(samples[3:] + samples[:3], size=size)), ranking)


def test_same_seed_same_ranking(pools, observe, rank):
    seen = observe(pools.samples())
    assert same(rank(seen, seed=3), rank(seen, seed=3))


def test_randomness_comes_from_the_generator_alone(strategy, pools, observe, rank):
    before = torch.random.get_rng_state()
    rank(observe(pools.samples()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_equal_images(pools, observe, rank):
    ids = ("d", "a", "c", "b", "e")
    copies = pools.copies(pools.samples(2)[1], ids)
    ranking = rank(observe(copies))
    assert_complete(ranking, ids)
    assert same(rank(observe(copies[::-1])), ranking)
    draws_nothing = all(same(rank(observe(copies), seed=seed), ranking) for seed in range(1, 8))
    assert not draws_nothing or ranking.ids == ("a", "b", "c", "d", "e")


def test_ids_may_be_integers(pools, observe, rank):
    numbers = (10, 9, 100, 1, 5, 7, 3)
    samples = [replace(sample, id=number) for number, sample in zip(numbers, pools.samples(), strict=True)]
    assert_complete(rank(observe(samples), labelled=None), numbers)


def test_images_labelled_in_part_belong_to_both_pools(pools, observe, rank):
    samples = pools.samples()
    partly = pools.samples(labelled=0.5)
    mixed = observe([*samples[:3], *partly[3:]])
    assert_complete(rank(mixed, labelled=observe(partly[3:])), mixed.ids)


def test_images_labelled_in_full_are_ranked_all_the_same(pools, observe, rank):
    seen = observe(pools.samples(labelled=1))
    assert_complete(rank(seen), seen.ids)


def test_nothing_labelled_yet(strategy, pools, observe, rank):
    seen = observe(pools.samples())
    assert_complete(rank(seen, labelled=None), seen.ids)
    assert same(rank(seen, labelled=Observation.concatenate([])), rank(seen, labelled=None))


def test_empty_pool(rank):
    assert_complete(rank(Observation.concatenate([])), ())


def test_one_image(pools, observe, rank):
    seen = observe(pools.samples(1))
    assert_complete(rank(seen), seen.ids)


def test_ranking_leaves_the_observation_alone(pools, observe, rank):
    seen, untouched = observe(pools.samples()), observe(pools.samples())
    rank(seen)
    for field in fields(Observation):
        one, other = getattr(seen, field.name), getattr(untouched, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else repr(one) == repr(other)


# state


def test_state_moves_to_another_process_by_a_file(strategy, name, pools, tmp_path):
    torch.save(strategy.state_dict(), tmp_path / "state.pt")
    twin = create(name)
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    batch = pools.batch(pools.samples())
    assert torch.equal(twin.observe(batch).information, strategy.observe(batch).information)


def test_foreign_state_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        create(name).load_state_dict({"of_another_method": 1})
