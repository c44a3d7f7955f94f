from __future__ import annotations

import pytest

from strategies import Strategy, available, create


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
