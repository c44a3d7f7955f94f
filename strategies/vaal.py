"""VAAL, variational adversarial active learning: label first what looks least like the labelled images.

Paper: Sinha, Ebrahimi, Darrell, "Variational adversarial active learning", 2019, arXiv 1904.00370; Gu, "Active
Learning and Its Application in Semantic Segmentation" (the survey), section III.B.2.
Equation: survey Eq. 7, L_VAE = λ1 L_trd + λ2 L_adv, with the latent mean μ of a β-VAE and a discriminator D:
L_trd = ELBO(x_L) + ELBO(x_U), L_adv = BCE(D(μ_L), 1) + BCE(D(μ_U), 1), L_D = BCE(D(μ_L), 1) + BCE(D(μ_U), 0).
The images with the lowest D(μ_U) are chosen. The segmentation network plays no part.

Deviations:
- The ELBO is a sum per image, averaged over images: its squared error and its divergence keep the proportion that
  the equation gives them. Public code weighs a mean error against a summed divergence, which empties the latents.
- Labelled and unlabelled images pass the VAE in the same batch, so that batch normalisation cannot tell them apart.
- Scores are taken in evaluation mode, image by image and unchanged, so no score depends on other images or chance.
- Images are shrunk to squares of `image_size`; adaptive pooling lets the encoder take any size.
- Channels start at `width` = 32, not 128: an eighth of the time, for pools without a GPU.
- The information is -log(D / (1 - D)), which orders as 1 - D does, without running into 1.
- From the second round on the VAE of the round before is trained on, for fewer epochs, beside a discriminator that
  starts anew: the old discriminator, which the VAE has learned to fool, does not recover. The paper trains both anew.
- An image labelled in part is among the labelled and among the unlabelled, so the discriminator is torn.

D is judged by its logit: a large logit means "labelled", so L_D is small and the image comes last:

    >>> import torch
    >>> sure, unsure = torch.tensor([4.0]), torch.tensor([0.0])
    >>> round(discriminator_loss(labelled=unsure, unlabelled=unsure).item(), 3)  # 2 log 2
    1.386
    >>> discriminator_loss(labelled=sure, unlabelled=-sure) < discriminator_loss(labelled=unsure, unlabelled=unsure)
    tensor(True)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies import training
from strategies.autoencoder import Autoencoder, latents_drawn, negative_elbo
from strategies.base import Batch, Lesson, Observation
from strategies.checks import check_count, check_number
from strategies.frames import extents

_THUMBNAILS = 20_000
"""Images of either kind kept to train on, 12 kB each at 64 x 64; of more, a sample is."""


@dataclass(frozen=True, kw_only=True)
class _Networks:
    autoencoder: Autoencoder
    discriminator: nn.Sequential
    run: training.Run


class Vaal(training.Learner[_Networks]):
    """Ranks images by how little a discriminator in the latent space of a β-VAE takes them for labelled.

    Args:
        image_size: side of the squares that images are shrunk to; a multiple of 16.
        latent: length of μ.
        width: channels of the VAE's first convolution; the following have 2, 4 and 8 times as many.
        beta: weight of the divergence in the ELBO.
        reconstruction_weight, adversarial_weight: λ1 and λ2 of Eq. 7.
        epochs: passes over the unlabelled images; each step takes as many labelled ones. A pool of a hundred images
            needs many of them, one of many thousands is cut short by the time that `prepare` has.
        warm_epochs: the same in later rounds, which start from the VAE of the round before.
        batch_size: images of either kind in a step.
        learning_rate: of both Adam optimisers.

    Raises:
        ValueError: an option is out of its range.
    """

    name = "vaal"
    needs = frozenset({"examples"})

    def __init__(
        self,
        *,
        image_size: int = 64,
        latent: int = 32,
        width: int = 32,
        beta: float = 1.0,
        reconstruction_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        epochs: int = 100,
        warm_epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 5e-4,
    ) -> None:
        counts = {"latent": latent, "width": width, "batch_size": batch_size}
        for option, count in (counts | {"epochs": epochs, "warm_epochs": warm_epochs}).items():
            check_count(option, count, 1)
        if type(image_size) is not int or image_size < 16 or image_size % 16:
            raise ValueError(f"image_size: expected a multiple of 16 from 16 up, received {image_size!r}")
        rates = {
            "beta": beta,
            "reconstruction_weight": reconstruction_weight,
            "adversarial_weight": adversarial_weight,
            "learning_rate": learning_rate,
        }
        for option, value in rates.items():
            check_number(option, value, 0)
        self._image_size, self._latent, self._width = image_size, latent, width
        self._epochs, self._warm_epochs, self._batch_size = epochs, warm_epochs, batch_size
        self._rates: dict[str, float] = rates

    def _learn(self, lesson: Lesson) -> None:
        """Train VAE and discriminator on the device of the images.

        Called again with the same images it goes on where it stopped, at once or from a loaded state; with others it
        starts from the VAE that it has, and trains for `warm_epochs`. The order of the images and their
        batches do not matter. Without images of both kinds there is nothing to tell apart, and nothing is trained.
        """
        known = self._thumbnails(training.before(lesson.deadline, lesson.labelled))
        pool = self._thumbnails(training.before(lesson.deadline, lesson.unlabelled))
        if not known or not pool:
            self._learned = None
            return
        data = training.digest([*known, torch.zeros(0), *pool])
        if self._learned is None:
            self._learned = self._start(training.draw_seed(lesson.generator), data)
        elif self._learned.run.data != data:
            self._restart(self._learned, training.draw_seed(lesson.generator), data)
        networks = self._learned
        networks.run.to(known[0].device)
        epochs = self._warm_epochs if networks.run.restarts else self._epochs
        networks.run.until(
            epochs * -(-len(pool) // self._batch_size),
            lambda chance: self._step(networks, known, pool, chance),
            progress=lesson.progress,
            deadline=lesson.deadline,
        )

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Judge each image by itself.

        Raises:
            ValueError: `prepare` has not been given labelled and unlabelled images.
        """
        if self._learned is None:
            raise ValueError("vaal is not trained: expected prepare() with labelled and unlabelled images before")
        self._learned.run.to(batch.images.device)
        information = torch.zeros(len(batch.ids), dtype=torch.float64, device=batch.images.device)
        for position, thumbnail in enumerate(self._shrunk(batch)):
            mean, _ = self._learned.autoencoder.encode(_as_images([thumbnail]))
            information[position] = -self._learned.discriminator(mean)[0, 0]
        return Observation.from_batch(batch, information=information)

    def _start(self, seed: int, data: str) -> _Networks:
        autoencoder = training.drawn(lambda: Autoencoder(self._latent, self._width, self._image_size), seed)
        discriminator = training.drawn(lambda: _discriminator(self._latent), seed + 1)
        sizes = {"image_size": self._image_size, "latent": self._latent, "width": self._width}
        run = training.Run(
            kind=self.name,
            settings=sizes | {"batch_size": self._batch_size} | self._rates,
            seed=seed,
            data=data,
            modules=(autoencoder, discriminator),
            learning_rate=self._rates["learning_rate"],
        )
        return _Networks(autoencoder=autoencoder, discriminator=discriminator, run=run)

    def _restart(self, networks: _Networks, seed: int, data: str) -> None:
        """Keep the VAE, and judge its latents by a new discriminator: the old has been fooled."""
        anew = training.drawn(lambda: _discriminator(self._latent), seed + 1)
        networks.discriminator.load_state_dict(anew.state_dict())
        networks.run.restart(seed=seed, data=data)

    def _step(self, networks: _Networks, known: list[Tensor], pool: list[Tensor], chance: torch.Generator) -> None:
        """Do two steps of the VAE, then one of the discriminator, each on images of its own."""
        count = min(self._batch_size, len(pool))
        for turn in ("autoencoder", "autoencoder", "discriminator"):
            both = training.picked(known, count, chance) + training.picked(pool, count, chance)
            images = _as_images(both)  # (2B,3,S,S), the labelled ones first
            if turn == "autoencoder":
                networks.run.descend(0, self._autoencoder_loss(networks, images, chance))
            else:
                with torch.no_grad():
                    mean, _ = networks.autoencoder.encode(images)
                labelled, unlabelled = networks.discriminator(mean).chunk(2)
                networks.run.descend(1, discriminator_loss(labelled=labelled, unlabelled=unlabelled))

    def _autoencoder_loss(self, networks: _Networks, images: Tensor, chance: torch.Generator) -> Tensor:
        """Return Eq. 7 for labelled images, followed by as many unlabelled ones."""
        mean, log_variance = networks.autoencoder.encode(images)
        rebuilt = networks.autoencoder.decode(latents_drawn(mean, log_variance, chance))
        losses = negative_elbo(images, rebuilt, mean, log_variance, beta=self._rates["beta"])  # (2B)
        transductive = sum(half.mean() for half in losses.chunk(2))
        labelled, unlabelled = networks.discriminator(mean).chunk(2)
        adversarial = adversarial_loss(labelled=labelled, unlabelled=unlabelled)
        return self._rates["reconstruction_weight"] * transductive + self._rates["adversarial_weight"] * adversarial

    def _thumbnails(self, batches: Iterable[Batch]) -> list[Tensor]:
        """Keep images as (3,S,S) uint8."""
        sample = training.Sample[Tensor](_THUMBNAILS)
        for batch in batches:
            for image, thumbnail in zip(batch.ids, self._shrunk(batch), strict=True):
                sample.offer(repr(image), thumbnail)
        return sample.values()

    def _shrunk(self, batch: Batch) -> Iterator[Tensor]:
        """Shrink each image by itself, without its padding, to (3,S,S) uint8."""
        size = (self._image_size, self._image_size)
        for image, (height, width) in zip(batch.images, extents(batch.valid), strict=True):
            tight = image[None, :, :height, :width].float()
            small = functional.interpolate(tight, size=size, mode="bilinear", antialias=True)[0]
            yield (small * 255).round().clamp(0, 255).to(torch.uint8)


def adversarial_loss(*, labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """Return L_adv, BCE(D(μ_L), 1) + BCE(D(μ_U), 1), from logits (B,1): what the VAE is to make small."""
    return _binary_cross_entropy(labelled, 1) + _binary_cross_entropy(unlabelled, 1)


def discriminator_loss(*, labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """Return L_D, BCE(D(μ_L), 1) + BCE(D(μ_U), 0), from logits (B,1)."""
    return _binary_cross_entropy(labelled, 1) + _binary_cross_entropy(unlabelled, 0)


def _binary_cross_entropy(logits: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _discriminator(latent: int) -> nn.Sequential:
    """Return D, (B,latent) -> (B,1) logits."""
    return nn.Sequential(
        nn.Linear(latent, 512), nn.ReLU(inplace=True), nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Linear(512, 1)
    )


def _as_images(thumbnails: list[Tensor]) -> Tensor:
    """Stack (3,S,S) uint8 to (B,3,S,S) in [0, 1]."""
    return torch.stack(thumbnails).float() / 255
