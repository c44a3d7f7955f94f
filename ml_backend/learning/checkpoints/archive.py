"""A version as an archive: its weights, its record, and a program that predicts with them and needs no nextmask."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints.records import RECORD, Version

PROGRAM: Final = Path(__file__).with_name("predict.py")
_BLOCK: Final = 1 << 20
_README: Final = """nextmask, version {number} of a model

weights.safetensors  the network's state: name -> tensor
version.json         "record": classes by index, settings, labels, held-out measures; "weights": size and SHA-256
predict.py           draws the mask of an image; needs Python 3.10 or later, and nothing of nextmask

    pip install torch safetensors segmentation-models-pytorch pillow numpy
    python predict.py image.png mask.png

mask.png has the size of the image, and the index of a class in each pixel: {classes}.
predict.py reads opaque images of 8 bits per colour as nextmask does. Of others it may draw another mask: nextmask lays
transparent pixels over white, stretches grey of more than 8 bits, and turns images as browsers do.

What predict.py does, for a program of your own:

1. Build the network: architecture {architecture!r} on the encoder {encoder!r}, {count} classes, with the options in
   "network_options". {origin}
2. Load the weights. Names begin with "model."; "mean" and "std" are what images are normalised with.
3. Shrink the image until its longest side has at most {input_size} pixels (bilinear, with antialiasing), divide by 255,
   subtract "mean", divide by "std", and pad at the bottom and at the right, with mirrored pixels, to multiples of the
   encoder's stride.
4. Cut the padding off the logits, bring them to the size of the image (bilinear), and take the largest.

The dropout of {dropout:g} that the network was trained with stands before its head, and does nothing in a prediction.
"""
_OF_SMP: Final = "segmentation_models_pytorch has it."
_OF_OURS: Final = """It is nextmask's own, and no other library has it: predict.py
   cannot build it. Where nextmask is installed, this is the network, with 3. but the shrinking inside:

       import json
       from safetensors.torch import load_file
       from ml_backend.learning.networks import load_network

       record = json.load(open("version.json"))["record"]
       state = load_file("weights.safetensors")
       network = load_network(record["settings"], len(record["classes"]), state).eval()"""
OUR_ARCHITECTURES: Final = frozenset({"dcan", "drn", "fcn8s", "segnet"})
"""Those of `ml_backend.learning.networks.architectures`, which this package does not import."""


def archive(version: Version) -> Iterator[bytes]:
    """Yield a version as a ZIP file, piece by piece; the weights are never in memory as a whole.

    Raises:
        CheckpointError: a file cannot be read. Where that is the weights', the archive has begun, and stays unfinished.
    """
    pieces = _Pieces()
    folder = f"nextmask-version-{version.number}"
    try:
        with zipfile.ZipFile(cast("IO[bytes]", pieces), "w") as made:
            made.writestr(f"{folder}/README.txt", readme(version))
            made.writestr(f"{folder}/predict.py", PROGRAM.read_bytes())
            made.writestr(f"{folder}/version.json", version.files.read(RECORD))
            yield pieces.taken()
            with (
                version.weights.open("rb") as weights,
                made.open(f"{folder}/weights.safetensors", "w", force_zip64=True) as target,
            ):
                while block := weights.read(_BLOCK):
                    target.write(block)
                    yield pieces.taken()
        yield pieces.taken()
    except OSError as error:
        raise CheckpointError(f"Version {version.number} cannot be read: {error}.") from error


def readme(version: Version) -> str:
    """Say what the files of a version are, and how to load them without nextmask."""
    settings, classes = version.record.settings, version.record.classes
    return _README.format(
        number=version.number,
        classes=", ".join(f"{index} {name}" for index, name in enumerate(classes)),
        count=len(classes),
        architecture=settings["architecture"],
        encoder=settings["encoder"],
        input_size=settings["input_size"],
        dropout=settings["dropout"],
        origin=_OF_OURS if settings["architecture"] in OUR_ARCHITECTURES else _OF_SMP,
    )


class _Pieces:
    """A file that nobody can go back in: what was written is taken away."""

    def __init__(self) -> None:
        self._written, self._position = bytearray(), 0

    def write(self, content: bytes) -> int:
        """Take up content."""
        self._written += content
        self._position += len(content)
        return len(content)

    def tell(self) -> int:
        """Return how much was written so far."""
        return self._position

    def flush(self) -> None:
        """Do nothing: there is no file behind."""

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        content, self._written = bytes(self._written), bytearray()
        return content
