from __future__ import annotations

import itertools
import subprocess
import sys
from importlib.metadata import distributions
from itertools import chain

import pytest

import strategies
from strategies import Entry, Strategy, Words, available, create
from strategies.catalogue import ENTRIES
from strategies.registry import GROUP, Registry


def test_lists_the_methods_sorted():
    assert {"random", "least_confidence", "margin", "entropy"} <= set(available())
    assert list(available()) == sorted(available())


def test_creates_a_new_strategy_each_time():
    assert isinstance(create("entropy"), Strategy)
    assert create("entropy") is not create("entropy")


def test_unknown_name_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown strategy 'entrpy'; available: .*entropy.*random"):
        create("entrpy")


def test_method_without_options_says_so():
    with pytest.raises(ValueError, match="unknown option 'beta' of strategy 'margin'; valid: none"):
        create("margin", beta=2)


def test_short_name():
    assert create("sa", candidates=32).name == "suggestive_annotation"
    assert "sa" not in available()


# what importing takes


@pytest.mark.parametrize("module", ["strategies", "strategies.catalogue"])
def test_importing_the_package_and_asking_for_facts_imports_no_torch(module):
    program = f"""
import sys, {module}
from strategies.catalogue import available, entry
entry("sa"), available()
print(sorted({{"torch", "numpy", "scipy"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_package_names_what_it_offers():
    assert set(strategies.__all__) <= set(dir(strategies))
    assert all(getattr(strategies, name) is not None for name in strategies.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Batches'"):
        _ = strategies.Batches


# presets


def test_a_preset_stands_for_options_that_others_are_laid_over():
    assert create("ceal", preset="melanoma").needs == {"committee", "background"}
    assert create("ceal", preset="melanoma", measure="entropy", weighting="none").needs == {"probabilities"}


@pytest.mark.parametrize(("name", "preset"), [("ceal", "mole"), ("ceal", ["melanoma"]), ("entropy", "melanoma")])
def test_unknown_presets_are_refused_with_the_valid_ones(name, preset):
    valid = "melanoma" if name == "ceal" else "none"
    with pytest.raises(ValueError, match=f"unknown preset .*; valid: {valid}$"):
        create(name, preset=preset)


# entries


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Own:1"}, "Entry.name: expected small letters, .*'Own:1'"),
        ({"method": "own.Own"}, "Entry.method: expected 'module:Class', received 'own.Own'"),
        ({"words": Words("")}, "Entry.words: expected Words that say what comes first"),
        ({"words": "large images"}, "Entry.words: expected Words that say what comes first, received 'large images'"),
        ({"needs": frozenset({"labels"})}, "Entry.needs: expected some of background, .*, received 'labels'"),
    ],
)
def test_entries_that_say_nothing_are_refused(fields, message):
    whole = {"name": "own", "method": "own:Own", "words": Words("large images"), "needs": frozenset()}
    with pytest.raises(ValueError, match=message):
        Entry(**(whole | fields))


# strategies of other packages

OWN = """
from strategies import Entry, Words
from strategies.random import Random

class Own(Random):
    name = "own"

class Other(Random):
    name = "other"

OWN = Entry(name="own", method="{module}:Own", words=Words("own ones", "value"), needs=frozenset())
NO_CLASS = Entry(name="own", method="{module}:Missing", words=Words("own ones"), needs=frozenset())
NO_STRATEGY = Entry(name="own", method="{module}:Entry", words=Words("own ones"), needs=frozenset())
OTHER_CLASS = Entry(name="own", method="{module}:Other", words=Words("own ones"), needs=frozenset())
"""
NUMBERS = itertools.count()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Return a function that installs packages and returns a registry that has read what they register."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(*points: str, text: str = OWN) -> Registry:
        """Install a package for each entry point, such as "own = {module}:OWN"."""
        for number, point in enumerate(points):
            module = f"package_{next(NUMBERS)}"
            (tmp_path / f"{module}.py").write_text(text.format(module=module))
            folder = tmp_path / f"package_{number}-1.5.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: package-{number}\nVersion: 1.5\n")
            (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{point.format(module=module)}\n")
        found = [dist.entry_points for dist in distributions(path=[str(tmp_path)])]
        return Registry(ENTRIES, other_names={"sa": "suggestive_annotation"}, points=lambda: chain(*found))

    return install


def test_a_strategy_of_another_package_is_one_like_ours(registry):
    found = registry("own = {module}:OWN")
    assert found.available() == tuple(sorted([*(entry.name for entry in ENTRIES), "own"]))
    assert found.create("own").name == "own"
    assert found.entry("own").package == "package-0 1.5"
    assert found.described("own").words.value == "value"
    assert "own" in found.importable()
    with pytest.raises(ValueError, match="unknown option 'beta' of strategy 'own'; valid: none"):
        found.create("own", beta=1)
    with pytest.raises(ValueError, match=r"unknown strategy 'owm'; available: .*own"):
        found.create("owm")


def test_its_module_is_imported_when_it_is_asked_for(registry):
    found = registry("own = {module}:OWN", text="raise RuntimeError('imported')")
    assert "own" in found.available()
    assert found.create("entropy").name == "entropy"
    with pytest.raises(ValueError, match="RuntimeError: imported"):
        found.create("own")


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("own = no_such_module:OWN", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("own = {module}:MISSING", "cannot be imported: AttributeError: .*MISSING"),
        ("own = {module}:Own", "names a ABCMeta: let it name a strategies.Entry"),
        ("mine = {module}:OWN", "names an Entry of 'own': give both the same name"),
        ("own = {module}:NO_CLASS", "cannot be imported: AttributeError: .*Missing"),
        ("own = {module}:NO_STRATEGY", "is no Strategy: let its class inherit from strategies.Strategy"),
        ("own = {module}:OTHER_CLASS", "has the name 'other': give class and Entry the same name"),
    ],
)
def test_one_that_cannot_be_used_says_why_and_takes_nothing_along(registry, caplog, point, message):
    found, name = registry(point), point.partition(" ")[0]
    for _ in range(2):
        with pytest.raises(ValueError, match=message) as refusal:
            found.create(name)
        for part in (repr(name), "package-0 1.5", "Mend or uninstall that package; all other strategies work"):
            assert part in str(refusal.value)
    assert found.importable() == tuple(sorted(entry.name for entry in ENTRIES))
    assert caplog.text.count(str(refusal.value)) >= 1
    assert found.create("margin").name == "margin"


@pytest.mark.parametrize("name", ["entropy", "sa", "full", "all"])
def test_a_name_of_ours_stays_ours(registry, caplog, name):
    found = registry(name + " = {module}:OWN")
    assert found.available() == tuple(sorted(entry.name for entry in ENTRIES))
    assert f"entry point {name!r} = " in caplog.text
    assert "of package package-0 1.5 has the name of one of nextmask's own: give it another name." in caplog.text
    if name in ("entropy", "sa"):
        assert found.create(name).name == found.entry(name).name in {entry.name for entry in ENTRIES}


def test_a_name_without_a_place_in_settings_is_left_out(registry):
    found = registry("my:own = {module}:OWN", "good = {module}:OWN")
    assert "good" in found.available()
    with pytest.raises(ValueError, match="has no valid name: use small letters"):
        found.create("my:own")


def test_a_name_that_two_packages_register_is_neither_ones(registry):
    found = registry("own = {module}:OWN", "own = {module}:OWN")
    assert "own" not in found.available()
    with pytest.raises(ValueError, match=r"package-[01] 1\.5 and .*package-[01] 1\.5 register the same name"):
        found.create("own")


def test_what_is_not_known_is_described_by_its_name(registry):
    found = registry("own = no_such_module:OWN")
    for name in ("own", "zebra", "{}"):
        assert found.described(name).words == Words(f"what {name} ranks first")
        assert not found.described(name).asks_for_regions
        assert not found.described(name).ensemble
