"""Prediction: sizes, batches, streams, threads, memory, the models kept."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ml_backend.errors import CheckpointError, ConfigurationError, ImageError
from ml_backend.learning.checkpoints import Checkpoints, Version, VersionRecord
from ml_backend.learning.networks import MapStore, SegmentationNetwork, build
from ml_backend.learning.networks.weights import IMAGENET
from ml_backend.learning.prediction import predictors
from ml_backend.learning.prediction.batches import Item
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.prediction.predictor_cache import PredictorCache
from strategies import Batch

CPU = torch.device("cpu")
CLASSES = ("background", "cell", "vessel")
INPUT_SIZE = 64
SIZES = [(48, 64), (64, 48), (96, 128), (30, 30), (120, 40), (1, 1), (7, 200), (64, 64), (33, 50)]

Pixels = npt.NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    torch.manual_seed(0)
    network = build(classes=len(CLASSES), dropout=0.3)
    with torch.no_grad():  # an untrained head is nearly constant: give it something to say
        network.get_submodule("model.segmentation_head.0").weight.mul_(20)
    return network


@pytest.fixture
def predictor(network: SegmentationNetwork) -> Predictor:
    return Predictor(network, CLASSES, INPUT_SIZE, CPU)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """A smooth random picture: its mask has areas, not noise."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)[0]
    return (smooth * 255).byte().permute(1, 2, 0).numpy()


def pictures() -> list[Pixels]:
    return [picture(height, width, seed) for seed, (height, width) in enumerate(SIZES)]


def by_id(batches: Iterator[Batch]) -> dict[int, tuple[Tensor, Tensor | None]]:
    """Image id -> probabilities (C,h,w) at its valid pixels, and descriptor."""
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    for batch in batches:
        assert batch.probabilities is not None
        for index, number in enumerate(batch.ids):
            rows, columns = batch.valid[index].any(1).sum(), batch.valid[index].any(0).sum()
            descriptor = None if batch.features is None else batch.features[index]
            found[int(number)] = (batch.probabilities[0, index, :, :rows, :columns], descriptor)
    return found


class Brightness(SegmentationNetwork):
    """Class 1 where the picture is bright; says how many images came at once, and can be made to fail or to wait."""

    def __init__(self, most: int = 1000) -> None:
        model = torch.nn.Module()
        model.encoder = torch.nn.Identity()
        super().__init__(model, stride=32, least_side=1, normalisation=IMAGENET, dropout=0)
        self.seen: list[int] = []
        self.most, self.running, self.overlapped = most, 0, False
        self.full: Exception = torch.cuda.OutOfMemoryError("out of memory")

    def forward_with_features(self, images: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.running += 1
        self.overlapped |= self.running > 1
        try:
            if images.any():  # not the blank image that memory is measured with
                self.seen.append(len(images))
            if len(images) > self.most:
                raise self.full
            bright = images.mean(dim=1, keepdim=True) - 0.5
            return torch.cat([-bright, bright], dim=1) * 10, images.mean(dim=(2, 3))
        finally:
            self.running -= 1


def brightness(most: int = 1000) -> tuple[Brightness, Predictor]:
    network = Brightness(most)
    return network, Predictor(network, ("dark", "bright"), INPUT_SIZE, CPU)


# -- predict ----------------------------------------------------------------------------------------------------------


def test_masks_have_the_size_of_their_image_in_order(predictor: Predictor) -> None:
    predictions = predictor.predict(pictures())
    assert [one.mask.shape for one in predictions] == SIZES
    assert all(one.mask.dtype == np.uint8 and one.mask.max() < len(CLASSES) for one in predictions)
    assert all(1 / len(CLASSES) <= one.confidence <= 1 for one in predictions)
    assert len({int(label) for one in predictions for label in np.unique(one.mask)}) > 1


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert list(predictor.batches(iter([]), features=True, batch_size=2)) == []


def test_the_mask_is_where_the_image_is() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:120, 100:250] = 255
    (prediction,) = brightness()[1].predict([image])
    wrong = prediction.mask != (image[..., 0] > 0)
    assert wrong.mean() < 0.02  # the border, shrunk by 4.7 and back
    assert prediction.mask[60:100, 120:230].all()
    assert prediction.confidence > 0.95


def test_an_image_that_fits_is_predicted_pixel_by_pixel() -> None:
    image = (np.random.default_rng(0).integers(0, 2, (37, 51, 1)) * 255).astype(np.uint8).repeat(3, axis=2)
    (prediction,) = brightness()[1].predict([image])
    assert np.array_equal(prediction.mask, image[..., 0] // 255)


def test_predictions_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    images = pictures()
    together = predictor.predict(images + images[:4])
    for image, prediction in zip(images, together, strict=False):
        (alone,) = predictor.predict([image])
        assert (alone.mask != prediction.mask).mean() <= 0.001  # float rounding at ties
        assert alone.confidence == pytest.approx(prediction.confidence, abs=1e-4)


def test_confidence_leaves_padding_out() -> None:
    image = np.full((33, 33, 3), 255, np.uint8)
    image[:32, :32] = 128  # what is mirrored into the padding is undecided, the rest is sure
    (prediction,) = brightness()[1].predict([image])
    undecided, sure = 1024 / 1089, 65 / 1089
    probability = 1 / (1 + np.exp(-20 * (128 / 255 - 0.5)))
    assert prediction.confidence == pytest.approx(undecided * probability + sure * 1.0, abs=1e-3)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_arrays_are_refused(image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"Image 1 must be \(height, width, 3\) uint8"):
        brightness()[1].predict([picture(8, 8), image])


def test_large_images_need_little_memory_beside_their_mask() -> None:
    """Upsampled logits of this image would take 12 classes x 12 million pixels x 4 bytes = 576 MB."""
    code = """
import resource, numpy as np, torch
from ml_backend.learning.networks import labels_at
torch.set_num_threads(1)
logits = torch.randn(12, 48, 64)
labels_at(logits, 300, 400)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mask = labels_at(logits, 3000, 4000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    megabytes = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert megabytes < 80


# -- batches ----------------------------------------------------------------------------------------------------------


def test_batches_hold_what_a_strategy_needs(predictor: Predictor) -> None:
    images = dict(enumerate(pictures(), start=10))
    seen: list[int] = []
    for batch in predictor.batches(starmap(Item, images.items()), features=True, batch_size=4):
        seen.extend(int(number) for number in batch.ids)
        count, _, height, width = batch.images.shape
        assert batch.probabilities is not None
        assert batch.features is not None
        assert batch.probabilities.shape == (1, count, len(CLASSES), height, width)
        assert batch.probabilities.dtype == torch.float32
        assert batch.features.shape == (count, 320)
        assert batch.size.tolist() == [list(images[int(number)].shape[:2]) for number in batch.ids]
        assert not batch.labelled.any()
        assert batch.valid.any(1).sum(1).max() == width  # padded to the largest, not to the stride
        assert batch.valid.any(2).sum(1).max() == height
    assert sorted(seen) == sorted(images)


def test_features_are_left_out_unless_asked_for(predictor: Predictor) -> None:
    (batch,) = predictor.batches([Item(1, picture(40, 40))], features=False, batch_size=4)
    assert batch.features is None


def test_batches_show_the_image_they_are_of() -> None:
    image = picture(40, 56)
    (batch,) = brightness()[1].batches([Item(5, image), Item(6, picture(33, 64))], features=True, batch_size=2)
    assert batch.images.shape == (2, 3, 40, 64)
    assert batch.valid.sum(dim=(1, 2)).tolist() == [40 * 56, 33 * 64]
    torch.testing.assert_close(batch.images[0, :, :40, :56], torch.from_numpy(image).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_probabilities_and_features_do_not_depend_on_the_batch(predictor: Predictor, batch_size: int) -> None:
    items = list(starmap(Item, enumerate(pictures() * 2)))
    wanted = by_id(predictor.batches(items, features=True, batch_size=1))
    found = by_id(predictor.batches(reversed(items), features=True, batch_size=batch_size))
    assert found.keys() == wanted.keys()
    for number, (probabilities, descriptor) in found.items():
        torch.testing.assert_close(probabilities, wanted[number][0], atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(descriptor, wanted[number][1], atol=2e-3, rtol=1e-3)


def test_masks_agree_with_probabilities(predictor: Predictor) -> None:
    image = picture(50, 60)
    (batch,) = predictor.batches([Item(1, image)], features=False, batch_size=1)
    assert batch.probabilities is not None
    (prediction,) = predictor.predict([image])
    assert np.array_equal(batch.probabilities[0, 0].argmax(dim=0).numpy(), prediction.mask)
    assert prediction.confidence == pytest.approx(float(batch.probabilities[0, 0].amax(dim=0).mean()), abs=1e-5)


def test_the_stream_is_read_one_batch_ahead() -> None:
    read: list[int] = []

    def endless() -> Iterator[Item]:
        number = 0
        while True:
            read.append(number)
            yield Item(number, picture(40, 40))
            number += 1

    stream = brightness()[1].batches(endless(), features=False, batch_size=4)
    assert read == []
    assert next(stream).ids == (0, 1, 2, 3)
    assert len(read) == 8
    assert next(stream).ids == (4, 5, 6, 7)
    assert len(read) == 12


def test_images_of_rare_sizes_do_not_wait_for_ever() -> None:
    network = Brightness()
    predictor = Predictor(network, ("dark", "bright"), 160, CPU)
    images = (Item(number, picture(1, 1 + 32 * (number % 5))) for number in range(10_000))  # five padded sizes
    stream = predictor.batches(images, features=False, batch_size=10)
    first = next(stream)
    assert next(images).id <= 2 * 4 * 10
    assert len(first.ids) == 8
    assert max(network.seen) <= 10


def test_every_image_of_many_sizes_comes_out_once() -> None:
    generator = np.random.default_rng(3)
    items = [Item(n, picture(*generator.integers(1, 130, 2))) for n in range(120)]
    network, predictor = brightness()
    numbers = [int(one) for batch in predictor.batches(items, features=False, batch_size=5) for one in batch.ids]
    assert sorted(numbers) == list(range(120))
    assert max(network.seen) <= 5


def test_an_error_of_the_stream_reaches_the_reader() -> None:
    def broken() -> Iterator[Item]:
        yield Item(1, picture(8, 8))
        raise ImageError("disk full")

    with pytest.raises(ImageError, match="disk full"):
        list(brightness()[1].batches(broken(), features=False, batch_size=1))


# -- memory of the GPU ------------------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on() -> None:
    network, predictor = brightness(most=3)
    items = [Item(number, picture(40, 40, number)) for number in range(20)]
    found = by_id(predictor.batches(items, features=True, batch_size=8))
    assert sorted(found) == list(range(20))
    assert network.seen == [8, 4, *[2] * 10]  # what does not fit is tried once, not for every batch
    wanted = by_id(brightness()[1].batches(items, features=True, batch_size=8))
    assert all(torch.equal(found[number][0], wanted[number][0]) for number in found)


def test_predictions_survive_a_full_gpu() -> None:
    images = [picture(40, 40, number) for number in range(11)]
    limited = brightness(most=1)[1].predict(images)
    for prediction, wanted in zip(limited, brightness()[1].predict(images), strict=True):
        assert np.array_equal(prediction.mask, wanted.mask)


def test_a_single_image_that_does_not_fit_names_the_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"64 pixels.*NEXTMASK_INPUT_SIZE.*NEXTMASK_DEVICE"):
        brightness(most=0)[1].predict([picture(8, 8), picture(8, 9)])


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_share_a_predictor(predictor: Predictor) -> None:
    images = pictures()
    wanted = [predictor.predict([image])[0].mask for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: predictor.predict([images[number % len(images)]]), range(36)))
    assert all(np.array_equal(one[0].mask, wanted[number % len(images)]) for number, one in enumerate(found))


def test_one_forward_pass_at_a_time() -> None:
    network, predictor = brightness()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: predictor.predict([picture(64, 64, number)] * 3), range(64)))
    assert not network.overlapped


def test_a_slow_reader_of_batches_holds_nobody_up() -> None:
    predictor = brightness()[1]
    stream = predictor.batches((Item(n, picture(40, 40)) for n in range(8)), features=False, batch_size=2)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(predictor.predict, [picture(40, 40)]).result(timeout=10)) == 1


# -- models in memory -------------------------------------------------------------------------------------------------


def record(**changes: object) -> VersionRecord:
    values: dict[str, object] = {
        "classes": CLASSES,
        "label_map_digest": "a",
        "data_digest": "b",
        "settings": {
            "architecture": "unet",
            "encoder": "tu-tf_efficientnet_lite0",
            "input_size": INPUT_SIZE,
            "dropout": 0.3,
        },
    }
    return VersionRecord(**(values | changes))


@pytest.fixture(scope="module")
def checkpoints(network: SegmentationNetwork, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    found = Checkpoints(tmp_path_factory.mktemp("model"))
    for _ in range(3):
        found.create(record(), network.state_dict())
    return found


class Loads:
    """Counts loads of versions; a version in `slow` waits for its event."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: list[int] = []
        self.slow: dict[int, threading.Event] = {}
        self._load = predictors.load_predictor
        monkeypatch.setattr(predictors, "load_predictor", self)

    def __call__(self, checkpoints: Checkpoints, version: Version, device: str, maps: MapStore | None) -> Predictor:
        self.numbers.append(version.number)
        if version.number in self.slow:
            assert self.slow[version.number].wait(20)
        return self._load(checkpoints, version, device, maps)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


def get_all(cache: PredictorCache, checkpoints: Checkpoints, numbers: Sequence[int]) -> list[Predictor]:
    return [cache.get(checkpoints, number, "cpu") for number in numbers]


def test_a_loaded_version_predicts_as_the_network_it_was_made_of(
    checkpoints: Checkpoints, predictor: Predictor
) -> None:
    loaded = PredictorCache(1).get(checkpoints, 1, "auto")
    assert loaded.classes == CLASSES
    assert loaded.input_size == INPUT_SIZE
    if loaded.device == CPU:
        image = picture(90, 70)
        assert np.array_equal(loaded.predict([image])[0].mask, predictor.predict([image])[0].mask)


def test_the_least_recently_used_model_leaves(checkpoints: Checkpoints, loads: Loads) -> None:
    cache = PredictorCache(2)
    first, second = get_all(cache, checkpoints, [1, 2])
    assert get_all(cache, checkpoints, [1, 2, 1]) == [first, second, first]
    assert loads.numbers == [1, 2]
    get_all(cache, checkpoints, [3, 1, 2])
    assert loads.numbers == [1, 2, 3, 2]


def test_a_projects_new_version_takes_the_place_of_its_old_one(
    checkpoints: Checkpoints, network: SegmentationNetwork, tmp_path: Path, loads: Loads
) -> None:
    other, cache = Checkpoints(tmp_path), PredictorCache(4, one_each=True)
    other.create(record(), network.state_dict())
    of_other = cache.get(other, 1, "cpu")
    old = weakref.ref(cache.get(checkpoints, 1, "cpu"))
    new = cache.get(checkpoints, 2, "cpu")
    assert old() is None
    assert [cache.get(other, 1, "cpu"), cache.get(checkpoints, 2, "cpu")] == [of_other, new]
    assert loads.numbers == [1, 1, 2]


def test_projects_do_not_share_models(
    checkpoints: Checkpoints, network: SegmentationNetwork, tmp_path: Path, loads: Loads
) -> None:
    other, cache = Checkpoints(tmp_path), PredictorCache(4)
    other.create(record(), network.state_dict())
    assert cache.get(other, 1, "cpu") is not cache.get(checkpoints, 1, "cpu")
    assert cache.get(Checkpoints(tmp_path), 1, "cpu") is cache.get(other, 1, "cpu")
    assert loads.numbers == [1, 1]


def test_many_threads_load_a_version_once(checkpoints: Checkpoints, loads: Loads) -> None:
    cache = PredictorCache(2)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: cache.get(checkpoints, 2, "cpu"), range(8)))
    assert len(found) == 1
    assert loads.numbers == [2]


def test_the_old_version_predicts_while_the_new_one_loads(checkpoints: Checkpoints, loads: Loads) -> None:
    cache = PredictorCache(1)
    old = cache.get(checkpoints, 1, "cpu")
    loads.slow[2] = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        new = pool.submit(cache.get, checkpoints, 2, "cpu")
        assert cache.get(checkpoints, 1, "cpu") is old
        assert len(old.predict([picture(40, 40)])) == 1
        assert not new.done()
        loads.slow[2].set()
        assert new.result(timeout=20) is cache.get(checkpoints, 2, "cpu")
    assert loads.numbers == [1, 2]


def test_a_failed_load_is_tried_again(checkpoints: Checkpoints, network: SegmentationNetwork) -> None:
    cache = PredictorCache(1)
    number = max(version.number for version in checkpoints.versions()) + 1
    for _ in range(2):
        with pytest.raises(CheckpointError):
            cache.get(checkpoints, number, "cpu")
    assert checkpoints.create(record(), network.state_dict()).number == number
    assert cache.get(checkpoints, number, "cpu").classes == CLASSES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("one", "two")}, "not those of unet .* with 2 classes: roll back or train again"),
        ({"settings": {"architecture": "unet"}}, "lacks the setting 'encoder'"),
    ],
)
def test_a_record_that_does_not_fit_its_weights(
    changes: dict[str, object], message: str, network: SegmentationNetwork, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.create(record(**changes), network.state_dict())
    with pytest.raises(CheckpointError, match=message):
        PredictorCache(1).get(checkpoints, 1, "cpu")


def test_an_unknown_device_is_refused(checkpoints: Checkpoints) -> None:
    with pytest.raises(ConfigurationError, match="NEXTMASK_DEVICE = 'cuda:99'"):
        PredictorCache(1).get(checkpoints, 1, "cuda:99")


def test_a_cache_holds_at_least_one_model() -> None:
    with pytest.raises(ValueError, match="at least 1, received 0"):
        PredictorCache(0)
