"""Sums over the members of a committee, taken in a single pass, and the check that its members differ.

A committee comes from dropout at prediction (Gal and Ghahramani, "Dropout as a Bayesian approximation", 2016) or
from networks trained on resamples of the labels (an ensemble). Twenty members of 19 classes at 1024x2048 pixels
are 3 GiB: they are read tile by tile and once, and never copied as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

TILE = 2**18
"""Numbers (B,C,h,W) of a member in a tile: the few sums that are kept of it fit a processor's cache."""


class CommitteeSums:
    """Sums over the members of a tile (M,B,C,h,W), those that the measures wanted are made of.

    What is of the mean is summed in float64. What is of the single members is worked out in the precision of the tile,
    single at least: logarithms take most of the time, and in double precision four times as long.

    Attributes:
        members, classes: M and C.
        mean: (C,B,h,W) float64, the mean over the members.
        votes: (C,B,h,W), how many members find a class the most probable, the first of them when they tie.
        entropy_of_members: (B,h,W), the mean over the members of -Σ p log p, in nats.
    """

    mean: Tensor
    votes: Tensor
    entropy_of_members: Tensor

    def __init__(self, tile: Tensor, measures: Collection[str]) -> None:
        self.members, _, self.classes, _, _ = tile.shape
        working = torch.float64 if tile.dtype == torch.float64 else torch.float32
        first = tile[0].transpose(0, 1).to(working, copy=True).contiguous()  # (C,B,h,W)
        self._member, self._scratch = torch.empty_like(first), torch.empty_like(first)
        self.mean = torch.zeros_like(first, dtype=torch.float64)
        if "vote_entropy" in measures:
            self.votes = torch.zeros_like(first)
        if "bald" in measures:
            self._entropies = torch.zeros_like(first)
        if not {"std", "var"}.isdisjoint(measures):
            # Deviations from the first member, not raw squares: nothing cancels, and equal members deviate by 0.
            self._shift, self._squares = torch.zeros_like(first), torch.zeros_like(first)
        for member in tile:
            self._add(self._member.copy_(member.transpose(0, 1)), first)
        self.mean /= self.members
        if "bald" in measures:
            self.entropy_of_members = _sum_of_planes(self._entropies) / self.members

    def spread(self, *, root: bool) -> Tensor:
        """Return the variance over the members, or its root, averaged over the classes: (B,h,W)."""
        variance = (self._squares / self.members - (self._shift / self.members) ** 2).clamp_(min=0)  # (C,B,h,W)
        return _sum_of_planes(variance.sqrt_() if root else variance) / self.classes

    def _add(self, member: Tensor, first: Tensor) -> None:
        """Add a member (C,B,h,W) to the sums; what is computed on the way goes to memory that is there already."""
        self.mean += member
        if hasattr(self, "votes"):
            self.votes.scatter_add_(0, _most_probable(member)[None], self.votes.new_ones(1).expand_as(self.votes[:1]))
        if hasattr(self, "_entropies"):
            logarithm = torch.clamp(member, min=torch.finfo(member.dtype).tiny, out=self._scratch).log_()
            self._entropies.addcmul_(logarithm, member, value=-1)
        if hasattr(self, "_shift"):
            deviation = torch.sub(member, first, out=self._scratch)
            self._shift += deviation
            self._squares.addcmul_(deviation, deviation)


def row_tiles(probabilities: Tensor) -> Iterator[slice]:
    """Cut the rows of (M,B,C,H,W) into tiles of bounded size, of a row at least."""
    _, images, classes, height, width = probabilities.shape
    rows = max(1, TILE // max(1, images * classes * width))
    return (slice(top, top + rows) for top in range(0, height, rows))


def check_committee(probabilities: Tensor, valid: Tensor) -> None:
    """Check that (M,B,C,H,W) are the words of M >= 2 members that differ at a valid pixel (B,H,W).

    Members that say the same to the last bit are copies: dropout is switched off at prediction, or the network has
    none, as most decoders of segmentation networks. All disagreement would be 0, and the ranking the order of the
    ids, without a word. Where every member is wholly certain (0 and 1), equal members prove nothing.

    Raises:
        ValueError: a single member, or members that are copies.
    """
    members = probabilities.shape[0]
    if members < 2:
        raise ValueError(f"Batch.probabilities: expected a committee of M >= 2 members, received M = {members}")
    undecided = False
    for plane in probabilities.unbind(dim=2):  # (M,B,H,W)
        if ((plane[1:] != plane[:1]) & valid).any():
            return
        undecided |= bool(((plane[0] > 0) & (plane[0] < 1) & valid).any())
    if undecided:
        raise ValueError(
            f"Batch.probabilities: expected a committee of members that differ, received {members} identical ones: "
            "dropout has no effect; predict with it switched on, by a network built and trained with it, "
            "or with an ensemble"
        )


def surprise(probabilities: Tensor) -> Tensor:
    """Return -p log p in nats, 0 for p = 0; several times as fast as `torch.special.entr`."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log_().mul_(probabilities).neg_()


def _most_probable(member: Tensor) -> Tensor:
    """Return the first of the most probable classes: (C,B,h,W) -> (B,h,W) int64."""
    best = member[0].clone()
    index = torch.zeros_like(best, dtype=torch.int16)  # written C times: a narrow type is written faster
    for number, plane in enumerate(member[1:], start=1):
        index.masked_fill_(plane > best, number)
        torch.maximum(best, plane, out=best)
    return index.long()


def _sum_of_planes(planes: Tensor) -> Tensor:
    """Sum over the first axis in its order, whatever the size of the planes: (C,B,h,W) -> (B,h,W)."""
    total = planes[0].clone()
    for plane in planes[1:]:
        total += plane
    return total
