"""Draws the pictures of tasks; what they are drawn from is kept."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_from_text
from ml_backend.dashboard.pictures import drawing
from ml_backend.dashboard.pictures.cache import PictureCache, key_of
from ml_backend.dashboard.pictures.drawing import Mask, Picture
from ml_backend.dashboard.pictures.subjects import NoPicture, Subject, ranking_model, serving_number
from ml_backend.errors import CheckpointError, ConfigurationError, ImageError, MaskError
from ml_backend.images.decoding import Array
from ml_backend.images.references import in_project
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.services import Services

if TYPE_CHECKING:
    import torch

    from ml_backend.learning.prediction.predictor import Predictor
    from ml_backend.learning.prediction.predictor_cache import PredictorCache

FORGET_SECONDS: Final = 60.0
"""An image that could not be had is not asked for again so soon: a page asks for many pictures of one image."""
_REMEMBERED = 1000
_OTHER_MODELS = 2
_FORMAT = 1
"""Changes when files of an earlier release can no longer be read."""


@dataclass(frozen=True)
class Drawing:
    """A picture that may be drawn.

    Attributes:
        tag: changes with the picture; known before anything is drawn.
        draw: makes it; raises NoPicture where there is none.
    """

    tag: str
    draw: Callable[[], Picture]


@dataclass(frozen=True, eq=False)
class Opinion:
    """What a version says of an image, at a picture's size.

    Attributes:
        mask: (h,w) uint8, indices of the version's classes.
        entropy: (h,w) uint8, the entropy of the class probabilities from 0 (sure) to 255 (all classes alike).
    """

    mask: Mask
    entropy: drawing.Pixels


class Pictures:
    """The pictures of all projects of an installation. Any number of threads may ask for them.

    One image at a time is decoded and predicted here, so that neither memory nor the time of those who label depends
    on how many people look at the dashboard. Models that do not serve have a small cache of their own: looking back
    does not drop one that annotators need.

    Args:
        cache: where files are kept.
    """

    def __init__(self, services: Services, cache: PictureCache) -> None:
        self._services, self._cache = services, cache
        self._making = threading.Lock()
        self._failures = _Failures()
        self._others: PredictorCache | None = None

    # -- what there is to see -----------------------------------------------------------------------------------------
    def image(self, subject: Subject) -> Drawing:
        """The image of a task."""
        key = key_of(_FORMAT, "image", _place(subject))
        return Drawing(key, lambda: Picture(self._small_image(key, subject), "image/webp"))

    def mask(self, subject: Subject) -> Drawing:
        """The mask that annotators are shown; where none was published, what the version that serves predicts."""
        version = subject.project.published_version
        png = self._services.store.published_mask(subject.project.id, version, subject.task.task_id)
        if png is None:
            return self.predicted(subject, serving_number(subject.project))
        return self._painted(subject, key_of(_FORMAT, "png", hashlib.sha256(png).hexdigest()), lambda: png)

    def truth(self, subject: Subject) -> Drawing:
        """The mask that a person drew."""
        file = subject.task.mask_file
        if not file:
            raise NoPicture("Nobody labelled this image.")
        key = key_of(_FORMAT, "png", file, subject.task.label_digest)
        return self._painted(subject, key, lambda: Path(file).read_bytes())

    def predicted(self, subject: Subject, number: int) -> Drawing:
        """The mask that a version predicts."""
        version = self._version(subject, number)
        key = key_of(_FORMAT, "mask", self._opinion_key(version, subject), subject.labels.key)
        return Drawing(key, lambda: self._paint(subject, self._translated(version, subject)))

    def uncertainty(self, subject: Subject) -> Drawing:
        """The heat map of the entropy, by the version that ranked."""
        version = self._version(subject, ranking_model(subject.project) or serving_number(subject.project))
        key = key_of(_FORMAT, "heat", self._opinion_key(version, subject))
        return Drawing(key, lambda: drawing.heat_picture(self.opinion(version, subject).entropy))

    def difference(self, subject: Subject, number: int, other: int) -> Drawing:
        """Where two versions disagree."""
        versions = [self._version(subject, one) for one in (number, other)]
        keys = [self._opinion_key(version, subject) for version in versions]

        def draw() -> Picture:
            return drawing.difference_picture(*(self._translated(version, subject) for version in versions))

        return Drawing(key_of(_FORMAT, "difference", *keys, subject.labels.key), draw)

    def regions(self, subject: Subject, text: str) -> Drawing:
        """Frames around what is asked for.

        Args:
            text: the boxes as the store keeps them.
        """
        boxes = boxes_from_text(text)
        return Drawing(key_of(_FORMAT, "boxes", _place(subject), text), lambda: self._framed(subject, boxes))

    # -- what it is drawn from ----------------------------------------------------------------------------------------
    def opinion(self, version: Version, subject: Subject) -> Opinion:
        """Return what a version says of a task's image, predicted where that was not done before.

        Raises:
            NoPicture: the image cannot be had, or the version cannot predict.
        """
        key = self._opinion_key(version, subject)
        found = self._kept_opinion(key)
        if found is not None:
            return found
        self._fetch(subject)
        with self._making:
            found = self._kept_opinion(key)  # somebody else may have made it in between
            if found is None:
                found = self._predict(version, subject, self._load(subject))
                self._keep_opinion(key, found)
        return found

    def judged(self, subject: Subject, numbers: Sequence[int]) -> list[Mask]:
        """Return what versions predict for a task, (H,W) in today's classes; what pictures need of it is kept.

        Raises:
            NoPicture: as `opinion`.
        """
        versions = [self._version(subject, number) for number in numbers]
        self._fetch(subject)
        with self._making:
            image = self._load(subject)
            return [self._judged(version, subject, image) for version in versions]

    def known_classes(self, subject: Subject) -> dict[str, float] | None:
        """Return the share of the picture that each class has in the mask that is shown; None where none is at hand.

        Nothing is fetched or predicted for it.
        """
        version = subject.project.published_version
        png = self._services.store.published_mask(subject.project.id, version, subject.task.task_id)
        try:
            mask = self._known_mask(subject, png)
        except (NoPicture, MaskError):
            return None
        if mask is None:
            return None
        counts = np.bincount(mask.ravel(), minlength=len(subject.labels.colours))
        names = zip(subject.labels.label_map.classes, counts, strict=False)
        return {name: float(count / mask.size) for name, count in names if count}

    def failure(self, subject: Subject) -> str | None:
        """Return why a task's image could not be had a moment ago; None where that is not known."""
        return self._failures.reason(_place(subject))

    def predictor(self, subject: Subject, number: int) -> Predictor:
        """Return the network of a version.

        Raises:
            CheckpointError, ConfigurationError: as `PredictorCache.get`.
        """
        from ml_backend.learning.prediction.predictor_cache import PredictorCache

        checkpoints = self._services.checkpoints(subject.project.id)
        if number == serving_number(subject.project):
            return self._services.predictors.get(checkpoints, number, subject.settings.device)
        if self._others is None:
            self._others = PredictorCache(capacity=_OTHER_MODELS)
        return self._others.get(checkpoints, number, subject.settings.device)

    # -- images -------------------------------------------------------------------------------------------------------
    def _small_image(self, key: str, subject: Subject) -> bytes:
        found = self._cache.get(key)
        if found is None:
            self._fetch(subject)
            with self._making:
                found = self._cache.made(key, lambda: self._image_file(subject, self._load(subject)))
        return found

    def _image_file(self, subject: Subject, image: Array) -> bytes:
        self._cache.put(_size_key(subject), f"{image.shape[0]} {image.shape[1]}".encode())
        return drawing.image_picture(drawing.shrunk_image(image)).content

    def _size(self, subject: Subject) -> tuple[int, int]:
        """Return height and width of a task's image."""
        found = self._cache.get(_size_key(subject))
        if found is None:
            self._fetch(subject)
            with self._making:
                shape = self._load(subject).shape
            found = f"{shape[0]} {shape[1]}".encode()
            self._cache.put(_size_key(subject), found)
        height, width = map(int, found.split())
        return height, width

    def _fetch(self, subject: Subject) -> None:
        """Get the file of an image: others may be drawn meanwhile, since its host may take its time."""
        known = self._failures.reason(_place(subject))
        if known is not None:
            raise NoPicture(known)
        try:
            self._services.images_of(subject.task.project_id).path(subject.task.image)
        except ImageError as error:
            raise self._failed(subject, error) from error

    def _load(self, subject: Subject) -> Array:
        try:
            return self._services.images_of(subject.task.project_id).load(subject.task.image)
        except ImageError as error:
            raise self._failed(subject, error) from error

    def _failed(self, subject: Subject, error: ImageError) -> NoPicture:
        self._failures.note(_place(subject), str(error))
        return NoPicture(str(error))

    def _framed(self, subject: Subject, boxes: tuple[Box, ...]) -> Picture:
        return drawing.boxes_picture(boxes, self._size(subject)) if boxes else drawing.nothing()

    # -- masks --------------------------------------------------------------------------------------------------------
    def _painted(self, subject: Subject, key: str, read: Callable[[], bytes]) -> Drawing:
        """Paint a mask in today's classes that lies somewhere as a PNG of the image's size."""
        tag = key_of(_FORMAT, "painted", key, subject.labels.key)
        return Drawing(tag, lambda: self._paint(subject, self._small_mask(key, read)))

    def _small_mask(self, key: str, read: Callable[[], bytes]) -> Mask:
        return drawing.unpacked(self._cache.made(key, lambda: drawing.packed(_shrunk_file(read))))

    def _paint(self, subject: Subject, mask: Mask) -> Picture:
        labels = subject.labels
        return drawing.mask_picture(mask, labels.colours, labels.label_map.unpainted_index)

    def _known_mask(self, subject: Subject, png: bytes | None) -> Mask | None:
        if png is not None:
            return self._small_mask(key_of(_FORMAT, "png", hashlib.sha256(png).hexdigest()), lambda: png)
        version = self._version(subject, serving_number(subject.project))
        known = self._kept_opinion(self._opinion_key(version, subject))
        return None if known is None else masks.translated(known.mask, version.record.classes, subject.labels.label_map)

    # -- predictions --------------------------------------------------------------------------------------------------
    def _version(self, subject: Subject, number: int) -> Version:
        if not number:
            raise NoPicture("No model yet: the first version is trained when enough is labelled.")
        try:
            return self._services.checkpoints(subject.project.id).get(number)
        except CheckpointError as error:
            raise NoPicture(str(error)) from error

    def _opinion_key(self, version: Version, subject: Subject) -> str:
        return key_of(_FORMAT, "opinion", version.sha256, int(version.record.settings["input_size"]), _place(subject))

    def _kept_opinion(self, key: str) -> Opinion | None:
        found = self._cache.get(key)
        if found is None:
            return None
        planes = drawing.unpacked(found)  # (h,w,2)
        return Opinion(planes[..., 0], planes[..., 1])

    def _keep_opinion(self, key: str, opinion: Opinion) -> None:
        self._cache.put(key, drawing.packed(np.stack([opinion.mask, opinion.entropy], axis=-1)))

    def _translated(self, version: Version, subject: Subject) -> Mask:
        mask = self.opinion(version, subject).mask
        return masks.translated(mask, version.record.classes, subject.labels.label_map)

    def _predict(self, version: Version, subject: Subject, image: Array) -> Opinion:
        return opinion_of(self._probabilities(version, subject, image), drawing.small_size(*image.shape[:2]))

    def _judged(self, version: Version, subject: Subject, image: Array) -> Mask:
        probabilities = self._probabilities(version, subject, image)
        opinion = opinion_of(probabilities, drawing.small_size(*image.shape[:2]))
        self._keep_opinion(self._opinion_key(version, subject), opinion)
        mask = mask_of(probabilities, (image.shape[0], image.shape[1]))
        return masks.translated(mask, version.record.classes, subject.labels.label_map)

    def _probabilities(self, version: Version, subject: Subject, image: Array) -> torch.Tensor:
        """Return class probabilities (C,h,w) at the network's resolution."""
        from ml_backend.learning.prediction.batches import Item

        try:
            predictor = self.predictor(subject, version.number)
            batches = predictor.batches([Item(subject.task.task_id, image)], features=False, batch_size=1)
            found = next(iter(batches)).probabilities  # (1,1,C,h,w)
        except (CheckpointError, ConfigurationError) as error:
            raise NoPicture(str(error)) from error
        assert found is not None  # noqa: S101 (a network gives some)
        return found[0, 0]


def opinion_of(probabilities: torch.Tensor, size: tuple[int, int]) -> Opinion:
    """Read class probabilities (C,h,w) at a size (height, width)."""
    from strategies.uncertainty import entropy

    values: NDArray[np.float32] = entropy(probabilities[None, None])[0].cpu().numpy()
    return Opinion(mask_of(probabilities, size), drawing.levels_of(values, size))


def mask_of(probabilities: torch.Tensor, size: tuple[int, int]) -> Mask:
    """Return the likeliest class of every pixel at a size (height, width), as `Predictor.predict` does.

    It looks at upsampled logits: these are the logarithms of the probabilities (C,h,w) but for a number that all
    classes of a pixel share, which no bilinear mean sees.
    """
    import torch

    from ml_backend.learning.networks import labels_at

    return labels_at(probabilities.clamp(min=torch.finfo(torch.float32).tiny).log(), *size)


class _Failures:
    """Images that could not be had in the last minute, with the reasons."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def note(self, reference: str, reason: str) -> None:
        """Remember why an image could not be had."""
        with self._lock:
            self._known[key_of(reference)] = (time.monotonic(), reason)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def reason(self, reference: str) -> str | None:
        """Return why an image could not be had; None where that is not known, or long ago."""
        with self._lock:
            noted, reason = self._known.get(key_of(reference), (float("-inf"), ""))
        return reason if time.monotonic() - noted < FORGET_SECONDS else None


def _place(subject: Subject) -> str:
    """What an image is known by: a file in cloud storage for each project apart."""
    return in_project(subject.task.image, subject.task.project_id)


def _size_key(subject: Subject) -> str:
    return key_of(_FORMAT, "size", _place(subject))


def _shrunk_file(read: Callable[[], bytes]) -> Mask:
    try:
        return drawing.shrunk_mask(masks.mask_from_png(read()))
    except (OSError, MaskError) as error:
        raise NoPicture(f"The mask cannot be read: {error}.") from error
