"""Encoders that stay as they are: the same outputs with and without kept maps, and nothing of them learns."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import disc_job, noise_items, same_weights
from torch import Tensor, nn

from ml_backend.images.decoding import load_image
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.networks import MapFolder, MapMemory, SegmentationNetwork, build, encoder_maps, pad_to, place
from ml_backend.learning.networks.frozen_encoder import FrozenEncoder, used_maps
from ml_backend.learning.prediction.batches import Item as Picture
from ml_backend.learning.prediction.predictors import fresh_predictor, load_predictor
from ml_backend.learning.training import Job, train
from ml_backend.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PLENTY = 1 << 28


def network(seed: int = 0, architecture: str = "fpn") -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build(architecture, classes=3, dropout=0.0).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 40, 48, generator=torch.Generator().manual_seed(1))


class Counting(nn.Module):
    """An encoder that counts the images that it sees; two of its three maps are used, of 20 numbers per image."""

    used = (False, True, True)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen += len(images)
        mean = images.mean(dim=(1, 2, 3))[:, None, None, None]
        return [images, mean.expand(-1, 4, 2, 2) * self.scale, mean.expand(-1, 4, 1, 1) * 2]


BYTES = 20 * 2


# -- outputs -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", ["fcn8s", "fpn", "segformer", "unet", "deeplabv3plus", "pan"])
def test_outputs_agree_with_those_of_an_encoder_that_is_not_frozen(images: Tensor, architecture: str) -> None:
    """Within the rounding of half precision, whether maps are computed or were kept."""
    plain = network(architecture=architecture)
    frozen = network(architecture=architecture).freeze_encoder(MapMemory(PLENTY))
    with torch.no_grad():
        logits, descriptors = plain.forward_with_features(images)
        first = frozen.forward_with_features(images)
        again = frozen.forward_with_features(images)
        mixed = frozen(torch.cat([images[3:], 1 - images[:2]]))  # two are new
        expected = plain(torch.cat([images[3:], 1 - images[:2]]))
    largest = float(logits.abs().max())
    assert torch.allclose(logits, first[0], atol=5e-3 * largest)
    assert torch.allclose(descriptors, first[1], rtol=1e-3, atol=1e-3)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.allclose(expected, mixed, atol=5e-3 * largest)


def test_computed_maps_lie_in_memory_as_kept_ones_do(images: Tensor, tmp_path: Path) -> None:
    """In another layout the decoder's convolutions add up in another order: the last digits would differ."""
    placed = place(network(), CPU)
    encoder = FrozenEncoder(placed.model.get_submodule("encoder"), [True] * 6, MapFolder(tmp_path, PLENTY))
    computed, kept = (encoder.maps(pad_to(images, 64, 64)) for _ in range(2))
    for one, other in zip(computed, kept, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.mark.parametrize("architecture", ["dpt", "segnet"])
def test_an_encoder_of_more_than_maps_is_frozen_and_computed_each_time(architecture: str) -> None:
    encoder = {"dpt": "tu-vit_tiny_patch16_224", "segnet": "segnet-vgg16"}[architecture]
    options = {"segnet": {"width": 0.1}}.get(architecture, {})
    made = build(architecture, encoder, "none", classes=2, dropout=0.0, options=options).eval()
    memory, picture = MapMemory(PLENTY), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = made(picture)
        assert torch.equal(made.freeze_encoder(memory)(picture), expected)
    assert len(memory) == 0
    assert made.is_frozen


def test_maps_do_not_depend_on_what_was_computed_together(images: Tensor) -> None:
    """To the last bit: trainings and rankings meet images in other batches."""
    together, alone = (network().freeze_encoder(MapMemory(PLENTY)) for _ in range(2))
    with torch.no_grad():
        for image in images:
            alone(image[None])
        assert torch.equal(together(images), alone(images))


def test_images_of_several_sizes_keep_their_own_maps() -> None:
    sizes = ((40, 48), (64, 33), (32, 32))
    images = [torch.rand(3, *size, generator=torch.Generator().manual_seed(2)) for size in sizes]
    memory = MapMemory(PLENTY)
    frozen = network().freeze_encoder(memory)
    with torch.no_grad():
        logits = frozen.forward_each(images)
        assert logits.shape == (3, 3, 64, 48)
        assert len(memory) == 3
        alone = frozen(images[0][None])[0]
    assert len(memory) == 3  # the same maps by itself: none was computed anew
    assert torch.allclose(logits[0, :, :20, :20], alone[:, :20, :20], atol=0.2 * float(alone.abs().max()))


def test_maps_that_a_decoder_does_not_use_are_kept_as_their_shapes() -> None:
    seen: dict[str, list[bool] | None] = {}
    for architecture in ("fpn", "unet", "deeplabv3plus"):
        made = network(architecture=architecture)
        parts = made.model.get_submodule("encoder"), made.model.get_submodule("decoder")
        seen[architecture] = used_maps(*parts, torch.zeros(1, 3, 64, 64))
    assert seen == {
        "fpn": [False, False, True, True, True, True],
        "unet": [False, True, True, True, True, True],
        "deeplabv3plus": [False, False, True, False, False, True],
    }


def test_maps_beyond_half_precision_are_computed_each_time(images: Tensor) -> None:
    encoder, memory = Counting(), MapMemory(PLENTY)
    encoder.scale.data.fill_(1e6)
    frozen = FrozenEncoder(encoder, Counting.used, memory)
    expected = images.mean(dim=(1, 2, 3)) * 1e6
    assert torch.allclose(frozen.maps(images)[1][:, 0, 0, 0], expected)
    assert len(memory) == 0


# -- what is kept ------------------------------------------------------------------------------------------------------
def test_every_image_is_computed_once(images: Tensor) -> None:
    encoder, memory = Counting(), MapMemory(PLENTY)
    frozen = FrozenEncoder(encoder, Counting.used, memory)
    expected = images.mean(dim=(1, 2, 3))
    for batch in (images[:3], images[1:4], images, images.flip(0)):
        frozen.maps(batch)
    assert encoder.seen == len(memory) == 5
    assert torch.allclose(frozen.maps(images.flip(0))[1][:, 0, 0, 0], expected.flip(0), rtol=1e-3)
    frozen.maps(images)[1].add_(1)  # what a decoder does to the maps is not kept
    assert torch.allclose(frozen.maps(images)[1][:, 0, 0, 0], expected, rtol=1e-3)


def test_without_a_store_every_image_is_computed_each_time(images: Tensor) -> None:
    encoder = Counting()
    frozen = FrozenEncoder(encoder, Counting.used)
    for _ in range(2):
        frozen.maps(images)
    assert encoder.seen == 10


def test_networks_share_maps_only_of_the_same_encoder(images: Tensor) -> None:
    memory = MapMemory(PLENTY)
    first, second, other = Counting(), Counting(), Counting()
    other.scale.data.fill_(2.0)
    for encoder in (first, second, other):
        FrozenEncoder(encoder, Counting.used, memory).maps(images)
    assert (first.seen, second.seen, other.seen) == (5, 0, 5)


def test_other_images_have_other_keys() -> None:
    memory = MapMemory(PLENTY)
    frozen = FrozenEncoder(Counting(), Counting.used, memory)
    flat = torch.zeros(1, 3, 4, 8)
    one_pixel = flat.clone()
    one_pixel[0, 2, 3, 7] = 1e-6
    for image in (flat, one_pixel, flat.reshape(1, 3, 8, 4)):  # the last one has the same bytes
        frozen.maps(image)
    assert len(memory) == 3


def test_memory_is_bounded(images: Tensor) -> None:
    encoder, memory = Counting(), MapMemory(2 * BYTES + 1)
    frozen = FrozenEncoder(encoder, Counting.used, memory)
    for _ in range(2):
        frozen.maps(images)
    assert len(memory) == 2
    assert encoder.seen == 5 + 3


def test_maps_are_the_same_from_a_folder(images: Tensor, tmp_path: Path) -> None:
    encoder = Counting()
    first = FrozenEncoder(encoder, Counting.used, MapFolder(tmp_path, PLENTY)).maps(images)
    again = FrozenEncoder(encoder, Counting.used, MapFolder(tmp_path, PLENTY)).maps(images)
    assert encoder.seen == 5
    assert all(torch.equal(a, b) for a, b in zip(first[1:], again[1:], strict=True))
    assert [level.shape for level in again] == [level.shape for level in encoder(images)]
    assert not again[0].any()  # not used, and not kept


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-7],
        lambda content: b"",
        lambda content: b"{}\n" * 20,
        lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    ],
)
def test_a_damaged_file_is_computed_anew(images: Tensor, tmp_path: Path, damage: Any) -> None:
    encoder = Counting()
    frozen = FrozenEncoder(encoder, Counting.used, MapFolder(tmp_path, PLENTY))
    first = frozen.maps(images[:1])
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(frozen.maps(images[:1])[1], first[1])
    assert encoder.seen == 2
    frozen.maps(images[:1])
    assert encoder.seen == 2  # the file is whole again


def test_the_folder_is_bounded(images: Tensor, tmp_path: Path) -> None:
    frozen = FrozenEncoder(Counting(), Counting.used, MapFolder(tmp_path, 400))
    for shift in range(20):
        frozen.maps(images / (1 + shift))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 400


# -- whole trainings ---------------------------------------------------------------------------------------------------
@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of images that encoders have computed since the list was emptied."""
    seen: list[str] = []
    compute = FrozenEncoder._of

    def counting(self: FrozenEncoder, image: Tensor) -> Any:
        before = self._encoder.forward

        def forward(images: Tensor) -> Any:
            seen.append(str(tuple(images.shape)))
            return before(images)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._encoder, "forward", forward)
            return compute(self, image)

    monkeypatch.setattr(FrozenEncoder, "_of", counting)
    return seen


def quick_job(folder: Path, labels: int, **changes: Any) -> Job:
    maps = {"maps_folder": folder / "maps", "maps_bytes": PLENTY}
    return disc_job(folder / "data", training=labels, held_out=0, input_size=48, **maps | changes)


def test_a_round_encodes_each_image_once(tmp_path: Path, encoded: list[str]) -> None:
    """Cold start, training, ranking, training with more labels, ranking: the floor of what has to be computed."""
    settings = Settings(model_dir=tmp_path, input_size=48, device="cpu")
    job = quick_job(tmp_path, 10, maps_folder=settings.maps_folder, iterations=40)
    more = quick_job(tmp_path, 14, maps_folder=settings.maps_folder, iterations=60)
    pool = [Picture(number, load_image(item.image)) for number, item in enumerate(more.items)]

    def spent() -> int:
        count = len(encoded)
        encoded.clear()
        return count

    list(fresh_predictor(settings, job.classes).batches(pool, features=True, batch_size=4))
    assert spent() == 14
    version = train(job)
    assert spent() == 10 * 3  # three more views of each; the images themselves are known
    checkpoints = Checkpoints(job.folder)
    maps = MapFolder(settings.maps_folder, PLENTY)
    list(load_predictor(checkpoints, version, "cpu", maps).batches(pool, features=True, batch_size=4))
    assert spent() == 0
    second = train(more)
    assert spent() == 4 * 3
    list(load_predictor(checkpoints, second, "cpu", maps).batches(pool, features=True, batch_size=4))
    assert spent() == 0


def test_weights_do_not_depend_on_what_was_kept(tmp_path: Path) -> None:
    job = quick_job(tmp_path, 4)
    weights = [Checkpoints(job.folder).load_state(train(job)) for _ in range(2)]
    without = quick_job(tmp_path, 4, maps_folder=None)
    weights.append(Checkpoints(job.folder).load_state(train(without)))
    assert same_weights(weights[0], weights[1])
    assert same_weights(weights[0], weights[2])


def test_a_disk_that_refuses_maps_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    @contextmanager
    def full(*_: object) -> Iterator[None]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(encoder_maps.BoundedFolder, "adding", full)
    assert train(quick_job(tmp_path, 3)).number == 1
    assert [record.levelname for record in caplog.records if "cannot be kept" in record.message] == ["WARNING"]


def test_images_of_several_sizes_train(tmp_path: Path) -> None:
    job = quick_job(tmp_path, 2)
    small = [dataclasses.replace(item, id=f"{item.id}0") for item in noise_items(tmp_path, 3, side=70)]
    assert train(dataclasses.replace(job, items=(*job.items, *small))).record.measures["trained"] == 5


# -- staying as it is --------------------------------------------------------------------------------------------------
def test_statistics_and_weights_of_the_encoder_stay(images: Tensor) -> None:
    frozen, thawed = (network(architecture="unet") for _ in range(2))
    frozen.freeze_encoder().train()
    thawed.train()
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    for one in (frozen, thawed):
        torch.autograd.backward(one(images).sum())
    for name, parameter in frozen.named_parameters():
        assert (parameter.grad is None) == ("encoder" in name.split(".")), name
    for one, is_frozen in ((frozen, True), (thawed, False)):
        changed = [name for name, value in one.state_dict().items() if not torch.equal(value, before[name])]
        assert [name for name in changed if ".decoder." in name]
        assert (not [name for name in changed if ".encoder." in name]) == is_frozen
    assert frozen.dropout.training
    assert not frozen.model.get_submodule("encoder").training


def test_names_in_the_state_are_those_of_a_network_that_is_not_frozen() -> None:
    assert network().state_dict().keys() == network().freeze_encoder().state_dict().keys()


def test_padded_maps_keep_their_cells() -> None:
    level = torch.arange(6.0).view(1, 1, 2, 3)
    assert torch.equal(pad_to(level, 3, 4)[..., :2, :3], level)
