"""SAM 2 with weights by chance: a small one as the port saves it, and Meta's tiny one as Meta's code names it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECORDED = Path(__file__).parent / "sam" / "recorded.json"
SIDE = 64


def small_folder(folder: Path, *, seed: int = 0) -> Path:
    """Save a SAM 2 of 64 pixels a side, with weights by chance, into a folder; return the folder."""
    from transformers import Sam2Config, Sam2Model

    stages = 4
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8 << stage for stage in range(stages)],
        "num_attention_heads_per_stage": [1 << stage for stage in range(stages)],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompts = {"hidden_size": 32, "image_size": SIDE}
    masks = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    torch.manual_seed(seed)
    model = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks))
    model.save_pretrained(folder)
    return folder


def recorded() -> dict[str, Any]:
    """Return what tests/record_sam.py recorded of Meta's code."""
    return dict(json.loads(RECORDED.read_text()))


def weights_of(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Return weights by chance, the same each time for a name and a shape."""
    return {name: torch.from_numpy(_weight(name, shape)) for name, shape in shapes.items()}


def _weight(name: str, shape: list[int]) -> NDArray[np.float32]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape, np.float32)
    if name.endswith("gaussian_matrix"):
        return values
    return values * np.float32(0.04) + np.float32("norm" in name and name.endswith("weight"))


def picture() -> NDArray[np.uint8]:
    """Return an image (30,40,3) of noise."""
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


PROMPTS: tuple[dict[str, Any], ...] = (
    {"points": [[10.0, 5.0]], "labels": [1]},
    {"points": [[10.0, 5.0], [3.0, 20.0]], "labels": [1, 0]},
    {"points": [[10.0, 5.0]], "labels": [0], "box": [2.0, 3.0, 20.0, 25.0], "mask": 1},
)
"""Columns and rows of clicks on `picture`, their labels, a box, and the seed of a mask before."""


def mask_before(seed: int) -> NDArray[np.float32]:
    """Return logits (256,256) of a mask."""
    return np.random.default_rng(seed).normal(0, 5, (256, 256)).astype(np.float32)
