"""Files of SAM 2: both forms are read, weight by weight; what is missing, damaged or something else is told."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sam_weights import PROMPTS, mask_before, picture, recorded, small_folder, weights_of

from ml_backend.errors import ConfigurationError
from ml_backend.learning.refinement import sam_files as files
from ml_backend.learning.refinement.sam_files import sam_files, signature
from ml_backend.learning.refinement.sam_network import load_sam

CPU = torch.device("cpu")
PLACES = "prompt_encoder.shared_embedding.positional_embedding"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("sam"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A folder as it is downloaded, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "sam")


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_sam(str(path), CPU)._model.state_dict() for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def change(folder: Path, **values: object) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | values))


# -- what is read ----------------------------------------------------------------------------------------------------
def test_a_folder_is_read_as_the_port_reads_it(saved: Path) -> None:
    from transformers import Sam2Model

    theirs = Sam2Model.from_pretrained(saved).state_dict()
    ours = load_sam(str(saved), CPU)._model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_folder_of_all_of_sam_2_is_read_for_its_image_part(folder: Path, saved: Path) -> None:
    """Those that Meta publishes say `sam2_video`, and have weights for videos."""
    parts = json.loads((folder / "config.json").read_text())
    parts["prompt_encoder_config"]["model_type"] = "sam2_video_prompt_encoder"
    change(folder, model_type="sam2_video", prompt_encoder_config=parts["prompt_encoder_config"], num_maskmem=7)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "memory_encoder.x": torch.zeros(3)}, folder / "model.safetensors")
    assert same_weights(folder, saved)


def test_the_code_of_places_may_be_there_once(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[PLACES]
    save_file(weights, folder / "model.safetensors")
    state = load_sam(str(folder), CPU)._model.state_dict()
    assert torch.equal(state[PLACES], weights["shared_image_embedding.positional_embedding"])


def test_weights_may_be_in_several_files_and_in_half_precision(folder: Path) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, folder / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    state = load_sam(str(folder), CPU)._model.state_dict()
    assert all(torch.equal(state[name], weights[name].float()) for name in weights)


def test_a_checkpoint_of_metas_says_what_metas_code_makes_of_it(tmp_path: Path) -> None:
    """Weights by chance under Meta's names; the logits were recorded from Meta's own code (tests/record_sam.py)."""
    known = recorded()
    checkpoint = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": {**weights_of(known["shapes"]), "memory_encoder.x": torch.zeros(2)}}, checkpoint)
    network = load_sam(str(checkpoint), CPU)
    image = picture()
    (embedding,) = network.embeddings([image])
    assert (network.side, embedding.nbytes) == (1024, 8_388_608)
    scale = np.array([1024 / image.shape[1], 1024 / image.shape[0]], np.float32)
    for prompt, wanted in zip(PROMPTS, known["logits"], strict=True):
        box = np.array(prompt.get("box", []), np.float32).reshape(-1, 2)
        points = np.concatenate([box, np.array(prompt["points"], np.float32)]) * scale + np.float32(0.5)
        before = mask_before(prompt["mask"]) if "mask" in prompt else None
        logits = network.logits(embedding, points, [*((2, 3) if len(box) else ()), *prompt["labels"]], before)
        difference = np.abs(logits[:: known["step"], :: known["step"]] - np.array(wanted))
        assert difference.max() < 0.02 * np.abs(wanted).max()


# -- what is refused -------------------------------------------------------------------------------------------------
def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def only(name: str) -> Callable[[Path], None]:
    def leave(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_bytes(b"PK\x03\x04")

    return leave


def lacking_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, folder / "model.safetensors")


def with_another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "mask_decoder.iou_token.weight": torch.zeros(1, 7)}, folder / "model.safetensors")


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("config.json"), "is a folder without config.json. Download all files of a model of SAM 2"),
        (without("model.safetensors"), "is a folder without model.safetensors. Download all files"),
        (
            only("sam2_hiera_small.pt"),
            "is a folder without config.json. Set it to the checkpoint in it, sam2_hiera_small.pt.",
        ),
        (lambda folder: change(folder, model_type="sam"), "is a model of type 'sam', and no SAM 2."),
        (lambda folder: change(folder, vision_config=7), "has a config.json that transformers .* cannot read"),
        (lambda folder: change(folder, model_type=None), "is a model of type None"),
        (holding("config.json", b"{"), "has a config.json that cannot be read .* Download it again."),
        (holding("config.json", b"[]"), "has a config.json that is no JSON object."),
        (
            holding("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
            "is a pointer of Git LFS .* git lfs pull",
        ),
        (holding("model.safetensors", b"<html>Not found</html>"), "is damaged .* Download it again."),
        (cut_short, "is damaged .* Download it again."),
        (lacking_a_weight, "lacks weights of SAM 2, mask_decoder.iou_token.weight among them. Download it again."),
        (with_another_shape, "has weights of another shape than its size of SAM 2"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigurationError, match=f"^NEXTMASK_SAM = '[^\n]*' {message}"):
        load_sam(str(folder), CPU)


def saved_by_torch(value: object) -> Callable[[Path], None]:
    return lambda file: torch.save(value, file)


def pickled_code(file: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return pytest.fail, ("code of the file ran",)

    torch.save({"model": Harm()}, file, pickle_module=pickle)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda file: file.write_bytes(b"<html>403 Forbidden</html>"),
            "is no checkpoint of PyTorch. Download it again",
        ),
        (lambda file: file.write_bytes(b"PK\x03\x04 and no more"), "is damaged"),
        (
            saved_by_torch({"model": {"layer.weight": torch.zeros(3)}}),
            "is no checkpoint of SAM 2. Set it to one of Meta's",
        ),
        (saved_by_torch([1, 2]), "is no checkpoint of SAM 2"),
        (
            saved_by_torch(
                {
                    "image_encoder.trunk.patch_embed.proj.weight": torch.zeros(40, 3, 7, 7),
                    "image_encoder.trunk.blocks.0.norm1.weight": torch.zeros(40),
                }
            ),
            r"is SAM 2 of an unknown size \(40 channels, 1 blocks\)",
        ),
        (pickled_code, "is damaged"),
        (lambda file: None, "is not there. Set it to a checkpoint of SAM 2"),
        (lambda file: file.with_suffix(".safetensors").write_bytes(b"x"), "is not there"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    file = tmp_path / "sam2.1_hiera_tiny.pt"
    write(file)
    with pytest.raises(ConfigurationError, match=f"^NEXTMASK_SAM = '[^\n]*' {message}"):
        load_sam(str(file), CPU)


def test_one_file_of_a_folder_is_not_enough(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is a part of a folder. Set it to the folder that holds this file"):
        sam_files(str(folder / "model.safetensors"))


def test_a_missing_package_is_told_before_anything_is_loaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "transformers" else find_spec(name))
    with pytest.raises(ConfigurationError, match=r"needs the package transformers.*'nextmask\[sam\]'"):
        sam_files(str(saved))


def test_a_signature_changes_with_the_files(folder: Path, tmp_path: Path) -> None:
    assert signature(str(tmp_path / "nothing")) == ()
    before = signature(str(folder))
    assert signature(str(folder)) == before
    (folder / "more").write_text("x")
    assert signature(str(folder)) != before
