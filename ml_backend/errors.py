"""All errors that nextmask raises on purpose, as a tree of classes.

A message says what was wrong, with which value, and what to do. Annotators and logs may show messages, so none contains
a secret.

    NextmaskError
    ├── ConfigurationError      a setting, or an option of a command
    │   └── OutOfMemory         a single image needs more memory than there is (also an ImageError)
    ├── LabelConfigError        the project's labelling configuration cannot serve segmentation
    ├── MaskError               an annotation's result, or a mask, cannot be read
    │   ├── BrushError          brush RLE is malformed
    │   └── MaskWithoutArea     a region is a line or a point, and covers no pixel
    ├── PromptError             a click or a box on an image cannot be read
    ├── ImageError              an image cannot be fetched or decoded
    ├── LabelStudioError        Label Studio answered with an error
    │   ├── LabelStudioUnavailable   no answer, 5xx or 429: the same call may succeed later
    │   ├── LabelStudioRefused       401 or 403: the token is wrong or lacks a right
    │   ├── LabelStudioNotFound      404: deleted, or never there
    │   └── LabelStudioMisread       the answer has another form: another release, or another program
    ├── TaskRefused             Label Studio refuses another task for an image
    ├── CheckpointError         a model version is missing or damaged
    ├── TrainingError           training could not start or did not finish
    ├── TrainingWaits           another project trains first
    ├── ClusterError            the Ray cluster cannot be used, or was lost: work goes on without it
    ├── StoreError              the state database cannot be used
    │   └── StoreUnavailable    it is away or overloaded; the same call may succeed later
    ├── FilesUnavailable        the bucket in MODEL_DIR cannot be used
    ├── BackupError             a backup cannot be made, or not be restored
    ├── DiskFull                MODEL_DIR has no room; work continues by itself when there is some
    └── LeaseLost               another worker took the project over
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence

_SHOWN_CHARACTERS = 100
_SHOWN_PROBLEMS = 5


class NextmaskError(Exception):
    """Base class of all errors that nextmask raises on purpose.

    Attributes:
        cause, remedy: the two parts of the message, where it was made of two; else all of it, and "".
    """

    def __init__(self, cause: str = "", remedy: str = "") -> None:
        super().__init__(f"{cause} {remedy}".strip())
        self.cause, self.remedy = cause, remedy


class ConfigurationError(NextmaskError):
    """A setting, or an option of a command, has an unknown name or an invalid value."""


class LabelConfigError(NextmaskError):
    """The labelling configuration is malformed, or has no control for segmentation masks."""


class MaskError(NextmaskError, ValueError):
    """An annotation's result or a mask cannot be used; the task is skipped and counted."""


class BrushError(MaskError):
    """Brush RLE is truncated, too long, or of another image size."""


class MaskWithoutArea(MaskError):
    """A region is a line or a point: whatever was meant, it covers no pixel."""


class PromptError(NextmaskError, ValueError):
    """A click or a box on an image cannot be read."""


class ImageError(NextmaskError):
    """An image cannot be fetched, is too large, or cannot be decoded."""


class OutOfMemory(ConfigurationError, ImageError):
    """A single image does not fit into memory.

    An ImageError, since other images may fit; a ConfigurationError, since a smaller input size helps.
    """


class LabelStudioError(NextmaskError):
    """Label Studio answered with an error status.

    Attributes:
        status: HTTP status code, or None when there was no answer.
    """

    def __init__(self, cause: str, remedy: str = "", *, status: int | None = None) -> None:
        super().__init__(cause, remedy)
        self.status = status


class LabelStudioUnavailable(LabelStudioError):
    """No answer, half an answer, 5xx or 429: the same call may succeed later."""


class LabelStudioRefused(LabelStudioError):
    """401 or 403: the token is missing, expired, of a disabled kind, or lacks a right."""


class LabelStudioNotFound(LabelStudioError):
    """404: the project, task or other object was deleted, or belongs to another organisation."""


class LabelStudioMisread(LabelStudioError, KeyError):
    """The answer does not have the form that it has in the releases that nextmask knows."""

    __str__ = Exception.__str__  # that of KeyError shows its message in quotes


class TaskRefused(NextmaskError):
    """Label Studio refuses a follow-up task for an image; other tasks of the queue are not affected."""


class CheckpointError(NextmaskError):
    """A model version is missing, incomplete or damaged."""


class TrainingError(NextmaskError):
    """Training could not start, or ended without a model.

    Args:
        skipped: why labels could not be used, by task id.
    """

    def __init__(self, message: str, skipped: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.skipped = skipped or {}


class TrainingWaits(NextmaskError):
    """Another project trains, or asked earlier. This is no failure: the project trains when its turn comes."""


class ClusterError(NextmaskError):
    """The Ray cluster cannot be used, or was lost in the middle. Nothing is lost: the work is done here instead."""


class StoreError(NextmaskError):
    """The state database cannot be opened, or has another schema."""


class StoreUnavailable(StoreError):
    """The state database is away, starts, or has too much to do. Nothing is lost; the same call may succeed later."""


class FilesUnavailable(NextmaskError):
    """The bucket in MODEL_DIR is away, refuses, or is not there. Nothing is lost; the same call may succeed later."""


class BackupError(NextmaskError):
    """A backup cannot be written, read or restored."""


class DiskFull(NextmaskError):
    """MODEL_DIR has no room. Nothing is lost; the same call succeeds when there is room again.

    Attributes:
        needed: bytes that should be free.
    """

    def __init__(self, message: str, *, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed


class LeaseLost(NextmaskError):
    """Another worker has taken the project over; the caller must stop writing."""


def shown(value: object) -> str:
    """Return a value from outside as text for messages, at most 100 characters, whatever its size and depth.

    >>> shown("cell"), shown([1, [2.5, {"a": None}]]), shown(list(range(1000)))
    ("'cell'", "[1, [2.5, {'a': None}]]", '[0, 1, 2, 3, 4, 5, ...]')
    """
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = f"a large {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def first_few(problems: Sequence[str]) -> tuple[str, ...]:
    """Return at most five problems, and how many more there are, as messages list them.

    >>> first_few(list("abcdefg"))
    ('a', 'b', 'c', 'd', 'e', 'and 2 more')
    """
    rest = len(problems) - _SHOWN_PROBLEMS
    return (*problems[:_SHOWN_PROBLEMS], f"and {rest} more") if rest > 0 else tuple(problems)


def _repr() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring, short.maxother, short.maxlong = _SHOWN_CHARACTERS, 40, 40
    return short


_REPR = _repr()
