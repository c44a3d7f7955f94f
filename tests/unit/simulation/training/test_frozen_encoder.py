"""Encoders that stay as they are: the same outputs with and without memory, and nothing of them learns."""

from __future__ import annotations

import pytest
import torch
from simulated_data import material, plan
from torch import Tensor, nn

from ml_backend.learning.networks import SegmentationNetwork, build
from ml_backend.learning.training.data import Sample, Samples
from ml_backend.learning.training.job import Item
from ml_backend.learning.training.loop import Data, fit, seeded
from ml_backend.simulation.material import Material
from ml_backend.simulation.training.frozen_encoder import FrozenEncoder, MapMemory, freeze_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def network(seed: int = 0, architecture: str = "fcn8s") -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build(architecture, classes=3, dropout=0.0).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 40, 48, generator=torch.Generator().manual_seed(1))


class Counting(nn.Module):
    """An encoder that counts the images that it sees; its maps have 4 * 2 * 2 + 4 = 20 numbers per image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(3)
        self.seen = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen += len(images)
        mean = self.norm(images).mean(dim=(1, 2, 3))[:, None, None, None]
        return [
            images.mean(dim=(1, 2, 3))[:, None, None, None].expand(-1, 4, 2, 2) * self.scale,
            mean.expand(-1, 4, 1, 1),
        ]


BYTES = 20 * 4


# -- outputs -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", ["fcn8s", "segformer", "unet"])
def test_outputs_do_not_depend_on_the_memory(images: Tensor, architecture: str) -> None:
    plain = network(architecture=architecture)
    remembering = freeze_encoder(network(architecture=architecture), MapMemory())
    with torch.no_grad():
        logits, descriptors = plain.forward_with_features(images)
        for _ in range(2):  # computed, then remembered
            again, also = remembering.forward_with_features(images)
            assert torch.allclose(logits, again, atol=1e-4)
            assert torch.allclose(descriptors, also, atol=1e-4)
        mixed = remembering(torch.cat([images[3:], 1 - images[:2]]))  # two are new
        assert torch.allclose(plain(torch.cat([images[3:], 1 - images[:2]])), mixed, atol=1e-4)


def test_maps_do_not_depend_on_what_was_computed_together(images: Tensor) -> None:
    """To the last bit: a simulation that goes on meets images in other batches than one that was never stopped."""
    together, alone = (FrozenEncoder(network().model.get_submodule("encoder"), MapMemory()) for _ in range(2))
    at_once = together(images)
    one_by_one = [torch.cat(level) for level in zip(*[alone(image[None]) for image in images], strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(at_once, one_by_one, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(at_once, alone(images), strict=True))


def test_maps_come_in_the_order_of_the_images(images: Tensor) -> None:
    frozen = FrozenEncoder(Counting(), MapMemory())
    frozen(images[1:3])
    expected = images.mean(dim=(1, 2, 3))
    assert torch.allclose(frozen(images)[0][:, 0, 0, 0], expected)
    assert torch.allclose(frozen(images.flip(0))[0][:, 0, 0, 0], expected.flip(0))


def test_an_encoder_of_more_than_maps_is_not_remembered() -> None:
    class WithPositions(Counting):
        def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:  # type: ignore[override]
            return super().forward(images), images.sum(dim=(1, 2, 3))

    memory = MapMemory()
    frozen, images = FrozenEncoder(WithPositions(), memory), torch.rand(3, 3, 8, 8)
    maps, positions = frozen(images)
    assert len(memory) == 0
    assert torch.equal(positions, images.sum(dim=(1, 2, 3)))  # type: ignore[arg-type]
    assert torch.allclose(maps[0][:, 0, 0, 0], images.mean(dim=(1, 2, 3)))
    assert len(frozen(images[:1])[1]) == 1  # one image stays one


def test_what_a_decoder_does_to_the_maps_is_not_remembered(images: Tensor) -> None:
    frozen = FrozenEncoder(Counting(), MapMemory())
    first = frozen(images)[0].clone()
    frozen(images)[0].add_(1)
    frozen(images[:1])[0].add_(1)
    assert torch.equal(frozen(images)[0], first)


# -- memory ------------------------------------------------------------------------------------------------------------
def test_every_image_is_computed_once(images: Tensor) -> None:
    encoder, memory = Counting(), MapMemory()
    frozen = FrozenEncoder(encoder, memory)
    for batch in (images[:3], images[1:4], images, images):
        frozen(batch)
    assert encoder.seen == 3 + 2 + 2  # a single new image is computed with a copy of it
    assert len(memory) == 5


def test_without_memory_every_image_is_computed_each_time(images: Tensor) -> None:
    encoder = Counting()
    frozen = FrozenEncoder(encoder)
    frozen(images)
    frozen(images)
    assert encoder.seen == 10


def test_networks_share_a_memory(images: Tensor) -> None:
    memory = MapMemory()
    first, second = Counting(), Counting()
    one, other = FrozenEncoder(first, memory), FrozenEncoder(second, memory)
    assert torch.equal(one(images)[0], other(images)[0])
    assert (first.seen, second.seen) == (5, 0)


def test_other_images_have_other_keys() -> None:
    memory = MapMemory()
    frozen = FrozenEncoder(Counting(), memory)
    flat = torch.zeros(1, 3, 4, 8)
    one_pixel = flat.clone()
    one_pixel[0, 2, 3, 7] = 1e-6
    for image in (flat, one_pixel, flat.reshape(1, 3, 8, 4)):  # the last one has the same bytes
        frozen(image)
    assert len(memory) == 3


def test_memory_is_bounded(images: Tensor) -> None:
    encoder, memory = Counting(), MapMemory(bytes_most=2 * BYTES + 1)
    frozen = FrozenEncoder(encoder, memory)
    expected = images.mean(dim=(1, 2, 3))
    for _ in range(2):
        assert torch.allclose(frozen(images)[0][:, 0, 0, 0], expected)
    assert len(memory) == 2
    assert encoder.seen == 5 + 3
    exact = MapMemory(bytes_most=2 * BYTES)
    FrozenEncoder(Counting(), exact)(images)
    assert len(exact) == 2


def test_what_is_kept_is_not_kept_twice() -> None:
    memory, maps = MapMemory(bytes_most=100), (torch.zeros(1, 10),)
    for key in (b"a", b"a", b"b", b"c"):
        memory.put(key, maps)
    assert [memory.get(key) is None for key in (b"a", b"b", b"c")] == [False, False, True]


# -- staying as it is --------------------------------------------------------------------------------------------------
def test_statistics_stay_while_training(images: Tensor) -> None:
    encoder = Counting()
    frozen = FrozenEncoder(encoder)
    assert frozen.train() is frozen
    assert not any(module.training for module in frozen.modules())
    frozen(images)
    assert encoder.norm.running_mean is not None
    assert encoder.norm.running_mean.tolist() == [0, 0, 0]
    thawed = Counting().train()
    thawed(images)
    assert thawed.norm.running_mean is not None
    assert thawed.norm.running_mean.abs().sum() > 0  # the check above can fail


@pytest.mark.parametrize("memory", [None, MapMemory()])
def test_no_gradient_reaches_the_encoder(images: Tensor, memory: MapMemory | None) -> None:
    frozen = freeze_encoder(network(), memory).train()
    torch.autograd.backward(frozen(images).sum())
    for name, parameter in frozen.named_parameters():
        assert (parameter.grad is None) == ("encoder" in name.split(".")), name
    assert frozen.dropout.training
    assert not frozen.model.get_submodule("encoder").training


def test_freezing_twice_is_freezing_once() -> None:
    frozen = freeze_encoder(network())
    encoder = frozen.model.get_submodule("encoder")
    assert freeze_encoder(frozen) is frozen
    assert frozen.model.get_submodule("encoder") is encoder


@pytest.fixture(scope="module")
def data() -> Material:
    return material(4, 1)


def trained(one: SegmentationNetwork, data: Material) -> dict[str, Tensor]:
    samples = [
        (Item(str(picture.number), *([data_path] * 2), held_out=False, digest=""), Sample(picture.pixels, picture.mask))
        for picture in data.pool.values()
        for data_path in [plan().recipe.job(data.classes, 0, "cpu").folder]
    ]
    job = plan(iterations=3, train_encoder=True).recipe.job(data.classes, 0, "cpu")
    with seeded(0, CPU):
        sets = Data(training=Samples.in_memory(samples), held_out=Samples.in_memory([]))
        fit(one, sets, job, CPU, lambda _: None, pretrained=True)
    return one.state_dict()


def test_training_a_frozen_network_changes_its_decoder_only(data: Material) -> None:
    one = freeze_encoder(network(), MapMemory())
    before = {name: value.clone() for name, value in one.state_dict().items()}
    after = trained(one, data)
    for name, value in after.items():
        if "encoder" in name.split("."):
            assert torch.equal(value, before[name]), name
    assert any(not torch.equal(after[name], before[name]) for name in after if "encoder" not in name.split("."))


def test_training_a_network_that_is_not_frozen_changes_its_encoder(data: Material) -> None:
    one = network()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    after = trained(one, data)
    assert any(not torch.equal(after[name], before[name]) for name in after if "encoder" in name.split("."))
