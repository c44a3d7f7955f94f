"""A version in its folder: its record and its weights, and damage of either."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ml_backend.errors import shown
from ml_backend.learning.checkpoints.files import READING_ERRORS
from ml_backend.system.files import Files

WEIGHTS: Final = "weights.safetensors"
RECORD: Final = "version.json"
_FORMAT = 1


@dataclass(frozen=True)
class VersionRecord:
    """The record of a version, kept as JSON beside its weights.

    Attributes:
        classes: index -> class name, as in `LabelMap.classes`.
        label_map_digest: that of the training job.
        data_digest: that of the training job: the same digest need not be trained again.
        parent: number of the version that served when this was trained.
        labels: task id -> digest of the label that was used, held-out labels included.
        skipped: task id -> why its label could not be used.
        held_out: those ids of `labels` that measured, and did not train.
        pseudo_labels: ids of tasks that trained with a predicted mask; none of them is among `labels`.
        measures: held-out measures in [0, 1], None where nothing was measured: miou, mean_dice, pixel_accuracy,
            parent_miou (the parent on those of the labels that it was not trained on), iou and dice by class name;
            their 95 % intervals under the same names in "intervals", as [low, high]; counts: images and groups that
            were measured, pixels, trained, held_out, skipped; effort: iterations, seconds,
            images_at_once (fewer than a batch where memory was short); best_iteration in versions of earlier releases.
        counts: id of each held-out label, those of an image's parts joined by "+" -> its pixels by class, as text of
            `measuring.counts`. parent_counts: likewise, of the parent. Empty in versions of earlier releases.
        groups: id of such a label -> digest of what its image is of; left out where that is the label alone.
        settings: what is needed to build the network again, and how it was trained.
        class_labels: class name -> in how many of the labels that trained it occurs.
        course: how the training went: "loss", pairs of a step and the mean loss up to it since the pair before; "miou",
            the held-out mIoU after a step: [step, mIoU, lower, upper end of its interval]. Empty in versions of earlier
            releases.
        trigger: why it was trained, in words; empty where that is not known.
        trial: it was trained on its parent's labels, to see whether the encoder should learn. Where it is accepted, the
            next ones are trained like it.
        accepted: whether the gate lets it be published; `reason` says why, or why not.
        number, created_at: given by `Checkpoints.create`.
    """

    classes: tuple[str, ...]
    label_map_digest: str
    data_digest: str
    parent: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    measures: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    accepted: bool = True
    reason: str = ""
    pseudo_labels: tuple[str, ...] = ()
    class_labels: dict[str, int] = field(default_factory=dict)
    course: dict[str, list[list[Any]]] = field(default_factory=dict)
    trigger: str = ""
    trial: bool = False
    counts: dict[str, str] = field(default_factory=dict)
    parent_counts: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    number: int = 0
    created_at: str = ""

    @property
    def trained_on(self) -> set[str]:
        """Ids of the tasks whose labels trained it."""
        return self.labels.keys() - set(self.held_out)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VersionRecord:
        """Rebuild a record from its JSON object (TypeError when it is of another shape)."""
        names = [item.name for item in dataclasses.fields(cls) if item.name in values]
        known: dict[str, Any] = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in names
        }
        return cls(**known)


@dataclass(frozen=True)
class Version:
    """A complete version.

    Attributes:
        number: counts from 1.
        files: those in its folder.
        size: bytes of its weights when they were written.
        sha256: digest of its weights when they were written, 64 hexadecimal digits.
    """

    number: int
    files: Files
    record: VersionRecord
    size: int
    sha256: str

    @property
    def weights(self) -> Path:
        """A file on this machine with the network's state."""
        return self.files.local(WEIGHTS)


def version_files(record: VersionRecord, weights: bytes) -> list[tuple[str, bytes]]:
    """Return name and content of a version's files; the record comes last."""
    about = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    content = {"format": _FORMAT, "record": dataclasses.asdict(record), "weights": about}
    return [(WEIGHTS, weights), (RECORD, json.dumps(content, indent=1, allow_nan=False).encode())]


def read_record(files: Files, key: str) -> VersionRecord:
    """Read the record of a removed version; the file is read once as long as it is the same.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file is missing or damaged.
    """
    return _read_record(files, key, files.state(key).mark)


def examine(files: Files, number: int) -> Version | str:
    """Return the version in a folder, or what is wrong with it (the weights' content is not read)."""
    try:
        version = _read_version(files, files.state(RECORD).mark)
        size = files.state(WEIGHTS).size
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing" if files.names() else "there is no such version"
    except READING_ERRORS as error:
        return f"{RECORD} cannot be read ({type(error).__name__}: {str(error)[:200]})"
    if version.number != number:
        return f"its record is that of version {shown(version.number)}"
    if size != version.size:
        return f"{WEIGHTS} has {size} bytes instead of {shown(version.size)}"
    return version


@functools.lru_cache(maxsize=1024)
def _read_version(files: Files, _mark: Hashable) -> Version:
    """Parse a record once as long as its file is the same: it lists every label, so it may be large."""
    content = json.loads(files.read(RECORD))
    if content["format"] != _FORMAT:
        raise ValueError(
            f"format {shown(content['format'])} instead of {_FORMAT}: written by another release of nextmask"
        )
    record = VersionRecord.from_dict(content["record"])
    return Version(record.number, files, record, int(content["weights"]["size"]), str(content["weights"]["sha256"]))


@functools.lru_cache(maxsize=1024)
def _read_record(files: Files, key: str, _mark: Hashable) -> VersionRecord:
    return VersionRecord.from_dict(json.loads(files.read(key)))


def content_damage(version: Version) -> str:
    """Return what is wrong with the weights, or an empty string; the file is hashed once as long as it is the same."""
    try:
        digest = version.files.digest(WEIGHTS)
    except OSError as error:
        return f"{WEIGHTS} cannot be read ({error})"
    return "" if digest in {None, version.sha256} else f"the content of {WEIGHTS} has changed"
