"""Committees: several predictions for each pixel, by a network with dropout or by several networks.

Papers: Gal and Ghahramani, "Dropout as a Bayesian approximation", 2016 (arXiv 1506.02142), for MC dropout; Yang et al.,
"Suggestive annotation", 2017 (arXiv 1706.04737), for the ensemble, which `training.committee` trains.

Deviations: the dropout masks are drawn once, not anew for each image, so that the prediction of an image does not
depend on its batch, and is the same each time. A mask is one sample of the network; all images are seen by the same
samples. Masks that leave out nothing are drawn again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ml_backend.errors import CheckpointError, ConfigurationError
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.networks import MapStore, SegmentationNetwork, autocast, load_network, place

_PROBE_SIDE = 64
_DRAWS = 50
"""How often members that leave out nothing are drawn again: at a dropout of 0.1, one in 10^37 is left then."""
_REMEDY = (
    "Set NEXTMASK_DROPOUT to 0.1 or more and train again (nextmask train), or set NEXTMASK_COMMITTEE to 'ensemble'."
)


class Committee(ABC):
    """Members that each predict the class of every pixel.

    Attributes:
        members: number of members M.
        classes: number of classes C.
    """

    members: int
    classes: int

    @abstractmethod
    def opinions(
        self, serving: SegmentationNetwork, images: Tensor, valid: Tensor | None = None, *, features: bool
    ) -> tuple[Iterator[Tensor], Tensor | None]:
        """Pass images through the members, one member at a time.

        Args:
            serving: the network whose descriptors are wanted.
            images: (B,3,H,W) float in [0, 1].
            valid: (B,H,W) bool, False on padding, which descriptors leave out; None: all valid.
            features: whether descriptors are wanted.

        Returns:
            The logits (B,C,H,W) of each of the M members, computed when asked for; descriptors (B,D), or None.
        """


class Single(Committee):
    """The serving network by itself."""

    members = 1

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def opinions(
        self, serving: SegmentationNetwork, images: Tensor, valid: Tensor | None = None, *, features: bool
    ) -> tuple[Iterator[Tensor], Tensor | None]:
        """Pass images through the network once; see `Committee.opinions`."""
        logits, descriptors = serving.forward_with_features(images, valid)
        return iter([logits]), descriptors if features else None


class McDropout(Committee):
    """The serving network without some of the decoder's channels, other ones for each member.

    Encoder and decoder run once; each member costs a run of the head.

    Args:
        masks: (M,K) float, 0 for a channel that is left out, 1 / (1 - p) for the others: what the dropout does while
            training.
        classes: number of classes.
    """

    def __init__(self, masks: Tensor, classes: int) -> None:
        self.masks = masks
        self.members, self.classes = len(masks), classes

    def opinions(
        self, serving: SegmentationNetwork, images: Tensor, valid: Tensor | None = None, *, features: bool
    ) -> tuple[Iterator[Tensor], Tensor | None]:
        """Decode images once, and run the head behind each mask; see `Committee.opinions`."""
        height, width = images.shape[-2:]
        decoded, descriptors = serving.decode(images, valid)  # (B,K,h,w), (B,D)
        masks = self.masks.to(decoded)[:, None, :, None, None]  # (M,1,K,1,1)
        opinions = (serving.classify(decoded * mask, height, width) for mask in masks)
        return opinions, descriptors if features else None


class Ensemble(Committee):
    """Networks that were trained apart.

    Args:
        networks: of the same classes, in evaluation mode, on the device of the serving network.
        classes: number of classes.
    """

    def __init__(self, networks: Sequence[SegmentationNetwork], classes: int) -> None:
        self._networks = tuple(networks)
        self.members, self.classes = len(self._networks), classes

    def opinions(
        self, serving: SegmentationNetwork, images: Tensor, valid: Tensor | None = None, *, features: bool
    ) -> tuple[Iterator[Tensor], Tensor | None]:
        """Pass images through the networks, one at a time; see `Committee.opinions`."""
        descriptors = serving.features(images, valid) if features else None
        return (network(images) for network in self._networks), descriptors


def mc_dropout(network: SegmentationNetwork, members: int, seed: int) -> McDropout:
    """Make a committee of dropout masks out of a network.

    Args:
        network: in evaluation mode, on its device; as much is left out as in its training.
        members: T, how many masks are drawn.
        seed: the same seed gives the same masks.

    Raises:
        ConfigurationError: fewer than two members, or members that are all the same.
    """
    _check_members(members)
    setting, rate = network.dropout.p, network.left_out
    if setting == 0:
        raise ConfigurationError(
            f"NEXTMASK_DROPOUT = 0: without dropout the {members} members of NEXTMASK_COMMITTEE = 'mc_dropout' are the "
            f"same network {members} times. {_REMEDY}"
        )
    probe = _probe(network)
    with torch.no_grad():
        decoded, _ = network.decode(probe)
        channels, classes = decoded.shape[1], network.classify(decoded, *probe.shape[-2:]).shape[1]
    kept = _kept_channels(members, channels, rate, seed)  # (M,K)
    committee = McDropout(kept.float() / (1 - rate), classes)
    if _are_copies(committee, network):
        raise ConfigurationError(
            f"NEXTMASK_DROPOUT = {setting:g}: the {members} members of NEXTMASK_COMMITTEE = 'mc_dropout' say the same, "
            f"since too few of the {channels} channels before the head are left out. {_REMEDY}"
        )
    return committee


def _kept_channels(members: int, channels: int, rate: float, seed: int) -> Tensor:
    """Draw which channels each member keeps: (M,K) bool. A member that keeps all of them is drawn again.

    It would be the network itself, and no other opinion: of 16 channels, as U-Net has, a dropout of 0.1 leaves all to
    18 % of the members. Where next to nothing is ever left out, `_are_copies` tells.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(members, channels, generator=generator) >= rate
    for _ in range(_DRAWS):
        whole = kept.all(dim=1)
        kept[whole] = torch.rand(int(whole.sum()), channels, generator=generator) >= rate
    return kept


def load_ensemble(
    checkpoints: Checkpoints, version: Version, device: torch.device, maps: MapStore | None = None
) -> Ensemble:
    """Load the networks that were trained as the committee of a version.

    Args:
        maps: keeps the maps of encoders that were not trained.

    Raises:
        CheckpointError: there is no committee, it is damaged, or its members are copies of one network.
    """
    record, states = checkpoints.committees.record(version.number), checkpoints.committees.load(version.number)
    if record is None or states is None:
        raise CheckpointError(f"Version {version.number} has no committee: it was deleted or is damaged. Rank again.")
    networks = [load_network(record["settings"], len(record["classes"]), state, maps) for state in states]
    for network in networks:
        place(network.eval(), device)
    committee = Ensemble(networks, len(record["classes"]))
    if _are_copies(committee, networks[0]):
        raise CheckpointError(
            f"The {len(networks)} members of the committee of version {version.number} say the same. Train again."
        )
    return committee


def _check_members(members: int) -> None:
    if members < 2:
        raise ConfigurationError(f"NEXTMASK_MEMBERS = {members}: a committee needs at least 2 members.")


def _probe(network: SegmentationNetwork) -> Tensor:
    """Return an image of noise (1,3,H,W) of a size that needs no padding, where the network is."""
    size = network.padded_size(_PROBE_SIDE, _PROBE_SIDE)
    noise = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(network.mean.device)


def _are_copies(committee: Committee, serving: SegmentationNetwork) -> bool:
    """Whether all members give the same logits for an image of noise, to the last bit."""
    probe = _probe(serving)
    with torch.no_grad(), autocast(probe.device):
        opinions, _ = committee.opinions(serving, probe, features=False)
        first = next(opinions)
        return all(torch.equal(first, other) for other in opinions)
