"""The mask that agrees with prompts, on looks made by hand: what holds for all images and all prompts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.masks import touched
from ml_backend.annotations.prompts import DrawnPrompt
from ml_backend.annotations.suggestions import mended
from ml_backend.errors import PromptError
from ml_backend.learning.refinement.agreement import agreed
from ml_backend.learning.refinement.looks import Look
from ml_backend.learning.refinement.looks import look_of as put_together
from ml_backend.learning.refinement.prompts import Prompt, about, settled, standing_for

SIDES = st.integers(1, 40)
PLACES = st.integers(-10, 60)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    top, left = draw(PLACES), draw(PLACES)
    height, width = draw(st.sampled_from([(1, 1), (1, 1), (0, 0), (7, 9), (30, 2)]))
    return Prompt(draw(st.integers(0, 2)), draw(st.booleans()), top, left, top + height, left + width)


def look_of(height: int, width: int, *, seed: int = 0, classes: int | None = 2) -> Look:
    """Noise, as a network would see it."""
    random = np.random.default_rng(seed)
    cells = -(-height // 4), -(-width // 4)
    opinions = None
    if classes:
        logits = random.normal(0, 3, (classes, *cells)).astype(np.float32)
        opinions = logits - np.logaddexp.reduce(logits, axis=0)
    colours = random.random((height, width, 3)).astype(np.float32)
    return put_together(colours, random.normal(0, 1, (*cells, 16)).astype(np.float32), opinions)


@given(st.data(), SIDES, SIDES, st.lists(prompts(), max_size=12), st.sampled_from([None, 1, 2]), st.integers(1, 3))
def test_no_prompt_is_contradicted_at_its_pixel(
    data: st.DataObject, height: int, width: int, given_prompts: list[Prompt], classes: int | None, scale: int
) -> None:
    look = look_of(height, width, classes=classes)
    size = height * scale, width * scale
    target = data.draw(st.integers(0, 2))
    said = about(target, given_prompts, *size)
    mask = agreed(look, target, said, size)
    inside, outside = settled(said, *size)
    assert (mask.shape, mask.dtype) == (size, np.bool_)
    assert mask[inside].all()
    assert not mask[outside].any()
    assert np.array_equal(mask, agreed(look, target, said, size))
    boxes = [prompt for prompt in said if prompt.is_positive and not prompt.is_point]
    if boxes and not any(prompt.is_point and prompt.is_positive for prompt in said):
        allowed = np.zeros(size, bool)
        for box in boxes:
            allowed[box.area] = True
        assert not mask[~allowed].any()


@given(SIDES, SIDES, st.lists(prompts(), max_size=8), st.sampled_from([None, 2]), st.integers(0, 3))
def test_parts_of_what_is_drawn_that_no_prompt_touches_stay(
    height: int, width: int, given_prompts: list[Prompt], classes: int | None, seed: int
) -> None:
    size = height, width
    cells = np.random.default_rng(seed).random((-(-height // 6), -(-width // 6))) > 0.6
    drawn = cells.repeat(6, 0).repeat(6, 1)[:height, :width]
    said = about(1, given_prompts, *size)
    mask = agreed(look_of(*size, classes=classes), 1, [*standing_for(drawn, 1, said), *said], size, drawn)
    new = [DrawnPrompt("", 1, one.is_positive, Box(one.left, one.top, *_sides(one))) for one in said]
    after = mended(mask, drawn, new)
    inside, outside = settled(said, *size)
    assert after[inside].all()
    assert not after[outside].any()
    prompted = np.zeros(size, bool)
    for prompt in said:
        prompted[prompt.area] = True
    assert after[drawn & ~touched(drawn, prompted)].all()


def _sides(prompt: Prompt) -> tuple[int, int]:
    return prompt.right - prompt.left, prompt.bottom - prompt.top


def test_of_two_clicks_on_one_pixel_the_later_counts() -> None:
    look = look_of(20, 20)
    yes, no = Prompt.click(1, 5, 5), Prompt.click(1, 5, 5, is_positive=False)
    assert agreed(look, 1, [yes, no], (20, 20))[5, 5] == False  # noqa: E712 (a NumPy bool)
    assert agreed(look, 1, [no, yes], (20, 20))[5, 5] == True  # noqa: E712


def test_another_class_is_not_this_one_and_not_another_class_says_nothing() -> None:
    other, not_other = Prompt.click(2, 3, 4), Prompt.click(2, 3, 4, is_positive=False)
    assert about(1, [other], 10, 10) == [Prompt.click(1, 3, 4, is_positive=False)]
    assert about(1, [not_other], 10, 10) == []


def test_prompts_outside_the_image_move_to_its_border_and_empty_boxes_are_clicks() -> None:
    outside = [Prompt.click(1, -3, 99), Prompt(1, True, 5, 5, 5, 5), Prompt(1, True, -5, -5, 50, 50)]
    corner, click, whole = about(1, outside, 10, 20)
    assert corner == Prompt.click(1, 0, 19)
    assert click == Prompt.click(1, 5, 5)
    assert whole == Prompt(1, True, 0, 0, 10, 20)


def test_a_box_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(PromptError, match=r"row 8 to 2.*upper left corner first"):
        about(1, [Prompt(1, True, 8, 0, 2, 4)], 10, 10)
