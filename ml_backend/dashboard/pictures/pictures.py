"""The pictures of tasks: image, masks, uncertainty, regions, differences. What they are drawn from is kept in files.

How arrays become picture files is in `drawing`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_from_text
from ml_backend.annotations.config_edits import Colour
from ml_backend.dashboard.pictures import drawing
from ml_backend.dashboard.pictures.cache import PictureCache, key_of
from ml_backend.dashboard.pictures.drawing import Mask, Picture
from ml_backend.dashboard.pictures.subjects import NoPicture, Subject, ranking_number, serving_number
from ml_backend.errors import CheckpointError, ConfigurationError, ImageError, MaskError
from ml_backend.images.decoding import Array
from ml_backend.images.references import in_project
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.queued_points import points_from_text
from ml_backend.projects.services import Services, map_folder

if TYPE_CHECKING:
    import torch

    from ml_backend.learning.prediction.predictor import Predictor
    from ml_backend.learning.prediction.predictor_cache import PredictorCache

FORGET_SECONDS: Final = 60.0
"""How long an image that could not be had is not requested again: a page shows many pictures of one image."""
_REMEMBERED = 1000
_OTHER_PREDICTORS = 2
_FORMAT = 1
"""Changes when files of an earlier release can no longer be read."""


@dataclass(frozen=True)
class Drawing:
    """A picture that can be drawn when it is needed.

    Attributes:
        tag: changes when the picture does; known before anything is drawn.
        draw: returns the picture; raises NoPicture where there is none.
    """

    tag: str
    draw: Callable[[], Picture]


@dataclass(frozen=True, eq=False)
class SmallPrediction:
    """What a version predicts for an image, at a picture's size.

    Attributes:
        mask: (h,w) uint8, indices of the version's classes.
        entropy: (h,w) uint8, the entropy of the class probabilities from 0 (sure) to 255 (all classes alike).
    """

    mask: Mask
    entropy: drawing.Pixels


class Pictures:
    """The pictures of all projects of an installation. Any number of threads may ask for them.

    One image at a time is decoded and predicted here, so that neither memory nor the time of those who label depends
    on how many people look at the dashboard. Versions that do not serve have a small cache of their own: looking at
    them does not drop a network that annotators need.

    Args:
        cache: where files are kept.
    """

    def __init__(self, services: Services, cache: PictureCache) -> None:
        self._services, self._cache = services, cache
        self._lock = threading.Lock()
        self._failures = _Failures()
        self._other_predictors: PredictorCache | None = None

    # -- what there is to see -----------------------------------------------------------------------------------------
    def image(self, subject: Subject) -> Drawing:
        """The image of a task."""
        key = _key("image", subject)
        return Drawing(key, lambda: Picture(self._small_image(key, subject), "image/webp"))

    def mask(self, subject: Subject) -> Drawing:
        """The mask that annotators see; where none was published, what the version that serves predicts."""
        png = self._published_mask(subject)
        if png is None:
            return self.predicted(subject, serving_number(subject.project))
        return self._painted(subject, _mask_key(subject, png), lambda: png)

    def truth(self, subject: Subject) -> Drawing:
        """The mask that a person drew."""
        file = subject.task.mask_file
        if not file:
            raise NoPicture("This image is not labelled.")
        key = key_of(_FORMAT, "png", file, subject.task.label_digest, *_size(subject))
        return self._painted(subject, key, lambda: self._services.files.read(file))

    def predicted(self, subject: Subject, number: int) -> Drawing:
        """The mask that a version predicts."""
        version = self._version(subject, number)
        key = key_of(_FORMAT, "mask", self._prediction_key(version, subject), subject.labels.key)
        return Drawing(key, lambda: self._paint(subject, self._translated(version, subject)))

    def uncertainty(self, subject: Subject) -> Drawing:
        """The heat map of the entropy, by the version that ranked."""
        version = self._version(subject, ranking_number(subject.project) or serving_number(subject.project))
        key = key_of(_FORMAT, "heat", self._prediction_key(version, subject))
        return Drawing(key, lambda: drawing.heat_picture(self.small_prediction(version, subject).entropy))

    def difference(self, subject: Subject, number: int, other: int) -> Drawing:
        """Where two versions disagree."""
        versions = [self._version(subject, wanted) for wanted in (number, other)]
        keys = [self._prediction_key(version, subject) for version in versions]

        def draw() -> Picture:
            return drawing.difference_picture(*(self._translated(version, subject) for version in versions))

        return Drawing(key_of(_FORMAT, "difference", *keys, subject.labels.key), draw)

    def regions(self, subject: Subject, text: str, points: str = "") -> Drawing:
        """Frames around the regions to label, and dots at the points, in the colours of the classes they are taken for.

        Args:
            text: the boxes as the store keeps them.
            points: what is known of the points among them, likewise.
        """
        boxes, colours = boxes_from_text(text), subject.labels.colour_by_name
        guesses = {Box.point(point.row, point.column): point.guess for point in points_from_text(points)}
        marks = [(box, colours.get(guesses.get(box, "")) if box.is_point else None) for box in boxes]
        key = _key("boxes", subject, text, points, subject.labels.key)
        return Drawing(key, lambda: self._framed(subject, marks))

    # -- what it is drawn from ----------------------------------------------------------------------------------------
    def small_prediction(self, version: Version, subject: Subject) -> SmallPrediction:
        """Return what a version predicts for a task's image, at a picture's size; from the cache where it is there.

        Raises:
            NoPicture: the image cannot be had, or the version cannot predict.
        """
        key = self._prediction_key(version, subject)
        cached = self._cached_prediction(key)
        if cached is not None:
            return cached
        self._fetch(subject)
        with self._lock:
            cached = self._cached_prediction(key)  # another request may have made it meanwhile
            if cached is not None:
                return cached
            prediction = self._predict(version, subject, self._load(subject))
            self._cache_prediction(key, prediction)
        return prediction

    def full_masks(self, subject: Subject, numbers: Sequence[int]) -> list[Mask]:
        """Return what versions predict for a task, (H,W) uint8 indices of today's classes, one mask a version.

        What pictures need of it is cached.

        Raises:
            NoPicture: as `small_prediction`.
        """
        versions = [self._version(subject, number) for number in numbers]
        self._fetch(subject)
        with self._lock:
            image = self._load(subject)
            return [self._full_mask(version, subject, image) for version in versions]

    def class_shares(self, subject: Subject) -> dict[str, float] | None:
        """Return the share of pixels of each class in the mask that annotators see, in [0, 1].

        None where that mask is not at hand: nothing is fetched or predicted for it.
        """
        try:
            mask = self._known_mask(subject, self._published_mask(subject))
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
        device = self._services.turns.device_for(subject.project.id)
        if number == serving_number(subject.project):
            return self._services.predictors.get(checkpoints, number, device)
        if self._other_predictors is None:
            self._other_predictors = PredictorCache(
                capacity=_OTHER_PREDICTORS, maps=lambda: map_folder(self._services.settings)
            )
        return self._other_predictors.get(checkpoints, number, device)

    # -- images -------------------------------------------------------------------------------------------------------
    def _small_image(self, key: str, subject: Subject) -> bytes:
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        self._fetch(subject)
        with self._lock:
            return self._cache.made(key, lambda: self._image_file(subject, self._load(subject)))

    def _image_file(self, subject: Subject, image: Array) -> bytes:
        self._cache.put(_size_key(subject), f"{image.shape[0]} {image.shape[1]}".encode())
        return drawing.image_picture(drawing.shrunk_image(image, subject.side)).content

    def _size(self, subject: Subject) -> tuple[int, int]:
        """Return height and width of a task's image."""
        size = self._cache.get(_size_key(subject))
        if size is None:
            self._fetch(subject)
            with self._lock:
                shape = self._load(subject).shape
            size = f"{shape[0]} {shape[1]}".encode()
            self._cache.put(_size_key(subject), size)
        height, width = map(int, size.split())
        return height, width

    def _fetch(self, subject: Subject) -> None:
        """Get the file of an image, outside of the lock: its host may take its time, and others are drawn meanwhile."""
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
        self._failures.add(_place(subject), str(error))
        return NoPicture(str(error))

    def _framed(self, subject: Subject, marks: Sequence[tuple[Box, Colour | None]]) -> Picture:
        return drawing.boxes_picture(marks, self._size(subject), subject.side) if marks else drawing.nothing()

    def _published_mask(self, subject: Subject) -> bytes | None:
        """Return the mask that annotators see; None where none was published, and where they see points instead."""
        store, task = self._services.store, subject.task.task_id
        project, version = subject.project.id, subject.project.published_version
        query = store.published_queries(project, task).get((task, version))
        return None if query is not None and query.asks_for_points else store.published_mask(project, version, task)

    # -- masks --------------------------------------------------------------------------------------------------------
    def _painted(self, subject: Subject, key: str, read: Callable[[], bytes]) -> Drawing:
        """Paint a mask in today's classes that `read` returns as a PNG of the image's size."""
        tag = key_of(_FORMAT, "painted", key, subject.labels.key)
        return Drawing(tag, lambda: self._paint(subject, self._small_mask(subject, key, read)))

    def _small_mask(self, subject: Subject, key: str, read: Callable[[], bytes]) -> Mask:
        return drawing.unpacked(self._cache.made(key, lambda: drawing.packed(_shrunk_file(read, subject.side))))

    def _paint(self, subject: Subject, mask: Mask) -> Picture:
        labels = subject.labels
        return drawing.mask_picture(mask, labels.colours, labels.label_map.unpainted_index)

    def _known_mask(self, subject: Subject, png: bytes | None) -> Mask | None:
        if png is not None:
            return self._small_mask(subject, _mask_key(subject, png), lambda: png)
        version = self._version(subject, serving_number(subject.project))
        known = self._cached_prediction(self._prediction_key(version, subject))
        return None if known is None else masks.translated(known.mask, version.record.classes, subject.labels.label_map)

    # -- predictions --------------------------------------------------------------------------------------------------
    def _version(self, subject: Subject, number: int) -> Version:
        if not number:
            raise NoPicture("No model yet: the first version is trained once enough images are labelled.")
        try:
            return self._services.checkpoints(subject.project.id).get(number)
        except CheckpointError as error:
            raise NoPicture(str(error)) from error

    def _prediction_key(self, version: Version, subject: Subject) -> str:
        return _key("opinion", subject, version.sha256, int(version.record.settings["input_size"]))

    def _cached_prediction(self, key: str) -> SmallPrediction | None:
        content = self._cache.get(key)
        if content is None:
            return None
        planes = drawing.unpacked(content)  # (h,w,2)
        return SmallPrediction(planes[..., 0], planes[..., 1])

    def _cache_prediction(self, key: str, prediction: SmallPrediction) -> None:
        self._cache.put(key, drawing.packed(np.stack([prediction.mask, prediction.entropy], axis=-1)))

    def _translated(self, version: Version, subject: Subject) -> Mask:
        mask = self.small_prediction(version, subject).mask
        return masks.translated(mask, version.record.classes, subject.labels.label_map)

    def _predict(self, version: Version, subject: Subject, image: Array) -> SmallPrediction:
        return small_prediction_of(self._probabilities(version, subject, image), _size_of(image, subject))

    def _full_mask(self, version: Version, subject: Subject, image: Array) -> Mask:
        probabilities = self._probabilities(version, subject, image)
        prediction = small_prediction_of(probabilities, _size_of(image, subject))
        self._cache_prediction(self._prediction_key(version, subject), prediction)
        mask = mask_of(probabilities, (image.shape[0], image.shape[1]))
        return masks.translated(mask, version.record.classes, subject.labels.label_map)

    def _probabilities(self, version: Version, subject: Subject, image: Array) -> torch.Tensor:
        """Return class probabilities (C,h,w) at the network's resolution."""
        from ml_backend.learning.prediction.batches import Item

        try:
            predictor = self.predictor(subject, version.number)
            batches = predictor.batches([Item(subject.task.task_id, image)], features=False, batch_size=1)
            probabilities = next(iter(batches)).probabilities  # (1,1,C,h,w)
        except (CheckpointError, ConfigurationError) as error:
            raise NoPicture(str(error)) from error
        assert probabilities is not None  # noqa: S101 (a network gives some)
        return probabilities[0, 0]  # (C,h,w)


def small_prediction_of(probabilities: torch.Tensor, size: tuple[int, int]) -> SmallPrediction:
    """Return mask and entropy of class probabilities (C,h,w), brought to a size (height, width)."""
    from strategies.uncertainty import entropy

    values: NDArray[np.float32] = entropy(probabilities[None, None])[0].cpu().numpy()
    return SmallPrediction(mask_of(probabilities, size), drawing.levels_of(values, size))


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

    def add(self, reference: str, reason: str) -> None:
        """Remember why an image could not be had."""
        with self._lock:
            self._known[key_of(reference)] = (time.monotonic(), reason)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def reason(self, reference: str) -> str | None:
        """Return why an image could not be had; None where that is not known, or long ago."""
        with self._lock:
            at, reason = self._known.get(key_of(reference), (float("-inf"), ""))
        return reason if time.monotonic() - at < FORGET_SECONDS else None


def _place(subject: Subject) -> str:
    """Return the name that an image is known by: a file in cloud storage for each project apart."""
    return in_project(subject.task.image, subject.task.project_id)


def _size(subject: Subject) -> tuple[int, ...]:
    """Return what tells pictures of another size than the usual from these."""
    return () if subject.side == drawing.SIDE else (subject.side,)


def _key(kind: str, subject: Subject, *more: str | int) -> str:
    return key_of(_FORMAT, kind, *more, _place(subject), *_size(subject))


def _mask_key(subject: Subject, png: bytes) -> str:
    return key_of(_FORMAT, "png", hashlib.sha256(png).hexdigest(), *_size(subject))


def _size_of(image: Array, subject: Subject) -> tuple[int, int]:
    """Return height and width of the pictures of an image."""
    return drawing.small_size(image.shape[0], image.shape[1], subject.side)


def _size_key(subject: Subject) -> str:
    return key_of(_FORMAT, "size", _place(subject))


def _shrunk_file(read: Callable[[], bytes], side: int) -> Mask:
    try:
        return drawing.shrunk_mask(masks.mask_from_png(read()), side)
    except (OSError, MaskError) as error:
        raise NoPicture(f"The mask cannot be read: {error}.") from error
