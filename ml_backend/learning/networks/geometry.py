"""Sizes: images down to what the network sees, padding to what it can take, logits back up to the original image.

One grid convention everywhere: pixels are areas (`align_corners=False`), padding is at the bottom and at the right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

STRIP_ELEMENTS = 1 << 20
"""Upsampled logits held at a time while labels are computed: 4 MiB stay in the processor's cache."""


def fit_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the size, of the same shape, whose longest side is `longest`; smaller images keep theirs.

    >>> fit_size(720, 960, 256), fit_size(40, 30, 256), fit_size(1, 5000, 256)
    ((192, 256), (40, 30), (1, 256))
    """
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(image: npt.NDArray[np.uint8], longest: int) -> Tensor:
    """Shrink an image to what the network sees.

    Args:
        image: (H,W,3) uint8 RGB.
        longest: longest side of the result, in pixels.

    Returns:
        (3,h,w) uint8, bilinear with antialiasing; the image itself when it is small enough.
    """
    pixels = torch.from_numpy(np.require(image, np.uint8, ["C", "W"])).permute(2, 0, 1)  # (3,H,W)
    size = fit_size(image.shape[0], image.shape[1], longest)
    if size == image.shape[:2]:
        return pixels
    return functional.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]


def pad_to(images: Tensor, height: int, width: int) -> Tensor:
    """Pad images (…,3,h,w) at the bottom and at the right to `height` and `width`, with pixels of their own.

    Mirrored where the image is large enough for it, else with its last row or column: a constant border would be an
    edge to the network.
    """
    images = _pad_last_axis(images, width)
    return _pad_last_axis(images.transpose(-1, -2), height).transpose(-1, -2)


def _pad_last_axis(images: Tensor, length: int) -> Tensor:
    present = images.shape[-1]
    if present == length:
        return images
    position = torch.arange(length, device=images.device)
    mirrored = 2 * (present - 1) - position if length < 2 * present else position.clamp(max=present - 1)
    return images.index_select(-1, torch.where(position < present, position, mirrored))


def labels_at(logits: Tensor, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Upsample logits bilinearly and return the most likely class of every pixel.

    Rows are upsampled in strips, so that 80 million pixels of 11 classes need megabytes instead of gigabytes. Every
    row is computed by itself: the strips do not change the result.

    Args:
        logits: (C,h,w) floating, C up to 255, on any device.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height,width) uint8 class indices; of equal classes the first.
    """
    labels = np.empty((height, width), np.uint8)
    rows = max(1, STRIP_ELEMENTS // (len(logits) * width))
    for first in range(0, height, rows):
        strip = _upsampled_rows(logits.float(), height, width, range(first, min(height, first + rows)))
        labels[first : first + rows] = strip.max(dim=0).indices.to(torch.uint8).cpu().numpy()
    return labels


def _upsampled_rows(logits: Tensor, height: int, width: int, rows: range) -> Tensor:
    """Return rows of `interpolate(logits, (height, width), mode="bilinear")`: (C,len(rows),width)."""
    scale = logits.shape[1] / height
    wanted = torch.arange(rows.start, rows.stop, dtype=torch.float32, device=logits.device)
    source = ((wanted + 0.5) * scale - 0.5).clamp(0, logits.shape[1] - 1)
    above = source.long()
    below = (above + 1).clamp(max=logits.shape[1] - 1)
    top, bottom = int(above[0]), int(below[-1]) + 1
    wide = functional.interpolate(logits[None, :, top:bottom], size=(bottom - top, width), mode="bilinear")[0]
    return torch.lerp(wide[:, above - top], wide[:, below - top], (source - above)[:, None])
