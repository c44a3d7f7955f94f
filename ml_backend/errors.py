"""Every error that nextmask raises on purpose, in one tree.

A message says what was wrong, with which value, and what to do about it. Messages may be shown to
annotators and written to logs, so no secret ever goes into one.

    NextmaskError
    ├── ConfigurationError      a setting, or an option of a command
    │   └── OutOfMemory         one image alone needs more memory than there is (an ImageError, too)
    ├── LabelConfigError        the project's labelling configuration cannot serve segmentation
    ├── MaskError               an annotation's result, or a mask, cannot be read
    │   └── BrushError          brush RLE is malformed
    ├── ImageError              an image cannot be had or decoded
    ├── LabelStudioError        Label Studio answered with an error
    │   ├── LabelStudioUnavailable   it did not answer, or answered 5xx: try again later
    │   ├── LabelStudioRefused       401 or 403: the token is wrong or lacks a right
    │   ├── LabelStudioNotFound      404: deleted, or never there
    │   └── LabelStudioMisread       an answer of another shape: another release, or something else answers
    ├── TaskRefused             Label Studio takes no further task of an image
    ├── CheckpointError         a model version is missing or damaged
    ├── TrainingError           training could not start or did not finish
    ├── TrainingWaits           another project's training comes first
    ├── StoreError              the state database cannot be used
    ├── BackupError             a backup cannot be made, or not be restored
    ├── DiskFull                MODEL_DIR has no room: goes on by itself when there is some again
    └── LeaseLost               another worker took the project over
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

_SHOWN_CHARACTERS = 100
_SHOWN_PROBLEMS = 5


class NextmaskError(Exception):
    """Base of all errors raised on purpose."""


class ConfigurationError(NextmaskError):
    """A setting has an unknown name or an invalid value."""


class LabelConfigError(NextmaskError):
    """The labelling configuration offers no control that can hold a segmentation mask."""


class MaskError(NextmaskError, ValueError):
    """An annotation's result or a mask cannot be used; the task is skipped and counted."""


class BrushError(MaskError):
    """Brush RLE is truncated, too long, or of another image size."""


class ImageError(NextmaskError):
    """An image cannot be fetched, is too large, or cannot be decoded."""


class OutOfMemory(ConfigurationError, ImageError):
    """One image alone does not fit into memory: for it an ImageError, for a run in which all are alike a setting."""


class LabelStudioError(NextmaskError):
    """Label Studio answered with an error status.

    Attributes:
        status: HTTP status code, or None when there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class LabelStudioUnavailable(LabelStudioError):
    """No answer, half of one, 5xx or 429: the same call may succeed later."""


class LabelStudioRefused(LabelStudioError):
    """401 or 403: the token is missing, expired, of a disabled kind, or lacks a right."""


class LabelStudioNotFound(LabelStudioError):
    """404: the thing was deleted, or belongs to another organisation."""


class LabelStudioMisread(LabelStudioError, KeyError):
    """The answer has not the shape that it has in the releases that nextmask knows."""

    __str__ = Exception.__str__  # that of KeyError shows its message in quotes


class TaskRefused(NextmaskError):
    """Label Studio refuses a task that asks for more of an image; the rest of the queue is not affected."""


class CheckpointError(NextmaskError):
    """A model version is missing, incomplete or damaged."""


class TrainingError(NextmaskError):
    """Training could not start, or ended without a model."""


class TrainingWaits(NextmaskError):
    """Another project trains, or asked earlier: there will be a turn, and until then nothing is wrong."""


class StoreError(NextmaskError):
    """The state database cannot be opened or is of another schema."""


class BackupError(NextmaskError):
    """A backup cannot be written, read or put in place."""


class DiskFull(NextmaskError):
    """MODEL_DIR has no room. Nothing is lost by it; the same call succeeds when there is room again.

    Attributes:
        needed: bytes that should be free.
    """

    def __init__(self, message: str, *, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed


class LeaseLost(NextmaskError):
    """Another worker holds the project now; this one must stop writing."""


def shown(value: object) -> str:
    """Return a value from outside as messages show it: short, whatever its size and depth.

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
    found = reprlib.Repr()
    found.maxstring, found.maxother, found.maxlong = _SHOWN_CHARACTERS, 40, 40
    return found


_REPR = _repr()
