"""Samples of a training: what is read, drawn and augmented, in memory or from files, of images labelled in part."""

from __future__ import annotations

import itertools
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small_training import disc_item

from ml_backend.errors import TrainingError
from ml_backend.learning.training import Item
from ml_backend.learning.training.data import SQUARES, Sample, Samples, _view, augmentation, collate, unchanged
from ml_backend.learning.training.fit import seeded

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_samples_are_shrunk_never_enlarged(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, 0, shape=(60, 120)), disc_item(tmp_path, 1, shape=(30, 40))]
    samples = Samples(items, classes=2, input_size=64)
    batch = next(samples.batches(2, torch.Generator()))
    assert {tuple(sample.image.shape) for sample in batch} == {(3, 32, 64), (3, 30, 40)}
    assert all(sample.mask.shape == sample.image.shape[1:] for sample in batch)
    assert all(set(sample.mask.flatten().tolist()) == {0, 1} for sample in batch)


def test_every_sample_is_drawn_once_before_any_twice(tmp_path: Path) -> None:
    samples = Samples([disc_item(tmp_path, index) for index in range(6)], classes=2, input_size=48)
    batches = samples.batches(3, torch.Generator().manual_seed(1))
    for _ in range(3):
        drawn = [*next(batches), *next(batches)]
        assert len({int(sample.image.long().sum()) for sample in drawn}) == 6


def test_memory_does_not_change_what_is_drawn(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, index) for index in range(5)]
    drawn = []
    for memory in (1 << 20, 0):
        samples = Samples(items, classes=2, input_size=32, memory_bytes=memory)
        batches = samples.batches(4, torch.Generator().manual_seed(2))
        drawn.append([sample for _ in range(4) for sample in next(batches)])
    assert all(torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) for a, b in zip(*drawn, strict=True))


def test_when_all_files_vanish_the_training_ends(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, index) for index in range(3)]
    resample = Samples(items, classes=2, input_size=48, memory_bytes=0).resampled(np.random.default_rng(1))
    assert {item.id for item in resample.items} == {"1", "2"}, "the first one is always in memory"
    for item in items:
        item.image.unlink()
    with pytest.raises(TrainingError, match="None of the 3 images can be read any more"):
        next(resample.batches(2, torch.Generator()))


def test_a_file_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, index) for index in range(4)]
    samples = Samples(items, classes=2, input_size=32, memory_bytes=0)
    items[3].image.unlink()
    items[2].mask.unlink()
    batches = samples.batches(4, torch.Generator())
    assert all(len(next(batches)) == 4 for _ in range(3))
    assert len(list(samples.with_original_masks())) == 2


def test_unusable_items_say_why(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, index) for index in range(6)]
    items[1].image.write_bytes(b"not an image")
    items[2].mask.write_bytes(items[2].mask.read_bytes()[:40])
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(items[3].mask)
    Image.fromarray(np.full((40, 48), 2, np.uint8)).save(items[4].mask)
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(items[5].mask)
    reported: list[None] = []
    samples = Samples(items, classes=2, input_size=32, report=lambda: reported.append(None))
    assert [item.id for item in samples.items] == ["0"]
    assert len(reported) == 6
    assert samples.problems.keys() == {"1", "2", "3", "4", "5"}
    assert samples.problems["3"] == "no pixel of the mask is labelled"
    assert samples.problems["4"] == "the mask has class index 2, but there are 2 classes"
    assert samples.problems["5"] == "the mask is 40x48, the image 48x40 pixels"


def test_augmentation_moves_image_and_mask_together(tmp_path: Path) -> None:
    samples = Samples([disc_item(tmp_path, index) for index in range(4)], classes=2, input_size=48)
    batch = next(samples.batches(4, torch.Generator()))
    with seeded(3, CPU):
        images, masks = collate(batch, CPU, augmentation())
    assert all(image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1 for image in images)
    assert masks.dtype == torch.int64
    assert set(masks.flatten().tolist()) == {0, 1, 255}  # no class between two others
    brighter = torch.stack(images)[:, 0] > torch.stack(images)[:, 2]  # discs are more red than blue, the ground is not
    agree = (brighter == (masks == 1))[masks != 255].float().mean()
    assert agree > 0.95
    with seeded(3, CPU):
        again = collate(batch, CPU, augmentation())
    assert all(torch.equal(*pair) for pair in zip(again[0], images, strict=True))


def test_masks_are_padded_to_the_largest_of_their_batch(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, 0, shape=(30, 48)), disc_item(tmp_path, 1, shape=(48, 26))]
    batch = next(Samples(items, classes=2, input_size=48).batches(2, torch.Generator()))
    images, masks = collate(batch, CPU, lambda image, mask: (image, mask))
    assert masks.shape == (2, 48, 48)
    for image, mask, sample in zip(images, masks, batch, strict=True):
        height, width = sample.mask.shape
        assert torch.equal(image, sample.image / 255)
        assert torch.equal(mask[:height, :width], sample.mask.long())
        assert (mask != 255).sum() == height * width


# -- samples in memory, and what is labelled in parts ------------------------------------------------------------------
def in_memory(*shares: float) -> tuple[Samples, dict[int, int]]:
    """Samples of 10x10 pixels of which these shares are labelled; the image says which one it is."""
    made = []
    for number, share in enumerate(shares):
        mask = torch.full((10, 10), 255, dtype=torch.uint8)
        mask.view(-1)[: round(100 * share)] = 1
        item = Item(str(number), Path("none"), Path("none"), held_out=False, digest="")
        made.append((item, Sample(torch.full((3, 10, 10), number, dtype=torch.uint8), mask)))
    return Samples.in_memory(made), dict.fromkeys(range(len(shares)), 0)


def drawn(samples: Samples, count: int, seed: int = 0) -> list[int]:
    """Draw so many samples; return their numbers."""
    generator = torch.Generator().manual_seed(seed)
    with closing(samples.batches(4, generator)) as batches:
        return [int(one.image[0, 0, 0]) for _ in range(count // 4) for one in next(batches)]


def shares(samples: Samples) -> dict[int, float]:
    """Draw a hundred samples; return number -> labelled share."""
    with closing(samples.batches(4, torch.Generator().manual_seed(0))) as batches:
        return {int(one.image[0, 0, 0]): round(one.labelled_share, 6) for _ in range(25) for one in next(batches)}


def test_samples_in_memory_are_not_read_from_files() -> None:
    samples, _ = in_memory(1.0, 0.5, 0.25)
    assert len(samples) == 3
    assert [item.id for item in samples.items] == ["0", "1", "2"]
    assert shares(samples) == {0: 1.0, 1: 0.5, 2: 0.25}
    assert samples.problems == {}
    assert set(drawn(samples, 80)) == {0, 1, 2}
    assert len(Samples.in_memory([])) == 0


def test_samples_that_are_labelled_alike_are_each_drawn_once_before_any_twice() -> None:
    """From half of the most on they are alike."""
    samples, _ = in_memory(1.0, 0.5, 0.8, 0.5)
    found = drawn(samples, 40)
    assert all(sorted(found[first : first + 4]) == [0, 1, 2, 3] for first in range(0, 40, 4))
    assert found != drawn(samples, 40, seed=1)
    small, _ = in_memory(0.02, 0.01, 0.01, 0.02)  # windows of one size: it is the proportion that matters
    assert all(sorted(drawn(small, 40)[first : first + 4]) == [0, 1, 2, 3] for first in range(0, 40, 4))


def test_samples_that_are_labelled_in_small_parts_are_drawn_by_their_share() -> None:
    samples, counts = in_memory(1.0, 0.6, 0.3, 0.1)
    found = drawn(samples, 8000)
    for number in found:
        counts[number] += 1
    for number, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        deviation = math.sqrt(8000 * share * (1 - share))
        assert abs(counts[number] - 8000 * share) < 5 * deviation
    assert found == drawn(samples, 8000)
    assert found != drawn(samples, 8000, seed=1)


def test_shares_of_classes_count_images_as_they_are_drawn() -> None:
    image, half = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8)
    half[:, 2:] = 1
    corner = torch.full((4, 4), 255, dtype=torch.uint8)
    corner[0, 0] = 2  # a point: one of 16 squares of the image is labelled
    item = Item("a", Path(), Path(), held_out=False, digest="")
    alike = Samples.in_memory([(item, Sample(image, half)), (item, Sample(image, torch.zeros_like(half)))])
    assert alike.class_shares(3).tolist() == [0.75, 0.25, 0]
    mixed = Samples.in_memory([(item, Sample(image, half)), (item, Sample(image, corner))])
    assert mixed.class_shares(3).tolist() == pytest.approx([8 / 17, 8 / 17, 1 / 17])
    assert Samples.in_memory([]).class_shares(2).tolist() == [0, 0]


def test_a_resample_keeps_what_is_labelled() -> None:
    samples, _ = in_memory(1.0, 0.1, 0.1, 0.1, 0.1)
    generator = np.random.default_rng(3)
    resample = samples.resampled(generator)
    numbers = [int(item.id) for item in resample.items]
    assert numbers == np.random.default_rng(3).integers(5, size=5).tolist()
    assert numbers == [4, 0, 0, 1, 0]
    assert shares(resample) == {0: 1.0, 1: 0.1, 4: 0.1}
    often = drawn(resample, 4000).count(0)
    assert abs(often - 4000 * 3 / 3.2) < 5 * math.sqrt(4000 * 3 / 3.2 * 0.2 / 3.2), "they are drawn by their shares"
    assert [item.id for item in samples.items] == ["0", "1", "2", "3", "4"]


def test_samples_from_files_are_drawn_by_their_share_too(tmp_path: Path) -> None:
    items = [disc_item(tmp_path, number) for number in range(2)]
    mask = np.array(Image.open(items[1].mask))
    mask[:, 5:] = 255
    Image.fromarray(mask).save(items[1].mask)
    samples = Samples(items, classes=2, input_size=48)
    generator = torch.Generator().manual_seed(0)
    with closing(samples.batches(2, generator)) as batches:
        found = [round(sample.labelled_share, 3) for _ in range(100) for sample in next(batches)]
    assert set(found) == {1.0, round(2 / 12, 3)}  # two of twelve columns of squares
    windows = found.count(round(2 / 12, 3))
    assert 8 <= windows <= 55  # 29 are expected of 200; drawn alike it were 100


# -- views of samples, for encoders that are not trained ---------------------------------------------------------------
def discs(tmp_path: Path, count: int) -> Samples:
    return Samples([disc_item(tmp_path, index) for index in range(count)], classes=2, input_size=48)


def of(samples: Samples) -> list[Sample]:
    return next(samples.batches(len(samples), torch.Generator().manual_seed(0)))


def test_views_are_the_same_in_every_training(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = of(discs(tmp_path, 2).views(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = of(discs(tmp_path, 2).views(3))
    assert torch.equal(before, torch.get_rng_state())
    assert len(first) == 6
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.mask, b.mask)


def test_views_of_more_samples_hold_those_of_fewer(tmp_path: Path) -> None:
    few, more = (of(discs(tmp_path, count).views(3)) for count in (2, 4))
    assert all(any(torch.equal(one.image, other.image) for other in more) for one in few)


def test_the_first_view_is_the_sample_and_the_others_differ(tmp_path: Path) -> None:
    samples = discs(tmp_path, 1)
    (sample,) = of(samples)
    views = of(samples.views(3))
    assert [torch.equal(view.image, sample.image) for view in views].count(True) == 1
    assert not any(torch.equal(one.image, other.image) for one, other in itertools.combinations(views, 2))
    assert len(samples) == 1


def test_a_view_moves_image_and_mask_together(tmp_path: Path) -> None:
    for view in of(discs(tmp_path, 2).views(6)):
        known = view.mask != 255
        is_disc = view.image[0].float() > view.image[2].float()  # discs are more red than blue, the ground is not
        assert ((view.mask == 1)[known] == is_disc[known]).float().mean() > 0.9


def test_views_in_which_nothing_is_labelled_are_left_out(tmp_path: Path) -> None:
    mask = torch.full((40, 40), 255, dtype=torch.uint8)
    mask[39, 39] = 0  # moved out of the picture by half of the views, or scaled away
    item = disc_item(tmp_path, 0)
    views = Samples.in_memory([(item, Sample(torch.zeros(3, 40, 40, dtype=torch.uint8), mask))]).views(20)
    assert 2 <= len(views) < 20
    assert all((view.mask != 255).any() for view in of(views))


def test_views_are_bounded_discs(tmp_path: Path) -> None:
    samples = discs(tmp_path, 3)
    size = of(samples)[0].size_in_bytes
    assert len(samples.views(4, memory_bytes=2 * size)) == 3 + 2


def test_a_resample_is_one_of_images_each_with_all_its_views(tmp_path: Path) -> None:
    samples = discs(tmp_path, 6)
    absent = 0
    for member in range(40):
        ids = [item.id for item in samples.resampled(np.random.default_rng([0, member])).views(4).items]
        assert len(ids) == 4 * 6
        assert all(ids.count(number) % 4 == 0 for number in set(ids))
        absent += 6 - len(set(ids))
    assert absent / (40 * 6) == pytest.approx((1 - 1 / 6) ** 6, abs=0.08)  # of views it would be 0.01


# -- pixels that are labelled one by one -------------------------------------------------------------------------------
SINGLE = [(3, 5), (20, 31), (37, 8), (24, 24), (41, 45), (12, 40), (30, 2)]


def dotted(size: tuple[int, int] = (48, 60)) -> Sample:
    """An image whose pixels are grey but for red dots, whose classes are answered: those and no others."""
    image = torch.full((3, *size), 128, dtype=torch.uint8)
    mask = torch.full(size, 255, dtype=torch.uint8)
    for index, (row, column) in enumerate(SINGLE):
        image[:, row - 1 : row + 2, column - 1 : column + 2] = torch.tensor([255, 0, 0], dtype=torch.uint8)[
            :, None, None
        ]
        mask[row, column] = index
    return Sample(image, mask)


def test_single_pixels_are_kept_when_a_mask_is_shrunk(tmp_path: Path) -> None:
    """To a quarter; to the nearest, one in sixteen was left."""
    mask = np.full((160, 240), 255, np.uint8)
    mask[:40, :40] = 9
    for index, (row, column) in enumerate(SINGLE):
        mask[80 + row, 100 + 2 * column] = index
    image, file = tmp_path / "image.png", tmp_path / "mask.png"
    Image.fromarray(np.zeros((160, 240, 3), np.uint8)).save(image)
    Image.fromarray(mask).save(file)
    item = Item("1", image, file, held_out=False, digest="")
    (sample,) = of(Samples([item], classes=10, input_size=60))
    assert sample.mask.shape == (40, 60)
    assert (sample.mask == 9).sum() == 10 * 10
    for index, (row, column) in enumerate(SINGLE):
        assert sample.mask[(80 + row) // 4, (100 + 2 * column) // 4] == index
    assert (sample.mask != 255).sum() == 100 + len(SINGLE)


def is_inside(dot: NDArray[np.int32], size: tuple[int, int]) -> bool:
    """Whether a part (left, top, width, height, area) of a picture lies away from the border."""
    left, top, width, height, _ = dot.tolist()
    return left > 0 and top > 0 and left + width < size[1] and top + height < size[0]


def test_no_view_loses_a_single_pixel_that_it_shows() -> None:
    """Nor does any count twice where a view is enlarged, nor lie beside what it is the class of."""
    sample, shown = dotted(), 0
    for number in range(60):
        view = _view(sample, number)
        labelled = (view.mask != 255).nonzero().tolist()
        red = view.image[0].float() - view.image[1].float() > 40
        assert all(red[row, column] for row, column in labelled)
        classes = [int(view.mask[row, column]) for row, column in labelled]
        assert len(set(classes)) == len(classes)
        dots, parts, statistics, _ = cv2.connectedComponentsWithStats(red.numpy().astype(np.uint8))
        whole = [part for part in range(1, dots) if is_inside(statistics[part], (48, 60))]
        assert all((view.mask[torch.from_numpy(parts == part)] != 255).any() for part in whole)
        shown += len(whole)
    assert shown > 250


def test_single_pixels_stand_beside_areas_in_a_view() -> None:
    """An area is moved to the nearest, as if there were no points; what it covers stays."""
    plain = dotted()
    mask = plain.mask.clone()
    mask[14:36, 10:22] = 9
    view = _view(Sample(plain.image, mask), 3)
    area = torch.full_like(mask, 255)
    area[14:36, 10:22] = 9
    alone = _view(Sample(plain.image, area), 3)
    assert torch.equal(view.image, alone.image)
    assert torch.equal(view.mask == 9, alone.mask == 9)
    assert (view.mask < 9).sum() >= 4


def test_single_pixels_are_kept_by_augmentation_in_every_step() -> None:
    with seeded(5, CPU):
        _, masks = collate([dotted()] * 40, CPU, augmentation())
    counts = (masks != 255).sum(dim=(1, 2))
    assert counts.max() == len(SINGLE)
    assert counts.float().mean() > 5.5  # the others are moved out of the picture; of the nearest, 4.6 were left
    _, masks = collate([dotted()], CPU, unchanged)
    assert torch.equal(masks[0], dotted().mask.long())


def test_points_are_drawn_by_the_squares_that_they_lie_in() -> None:
    """Not by their pixels, which are next to nothing, nor as often as whole masks."""
    whole = torch.zeros((96, 96), dtype=torch.uint8)
    apart, together = torch.full_like(whole, 255), torch.full_like(whole, 255)
    apart[4::32, 4::32] = 1  # nine points, each in a square of its own
    together[10:14, 10:13] = 1
    one = Sample(torch.zeros(3, 96, 96, dtype=torch.uint8), apart)
    assert one.labelled_share == pytest.approx(9 / SQUARES**2)
    assert replace(one, mask=together).labelled_share == pytest.approx(1 / SQUARES**2)
    assert replace(one, mask=whole).labelled_share == 1
    made = [replace(one, image=torch.full((3, 96, 96), number, dtype=torch.uint8)) for number in range(10)]
    made.append(Sample(torch.full((3, 96, 96), 10, dtype=torch.uint8), whole))
    item = Item("1", Path("none"), Path("none"), held_out=False, digest="")
    found = drawn(Samples.in_memory([(item, sample) for sample in made]), 2000)
    points = 10 * 9 / SQUARES**2
    share = points / (points + 1)
    assert abs(len([number for number in found if number < 10]) - 2000 * share) < 5 * math.sqrt(2000 * share)
