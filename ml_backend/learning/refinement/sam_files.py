"""Which files of SAM 2 a path names, told without PyTorch: settings are checked where a server starts.

Two forms are taken, as they are downloaded:

    Meta's checkpoint        one file, such as sam2.1_hiera_tiny.pt
    Hugging Face's folder    with config.json and model.safetensors, such as that of facebook/sam2.1-hiera-tiny
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ml_backend.errors import ConfigurationError, shown

KINDS: Final = ("sam2", "sam2_video")
"""`model_type` of a config.json: of the image predictor, and of all of SAM 2, which holds it."""
INSTALL: Final = "Install it: pip install 'nextmask[sam]'"
_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_ZIP: Final = b"PK\x03\x04"
_POINTER: Final = b"version https://git-lfs"
_SEE: Final = "docs/smart-tools.md says where to get one"


@dataclass(frozen=True)
class SamFiles:
    """Files of SAM 2.

    Attributes:
        weights: a checkpoint of Meta's, or the .safetensors files of a folder.
        config: what that folder's config.json says; None: a checkpoint of Meta's.
    """

    weights: tuple[Path, ...]
    config: dict[str, Any] | None = None


def sam_files(path: str) -> SamFiles:
    """Return the files that NEXTMASK_SAM names, as far as can be said without reading the weights.

    Raises:
        ConfigurationError: there is none, it is something else, or the package that reads it is missing.
    """
    where = Path(path)
    if not where.exists():
        raise wrong(path, "is not there", f"Set it to a checkpoint of SAM 2 ({_SEE}), or remove it")
    files = _in_folder(path, where) if where.is_dir() else _in_file(path, where)
    for file in files.weights:
        _check_start(path, file)
    if find_spec("transformers") is None:
        raise wrong(path, "needs the package transformers", INSTALL)
    return files


def signature(path: str) -> tuple[tuple[str, int, int], ...]:
    """Return what changes with the files that a path names: names, sizes and times; empty where nothing is."""
    where = Path(path)
    try:
        files = sorted(where.iterdir()) if where.is_dir() else [where]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError:
        return ()


def wrong(path: str, cause: str, remedy: str) -> ConfigurationError:
    """Return the error of a path that cannot be used."""
    return ConfigurationError(f"NEXTMASK_SAM = {shown(path)} {cause}.", f"{remedy}.")


def installed() -> str:
    """Return the version of transformers that is installed; "?" where it is not known."""
    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return "?"


def _in_file(path: str, file: Path) -> SamFiles:
    if file.suffix == ".safetensors":
        raise wrong(path, "is a part of a folder", f"Set it to the folder that holds this file and {_CONFIG}")
    return SamFiles((file,))


def _in_folder(path: str, folder: Path) -> SamFiles:
    config = folder / _CONFIG
    if not config.is_file():
        checkpoints = sorted(file.name for file in folder.glob("*.pt"))
        remedy = f"Set it to the checkpoint in it, {checkpoints[0]}" if len(checkpoints) == 1 else _download()
        raise wrong(path, f"is a folder without {_CONFIG}", remedy)
    told = _read(path, config)
    if told.get("model_type") not in KINDS:
        raise wrong(path, f"is a model of type {shown(told.get('model_type'))}, and no SAM 2", _download())
    weights = [folder / _WEIGHTS]
    if not weights[0].exists() and (folder / _INDEX).is_file():
        parts = _read(path, folder / _INDEX).get("weight_map")
        weights = [folder / name for name in sorted(set(map(str, parts.values())))] if isinstance(parts, dict) else []
    missing = [file.name for file in weights if not file.is_file()]
    if missing or not weights:
        raise wrong(path, f"is a folder without {missing[0] if missing else _WEIGHTS}", _download())
    return SamFiles(tuple(weights), told)


def _download() -> str:
    return f"Download all files of a model of SAM 2 ({_SEE})"


def _read(path: str, file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise wrong(path, f"has a {file.name} that cannot be read ({error})", "Download it again") from None
    if not isinstance(told, dict):
        raise wrong(path, f"has a {file.name} that is no JSON object", "Download it again")
    return told


def _check_start(path: str, file: Path) -> None:
    """Refuse what a download left that is no checkpoint: pages of errors, and pointers of Git LFS."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_POINTER))
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror})", "Let the user that nextmask runs as read it") from None
    if start == _POINTER:
        raise wrong(path, f"is a pointer of Git LFS ({file.name})", "Get the file itself: git lfs pull")
    if file.suffix != ".safetensors" and not start.startswith(_ZIP):
        raise wrong(path, "is no checkpoint of PyTorch", f"Download it again ({_SEE})")
