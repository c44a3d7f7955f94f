"""Predicts the mask of an image with an exported version of nextmask: python predict.py IMAGE MASK.png

Lies beside version.json and weights.safetensors in the archive of a version, and needs nothing of nextmask: torch,
safetensors, segmentation-models-pytorch, Pillow, NumPy.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).parent
OWN_ARCHITECTURES = ("dcan", "drn", "fcn8s", "segnet")


def main(image: str, mask: str) -> None:
    """Read an image and write its mask, a PNG of class indices."""
    record = json.loads((FOLDER / "version.json").read_text())["record"]
    state = load_file(FOLDER / "weights.safetensors")
    network = build(record["settings"], len(record["classes"]))
    network.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    )
    pixels = np.array(ImageOps.exif_transpose(Image.open(image)).convert("RGB"))
    Image.fromarray(predict(network.eval(), pixels, state["mean"], state["std"], record["settings"])).save(mask)
    print(f"{mask}: {', '.join(f'{index} = {name}' for index, name in enumerate(record['classes']))}")


def build(settings: dict[str, Any], classes: int) -> nn.Module:
    """Return the network without weights."""
    architecture, encoder = settings["architecture"], settings["encoder"]
    options = settings.get("network_options") or {}
    if architecture in OWN_ARCHITECTURES:
        sys.exit(f"The architecture {architecture} is nextmask's own: README.txt says how to load it.")
    import segmentation_models_pytorch as smp

    chosen = {"encoder_name": encoder, "encoder_weights": None, "classes": classes, **options}
    if architecture == "dpt" or wants_one_size(encoder):
        with suppress(TypeError):  # no transformer that takes the option
            made: nn.Module = smp.create_model(architecture, **chosen, dynamic_img_size=True)
            return made
    network: nn.Module = smp.create_model(architecture, **chosen)
    return network


def wants_one_size(encoder: str) -> bool:
    """Whether a timm model takes images of a single size only, unless an option changes that."""
    import timm

    config = timm.get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
    return encoder.startswith("tu-") and config is not None and bool(config.fixed_input_size)


@torch.no_grad()
def predict(
    network: nn.Module, pixels: npt.NDArray[np.uint8], mean: Tensor, std: Tensor, settings: dict[str, Any]
) -> npt.NDArray[np.uint8]:
    """Return the likeliest class of every pixel, (H,W) uint8, of an image (H,W,3) uint8."""
    height, width = pixels.shape[:2]
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (1,3,H,W)
    scale = min(1.0, settings["input_size"] / max(height, width))
    small = max(1, round(height * scale)), max(1, round(width * scale))
    if small != (height, width):
        image = functional.interpolate(image, size=small, mode="bilinear", antialias=True)
    encoder = network.get_submodule("encoder")
    stride = int(getattr(encoder, "output_stride", 32)) * (2 if settings["architecture"] == "dpt" else 1)
    least = 128 if settings["architecture"] == "pan" else 1
    image = padded(padded(image / 255, 3, stride, least), 2, stride, least)
    parts = encoder((image - mean) / std)
    decoded = network.get_submodule("decoder")(*(parts if isinstance(parts, tuple) else (parts,)))
    logits = network.get_submodule("segmentation_head")(decoded)[..., : small[0], : small[1]]
    large = functional.interpolate(logits, size=(height, width), mode="bilinear")
    labels: npt.NDArray[np.uint8] = large[0].argmax(dim=0).to(torch.uint8).numpy()
    return labels


def padded(image: Tensor, axis: int, stride: int, least: int) -> Tensor:
    """Pad an axis at its end to a multiple of the stride: mirrored, or with the last pixel where there are too few."""
    present = image.shape[axis]
    length = -(-max(present, least) // stride) * stride
    position = torch.arange(length)
    mirrored = 2 * (present - 1) - position if length < 2 * present else position.clamp(max=present - 1)
    return image.index_select(axis, torch.where(position < present, position, mirrored))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
