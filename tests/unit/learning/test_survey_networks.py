"""The survey's own architectures, and options of networks: from the names to a version that is trained and loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ml_backend.errors import ConfigurationError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.networks import SegmentationNetwork, build, check_network, load_network, working_bytes
from ml_backend.learning.networks.architectures.dcan import differences
from ml_backend.learning.networks.architectures.fcn8s import Vgg16
from ml_backend.learning.networks.names import architectures
from ml_backend.learning.networks.weights import BUNDLED_ENCODER
from ml_backend.learning.prediction.committees import load_ensemble, mc_dropout
from ml_backend.learning.prediction.predictors import fresh_predictor, load_predictor
from ml_backend.learning.training import Item, Job, train
from ml_backend.learning.training.losses import cross_entropy_dice
from ml_backend.learning.training.start import initial_network, rebuild
from ml_backend.settings import Settings

NARROW = {"width": 0.0625}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dcan": ("resnet18", {"decoder_channels": 8}),
    "drn": ("drn22", NARROW),
    "fcn8s": ("fcn-vgg16", NARROW),
    "segnet": ("segnet-vgg16", NARROW),
}
STRIDES = {"dcan": 32, "drn": 8, "fcn8s": 32, "segnet": 32}
EVERY = pytest.mark.parametrize("architecture", NETWORKS)
WIDE = pytest.mark.parametrize("architecture", ["drn", "fcn8s", "segnet"])

pytestmark = pytest.mark.usefixtures("one_thread")


def make(architecture: str, *, classes: int = 3, dropout: float = 0.0, **options: Any) -> SegmentationNetwork:
    encoder, usual = NETWORKS[architecture]
    torch.manual_seed(0)
    return build(architecture, encoder, "none", classes=classes, dropout=dropout, options=usual | options)


def parameters(network: SegmentationNetwork) -> int:
    return sum(one.numel() for one in network.parameters())


# -- shapes -----------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("classes", [1, 3])
def test_logits_have_the_size_of_the_images(architecture: str, classes: int) -> None:
    network = make(architecture, classes=classes).eval()
    for height, width in ((1, 1), (33, 70), (64, 32)):
        with torch.no_grad():
            logits, features = network.forward_with_features(torch.rand(2, 3, height, width))
            decoded, _ = network.decode(torch.rand(2, 3, height, width))
        assert logits.shape == (2, classes, height, width)
        assert features.shape[0] == decoded.shape[0] == 2
        assert features.ndim == 2
        assert decoded.ndim == 4
        assert logits.isfinite().all()
        assert features.isfinite().all()


@EVERY
def test_sides_are_padded_to_the_stride(architecture: str) -> None:
    network, stride = make(architecture), STRIDES[architecture]
    assert network.padded_size(1, stride + 1) == (stride, 2 * stride)


@EVERY
def test_descriptors_are_the_mean_of_the_deepest_map(architecture: str) -> None:
    network, images = make(architecture).eval(), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        encoded = network.model.encoder((images - network.mean) / network.std)
        maps = encoded[0] if isinstance(encoded, tuple) else encoded
        assert maps[-1].shape[-2:] == (64 // STRIDES[architecture], 96 // STRIDES[architecture])
        torch.testing.assert_close(network.features(images), maps[-1].mean(dim=(2, 3)))


@EVERY
def test_memory_can_be_estimated(architecture: str) -> None:
    assert working_bytes(make(architecture).eval()) > 4 * 3


@pytest.mark.parametrize("architecture", ["dcan", "fcn8s"])
def test_bundled_weights(architecture: str) -> None:
    network, unet = build(architecture, classes=2, dropout=0).eval(), build(classes=2, dropout=0).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network.features(images), unet.features(images))
        assert network(images).shape == (1, 2, 64, 64)


@pytest.mark.parametrize("architecture", ["dcan", "fcn8s"])
@pytest.mark.parametrize("encoder", ["vgg11", "mit_b0", "tu-swin_tiny_patch4_window7_224"])
def test_any_encoder_with_maps_of_these_strides(architecture: str, encoder: str) -> None:
    network = build(architecture, encoder, "none", classes=2, dropout=0).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 40, 72)).shape == (1, 2, 40, 72)


@pytest.mark.parametrize("architecture", ["dcan", "fcn8s"])
def test_an_encoder_without_a_pyramid_is_refused(architecture: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{architecture}' cannot be built on .* 'tu-vit_tiny_patch16_224'"):
        build(architecture, "tu-vit_tiny_patch16_224", "none", classes=2, dropout=0)


# -- learning ---------------------------------------------------------------------------------------------------------


@EVERY
def test_gradients_reach_every_parameter(architecture: str) -> None:
    network = make(architecture)
    assert network.training
    network(torch.rand(4, 3, 64, 64)).square().mean().backward()
    unreached = [name for name, one in network.named_parameters() if one.grad is None or not one.grad.any()]
    assert unreached == []


def coloured(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (N,3,32,32) of four squares, each of a noisy red, green or blue, and which it is: (N,32,32)."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randint(0, 3, (count, 2, 2), generator=generator)
    target = squares.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    colours = functional.one_hot(target, 3).movedim(-1, 1)
    return 0.5 * colours + 0.5 * torch.rand(count, 3, 32, 32, generator=generator), target


@EVERY
def test_it_learns(architecture: str) -> None:
    network = make(architecture, **{"drn": {"width": 0.25}, "segnet": {"width": 0.25}}.get(architecture, {}))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for step in range(40):
        images, target = coloured(8, seed=step)
        loss = cross_entropy_dice(network(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    images, target = coloured(16, seed=1000)
    with torch.no_grad():
        accuracy = (network.eval()(images).argmax(dim=1) == target).float().mean()
    assert accuracy > 0.6  # one in three by chance


# -- what makes each of them what it is -------------------------------------------------------------------------------


def test_fcn_scores_are_added_as_in_the_paper() -> None:
    network = make("fcn8s").eval()
    network.get_submodule("model.segmentation_head.0").bias.data.zero_()  # the sum has it once, three scores thrice
    with torch.no_grad():
        maps = network.model.encoder(torch.rand(1, 3, 96, 64))[-3:]
        weights = network.get_submodule("model.segmentation_head.0").weight.split([one.shape[1] for one in maps], dim=1)
        pool3, pool4, fc7 = (functional.conv2d(one, weight) for one, weight in zip(maps, weights, strict=True))
        fused = pool4 + functional.interpolate(fc7, scale_factor=2, mode="bilinear")
        fused = pool3 + functional.interpolate(fused, scale_factor=2, mode="bilinear")
        wanted = functional.interpolate(fused, scale_factor=8, mode="bilinear")
        found = network.model.segmentation_head(network.model.decoder(maps))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_segnet_puts_values_back_to_where_they_were_the_maximum() -> None:
    network = make("segnet").eval()
    seen: list[tuple[Tensor, Tensor]] = []
    network.get_submodule("model.decoder.unpool").register_forward_hook(
        lambda _, given, made: seen.append((given[0], made))
    )
    with torch.no_grad():
        current = images = torch.rand(1, 3, 64, 96)
        maps, positions = network.model.encoder(images)
        network.model.decoder(maps, positions)
        for stage, (small, large) in zip(network.model.encoder.stages, reversed(seen), strict=True):
            before = stage(current)
            current, position = functional.max_pool2d(before, 2, return_indices=True)
            assert len(position.unique() % 2) > 1
            assert large.shape == before.shape
            wanted = torch.zeros_like(large).flatten(2).scatter(2, position.flatten(2), small.flatten(2))
            assert torch.equal(large.flatten(2), wanted)


def test_segnet_looks_at_the_positions() -> None:
    network = make("segnet").eval()
    with torch.no_grad():
        maps, positions = network.model.encoder(torch.rand(1, 3, 64, 64))
        corners = [position_of_corners(one) for one in maps]
        assert not torch.allclose(network.model.decoder(maps, positions), network.model.decoder(maps, corners))


def position_of_corners(pooled: Tensor) -> Tensor:
    """Position of the upper left of the four cells that each value of a map may have come from."""
    rows, columns = pooled.shape[-2:]
    plane = 4 * columns * torch.arange(rows)[:, None] + 2 * torch.arange(columns)
    return plane.expand(pooled.shape).contiguous()


def test_segnet_keeps_no_positions_of_another_image() -> None:
    network = make("segnet").eval()
    one, other = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 32, 96)
    with torch.no_grad():
        wanted = network.decode(one)[0]
        encoded = network.model.encoder((one - network.mean) / network.std)
        network(other)  # as another thread does between encoder and decoder
        assert torch.equal(network.model.decoder(*encoded), wanted)


def test_dcan_contours_are_differences() -> None:
    even = torch.full((1, 2, 5, 6), 3.0)
    torch.testing.assert_close(differences(even), torch.zeros(1, 2, 5, 6))
    even[..., 3:] = 5
    found = differences(even)
    assert not found[..., [0, 1, 4, 5]].any()
    assert (found[..., 2] < 0).all()
    assert (found[..., 3] > 0).all()


def test_dcan_suppresses_objects_on_contours() -> None:
    network = make("dcan").eval()
    half = network.model.decoder.channels
    with torch.no_grad():
        maps = network.model.encoder(torch.rand(1, 3, 64, 64))
        objects = network.model.decoder(maps)[:, :half]
        network.get_submodule("model.decoder.contour").bias.fill_(100)
        decoded = network.model.decoder(maps)
    assert objects.any()
    assert not decoded[:, :half].any()
    assert decoded[:, half:].any()


def test_drn_keeps_stride_8_and_sees_far() -> None:
    encoder = make("drn").eval().model.encoder
    with torch.no_grad():
        strides = [128 // one.shape[-1] for one in encoder(torch.rand(1, 3, 64, 128))]
    assert strides == [1, 1, 2, 4, 8, 8, 8, 8, 8]
    convolutions = [one for one in encoder.modules() if isinstance(one, torch.nn.Conv2d)]
    dilations = [one.dilation[0] for one in convolutions if one.kernel_size == (3, 3)]
    assert dilations == [1] * 10 + [2] * 4 + [4] * 4 + [2, 1]


@WIDE
def test_width_multiplies_channels(architecture: str) -> None:
    narrow, twice = (parameters(make(architecture, width=width)) for width in (0.125, 0.25))
    assert 3.5 < twice / narrow < 4.1  # weights have channels at both ends


def test_full_width_has_the_papers_size() -> None:
    with torch.device("meta"):
        vgg = Vgg16(1.0)
    convolutions = {name: one.numel() for name, one in vgg.named_parameters() if one.ndim == 4}
    assert convolutions["fc6.0.weight"] == 7 * 7 * 512 * 4096
    assert sum(convolutions.values()) == 14_710_464 + 7 * 7 * 512 * 4096 + 4096 * 4096  # VGG-16's 13 convolutions


# -- committees -------------------------------------------------------------------------------------------------------


@EVERY
def test_members_with_dropout_differ(architecture: str) -> None:
    # of SegNet's 4 channels some masks would leave out the same ones
    network = make(architecture, dropout=0.5, **({"width": 0.25} if architecture == "segnet" else {})).eval()
    committee = mc_dropout(network, 4, seed=0)
    images = torch.rand(2, 3, 50, 70)
    with torch.no_grad():
        opinions, _ = committee.opinions(network, images, features=False)
        said = list(opinions)
    assert {tuple(one.shape) for one in said} == {(2, 3, 50, 70)}
    assert not any(torch.allclose(said[a], said[b]) for a in range(4) for b in range(a))


# -- names and options ------------------------------------------------------------------------------------------------


def test_they_are_listed() -> None:
    assert set(NETWORKS) <= set(architectures())


@pytest.mark.parametrize(
    ("architecture", "encoder", "message"),
    [
        ("segnet", BUNDLED_ENCODER, "set it to segnet-vgg16, and NEXTMASK_ENCODER_WEIGHTS to 'none'"),
        ("drn", "resnet18", "'resnet18' does not go with NEXTMASK_ARCHITECTURE = 'drn'.* drn22"),
        ("unet", "drn22", "'drn22' belongs to NEXTMASK_ARCHITECTURE = 'drn', not to 'unet'"),
        ("fcn8s", "segnet-vgg16", "belongs to NEXTMASK_ARCHITECTURE = 'segnet'"),
        ("fcn8s", "fcn-vgg61", "'fcn-vgg61' is unknown. Did you mean fcn-vgg16"),
    ],
)
def test_pairs_that_do_not_go_together(architecture: str, encoder: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_network(architecture, encoder)
    with pytest.raises(ConfigurationError, match=message):
        build(architecture, encoder, "none", classes=2, dropout=0)


@WIDE
@pytest.mark.parametrize("weights", ["bundled", "imagenet"])
def test_their_own_encoders_have_no_weights(architecture: str, weights: str) -> None:
    encoder = NETWORKS[architecture][0]
    message = f"NEXTMASK_ENCODER_WEIGHTS = '{weights}' .* '{encoder}'.* Set NEXTMASK_ENCODER_WEIGHTS to 'none'"
    with pytest.raises(ConfigurationError, match=message):
        build(architecture, encoder, weights, classes=2, dropout=0)


@pytest.mark.parametrize(
    ("architecture", "encoder", "options", "message"),
    [
        ("fcn8s", "fcn-vgg16", {"widht": 1}, "'widht' is no option .* Did you mean 'width'. Valid: width"),
        ("fcn8s", "resnet18", {"width": 1}, "'width' is no option .* on fcn-vgg16 there is width"),
        ("segnet", "segnet-vgg16", {"width": "wide"}, "with NEXTMASK_NETWORK_OPTIONS = .* not 'wide'. Valid: width"),
        ("drn", "drn22", {"width": 0}, "width must be a number above 0 and at most 4, not 0"),
        ("drn", "drn22", {"width": True}, "not True"),
        ("drn", "drn22", {"width": float("nan")}, "is no JSON object"),
        ("dcan", "resnet18", {"decoder_channels": 1.5}, "a whole number from 2 to 1024, not 1.5"),
        ("segformer", "resnet18", {"decoder_channels": 8}, "Valid: .*decoder_segmentation_channels"),
        ("segformer", "resnet18", {"decoder_segmentation_channels": "8"}, "cannot be built on .* Valid: .*upsampling"),
        ("segformer", "resnet18", {"upsampling": 8}, r"the head's map is of shape \(1, 2, 192, 128\)"),
        ("unet", BUNDLED_ENCODER, {"classes": 5}, "'classes' is no option .* Valid: .*decoder_channels"),
        ("unet", BUNDLED_ENCODER, {"encoder_depth": 3}, "NEXTMASK_NETWORK_OPTIONS = {'encoder_depth': 3}"),
    ],
)
def test_options_that_do_not_fit(architecture: str, encoder: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_network(architecture, encoder, options)
    assert "NEXTMASK_NETWORK_OPTIONS" in str(caught.value)
    with pytest.raises(ConfigurationError, match=message):
        build(architecture, encoder, "none", classes=2, dropout=0, options=options)


def test_options_reach_smp() -> None:
    network = build(
        "segformer", "resnet18", "none", classes=2, dropout=0, options={"decoder_segmentation_channels": 24}
    )
    assert network.eval().decode(torch.rand(1, 3, 32, 32))[0].shape[1] == 24
    options = {"encoder_depth": 4, "decoder_channels": [32, 16, 8, 8]}
    shallow = build(classes=2, dropout=0, options=options).eval()
    assert shallow.padded_size(17, 33) == (32, 48)
    assert shallow(torch.rand(1, 3, 17, 33)).shape == (1, 2, 17, 33)
    check_network("unet", BUNDLED_ENCODER, options)


# -- training, versions ------------------------------------------------------------------------------------------------


def make_job(folder: Path, architecture: str = "fcn8s", **changes: Any) -> Job:
    """Five images of coloured squares, one of them held out."""
    pictures, targets = coloured(5, seed=0)
    items = []
    for index, (picture, target) in enumerate(zip(pictures, targets, strict=True)):
        image, mask = folder / f"{index}.png", folder / f"{index}-mask.png"
        Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy()).save(image)
        Image.fromarray(target.numpy().astype(np.uint8)).save(mask)
        items.append(Item(str(index), image, mask, index == 4, f"digest-{index}"))
    encoder, options = NETWORKS[architecture]
    usual: dict[str, Any] = {"encoder_weights": "none", "iterations": 2, "batch_size": 2, "device": "cpu"}
    usual |= {"architecture": architecture, "encoder": encoder, "network_options": options, "input_size": 32}
    usual |= {"classes": ("red", "green", "blue"), "label_map_digest": "map", "data_digest": "data"}
    return Job(items=tuple(items), folder=folder / "models", **usual | changes)


def test_a_version_with_options_is_trained_and_loaded(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert Job.from_json(job.to_json()) == job
    version = train(job)
    checkpoints = Checkpoints(job.folder)
    assert checkpoints.get(version.number).record.settings["network_options"] == NARROW
    predictor = load_predictor(checkpoints, version, "cpu")
    state = checkpoints.load_state(version)
    for network in (predictor.network, rebuild(checkpoints, version)):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert predictor.predict([np.zeros((40, 25, 3), np.uint8)])[0].mask.shape == (40, 25)
    train(dataclasses.replace(job, committee_of=version.number, members=2))
    assert load_ensemble(checkpoints, version, torch.device("cpu")).members == 2


def test_other_options_are_another_network(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    checkpoints, parent = Checkpoints(job.folder), train(job)
    head = "model.segmentation_head.0.weight"
    state = checkpoints.load_state(parent)
    assert torch.equal(initial_network(job, checkpoints, parent).state_dict()[head], state[head])
    wider = dataclasses.replace(job, network_options={"width": 0.125}, parent=parent.number)
    assert initial_network(wider, checkpoints, parent).state_dict()[head].shape != state[head].shape
    record = train(wider).record  # the parent is measured with its own options
    assert record.settings["network_options"] == {"width": 0.125}
    assert record.measures["parent_miou"] is not None


def test_versions_of_before_there_were_options(tmp_path: Path) -> None:
    job = make_job(tmp_path, "dcan", network_options={})
    network = build("dcan", "resnet18", "none", classes=3, dropout=0.1)
    settings = {"architecture": "dcan", "encoder": "resnet18", "dropout": 0.1, "input_size": 32}
    checkpoints = Checkpoints(job.folder)
    parent = checkpoints.create(VersionRecord(job.classes, "map", "data", settings=settings), network.state_dict())
    wanted = network.state_dict()
    for found in (
        load_network(settings, 3, checkpoints.load_state(parent)),
        rebuild(checkpoints, parent),
        initial_network(job, checkpoints, parent),
        load_predictor(checkpoints, parent, "cpu").network,
    ):
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.state_dict().items())


@EVERY
def test_classes_that_stay_keep_what_they_learned(architecture: str, tmp_path: Path) -> None:
    job = make_job(tmp_path, architecture)
    before = make(architecture)
    settings = {name: getattr(job, name) for name in ("architecture", "encoder", "network_options", "dropout")}
    checkpoints = Checkpoints(job.folder)
    parent = checkpoints.create(VersionRecord(job.classes, "map", "data", settings=settings), before.state_dict())
    changed = dataclasses.replace(job, classes=("blue", "violet", "red", "black"))
    after, images = initial_network(changed, checkpoints, parent), torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        old, new = before.eval()(images), after.eval()(images)
    torch.testing.assert_close(new[:, [0, 2]], old[:, [2, 0]])
    assert new.shape[1] == 4


def test_a_network_before_the_first_version_has_the_options() -> None:
    settings = Settings(
        architecture="drn", encoder="drn22", encoder_weights="none", network_options=NARROW, device="cpu", input_size=32
    )
    assert parameters(fresh_predictor(settings, ("a", "b", "c")).network) == parameters(make("drn"))
