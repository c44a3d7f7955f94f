"""SAM 2's image predictor (Ravi et al. 2024), by Hugging Face's port of it: images in, low-resolution logits out.

The port builds the network. Weights are read, and images and prompts scaled, here: its own loader puts random numbers
in the place of what is missing, and its own scaling needs a file beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ml_backend.learning.networks import autocast
from ml_backend.learning.refinement.sam_files import INSTALL, SamFiles, installed, sam_files, wrong

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Image = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedding:
    """What SAM 2 makes of an image, in half precision on the CPU.

    Attributes:
        maps: (1,32,256,256), (1,64,128,128) and (1,256,64,64) in all models of Meta's: 8 MB.
    """

    maps: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(level.nbytes for level in self.maps)


class SamNetwork:
    """SAM 2's image predictor on its device; any number of threads may use it.

    Args:
        model: Hugging Face's `Sam2Model`.

    Attributes:
        side: of the square that it sees every image as, in pixels: 1024 in all models of Meta's. Its masks have a
            quarter.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self.device = model.eval().to(device), device
        self.side = int(model.config.prompt_encoder_config.image_size)

    def embeddings(self, images: Sequence[Image]) -> list[Embedding]:
        """Return the embeddings of images (H,W,3) uint8 RGB, computed together."""
        pixels = torch.cat([_as_seen(image, self.side) for image in images]).to(self.device)
        with torch.no_grad(), autocast(self.device):
            maps = [level.half().cpu() for level in self._model.get_image_embeddings(pixels)]
        return [Embedding(tuple(level[at : at + 1].clone() for level in maps)) for at in range(len(images))]

    def logits(self, embedding: Embedding, points: Map, labels: Sequence[int], before: Map | None = None) -> Map:
        """Return the logits (s,s) of the mask that prompts ask for, s a quarter of `side`.

        A single click may mean a part or a whole: SAM 2 answers it with three masks, of which the one is taken that it
        gives the largest IoU.

        Args:
            points: (N,2) float32, x and y in the square that SAM 2 sees, 0 to `side`.
            labels: of the points: 1 inside, 0 outside, 2 and 3 the corners of a box.
            before: (s,s) logits of the mask that is to be mended.
        """
        is_ambiguous = before is None and list(labels) == [1]
        with torch.no_grad():
            found = self._model(
                image_embeddings=[level.to(self.device).float() for level in embedding.maps],
                # the port adds half a pixel
                input_points=torch.from_numpy(points - np.float32(0.5))[None, None].to(self.device),
                input_labels=torch.tensor(labels, dtype=torch.int32, device=self.device)[None, None],
                input_masks=None if before is None else torch.from_numpy(before)[None, None].to(self.device),
                multimask_output=is_ambiguous,
            )
        best = int(found.iou_scores[0, 0].argmax())
        logits: Map = found.pred_masks[0, 0, best].float().cpu().numpy()
        return logits


def load_sam(path: str, device: torch.device) -> SamNetwork:
    """Load SAM 2.

    Args:
        path: of a checkpoint or a folder; see `sam_files`.

    Raises:
        ConfigurationError: it cannot be used; what to do.
    """
    files = sam_files(path)
    try:
        from transformers import Sam2Config, Sam2Model
    except (ImportError, RuntimeError) as error:  # transformers imports lazily, and says RuntimeError
        cause = f"cannot be loaded with transformers {installed()} ({_first_line(error)})"
        raise wrong(path, cause, INSTALL) from None
    weights = _weights(path, files)
    if files.config is None:
        config, weights = Sam2Config(**_config_of(path, weights)), _renamed(weights)
    else:
        try:
            config = Sam2Config(**_image_part(files.config))
        except Exception as error:  # noqa: BLE001 (whatever a config.json holds)
            cause = f"has a config.json that transformers {installed()} cannot read ({_first_line(error)})"
            raise wrong(path, cause, "Download it again") from None
        weights = _with_places(weights)
    with torch.device("meta"):  # without numbers, which would be thrown away
        model = Sam2Model(config)
    own = {name: weights[name].float() for name in model.state_dict() if name in weights}
    lacking = [name for name in model.state_dict() if name not in own]
    if lacking:
        raise wrong(path, f"lacks weights of SAM 2, {lacking[0]} among them", "Download it again")
    try:
        model.load_state_dict(own, assign=True)
    except RuntimeError as error:
        cause = f"has weights of another shape than its size of SAM 2 ({_first_line(error)})"
        raise wrong(path, cause, "Download it again") from None
    return SamNetwork(model, device)


def _as_seen(image: Image, side: int) -> Tensor:
    """Return an image as SAM 2 sees it: (1,3,side,side), stretched to a square, normalised."""
    pixels = torch.from_numpy(np.require(image, np.uint8, ["C", "W"])).permute(2, 0, 1)[None]
    square = functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
    return (square.float() / 255 - mean) / deviation


# -- weights -----------------------------------------------------------------------------------------------------------
class _Size(NamedTuple):
    """What a checkpoint of Meta's does not say: its configurations are files of another package."""

    heads: int
    stages: tuple[int, ...]
    wide: tuple[int, ...]
    """Blocks that look at the whole image."""
    windows: tuple[int, ...] = (8, 4, 14, 7)


_SIZES: Final[Mapping[tuple[int, int], _Size]] = {
    (96, 12): _Size(1, (1, 2, 7, 2), (5, 7, 9)),
    (96, 16): _Size(1, (1, 2, 11, 2), (7, 10, 13)),
    (112, 24): _Size(2, (2, 3, 16, 3), (12, 16, 20)),
    (144, 48): _Size(2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8)),
}
"""Width of the first stage and number of blocks -> tiny, small, base plus and large; the same in SAM 2.0 and 2.1."""
_TRUNK = "image_encoder.trunk."
_PLACES, _PROMPTED_PLACES = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
_MLPS = r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head))\.layers\."
_NAMES: Final = tuple(
    (re.compile(meta), port)
    for meta, port in (
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", _PROMPTED_PLACES),
        (r"^sam_prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
        (r"^sam_prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
        (r"^sam_prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
        (r"^sam_prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
        (r"^sam_prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
        (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (r"\.norm(\d)\.", r".layer_norm\1."),
        (r"\.out_proj\.", ".o_proj."),
        (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
        (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
        (_MLPS + "0", r"\1.proj_in"),
        (_MLPS + "1", r"\1.layers.0"),
        (_MLPS + "2", r"\1.proj_out"),
        (r"^no_mem_embed$", "no_memory_embedding"),
    )
)
"""Names in Meta's code, and what takes their place in the port; applied one after the other."""


def _weights(path: str, files: SamFiles) -> dict[str, Tensor]:
    """Read tensors by their names, and nothing that could run code."""
    try:
        if files.config is not None:
            return {name: tensor for file in files.weights for name, tensor in load_file(file).items()}
        told = _unpickled(files.weights[0])
    except (OSError, SafetensorError) as error:
        raise wrong(path, f"is damaged ({_first_line(error)})", "Download it again") from None
    state = told.get("model", told) if isinstance(told, dict) else {}
    return {str(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _unpickled(file: Path) -> object:
    """Read a file of torch.save.

    Raises:
        OSError: it is damaged, or holds what is no tensor.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever unpickling raises
        raise OSError(_first_line(error)) from error


def _config_of(path: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the port's configuration for weights of Meta's names."""
    patches = weights.get(f"{_TRUNK}patch_embed.proj.weight")
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{_TRUNK}blocks.")}
    if patches is None or not blocks:
        raise wrong(path, "is no checkpoint of SAM 2", "Set it to one of Meta's files, such as sam2.1_hiera_tiny.pt")
    width = int(patches.shape[0])
    size = _SIZES.get((width, len(blocks)))
    if size is None:
        cause = f"is SAM 2 of an unknown size ({width} channels, {len(blocks)} blocks)"
        raise wrong(path, cause, "Use a folder with a config.json, or one of Meta's four sizes")
    widths = [width << stage for stage in range(len(size.stages))]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": size.heads,
        "blocks_per_stage": list(size.stages),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [size.heads << stage for stage in range(len(size.stages))],
        "window_size_per_stage": list(size.windows),
        "global_attention_blocks": list(size.wide),
        "window_positional_embedding_background_size": list(weights[f"{_TRUNK}pos_embed"].shape[2:]),
    }
    vision = {"model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": widths[::-1]}
    return {"vision_config": vision}


def _image_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json says of the image predictor; that of all of SAM 2 says more."""
    parts = {name: config[name] for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    for name in ("prompt_encoder_config", "mask_decoder_config"):
        parts[name] = {key: value for key, value in parts[name].items() if key != "model_type"}
    return parts


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return Meta's weights by the names of the port."""
    renamed = dict[str, Tensor]()
    for name, tensor in weights.items():
        for meta, port in _NAMES:
            name = meta.sub(port, name)
        renamed[name] = tensor
    points = [renamed.pop(f"prompt_encoder.point_embeddings.{number}.weight", None) for number in range(4)]
    present = [tensor for tensor in points if tensor is not None]
    if len(present) == len(points):
        renamed["prompt_encoder.point_embed.weight"] = torch.cat(present)
    return _with_places(renamed)


def _with_places(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give images and prompts the same code of places, where a file holds it once."""
    given = [weights[name] for name in (_PLACES, _PROMPTED_PLACES) if name in weights]
    return {**dict.fromkeys((_PLACES, _PROMPTED_PLACES), given[0]), **weights} if given else {**weights}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
