"""The network that a training starts from: with the parent's weights where they fit, initial weights elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.networks import MapFolder, MapMemory, MapStore, SegmentationNetwork, build, load_network
from ml_backend.learning.training.job import Job

MAPS_IN_MEMORY = 1 << 29
"""Bytes of maps that a training keeps in memory, beside its folder."""


def initial_network(
    job: Job, checkpoints: Checkpoints, parent: Version | None, maps: MapStore | None = None
) -> SegmentationNetwork:
    """Build the job's network, with the parent's weights when the job asks for them and the architecture is the same.

    Classes that stay keep their rows of the head, by name; rows of new classes are drawn.

    Args:
        maps: keeps the maps of an encoder that is not trained.

    Raises:
        ConfigurationError: the network cannot be built as configured.
        CheckpointError: the parent's weights are damaged.
    """
    network = _initial(job, checkpoints, parent)
    return network if job.train_encoder else network.freeze_encoder(maps)


def kept_maps(job: Job) -> MapStore:
    """Return what keeps the maps of encoders for a job: its memory, and the job's folder."""
    return MapMemory(MAPS_IN_MEMORY, MapFolder(job.maps_folder, job.maps_bytes) if job.maps_folder else None)


def _initial(job: Job, checkpoints: Checkpoints, parent: Version | None) -> SegmentationNetwork:
    if parent is None or not continues(job, parent):
        return _build(job, job.encoder_weights)
    state = checkpoints.load_state(parent)
    network = _build(job, "none")
    if parent.record.classes == job.classes:
        network.load_state_dict(state)
    else:
        _transfer(network, state, parent.record.classes, job)
    return network


def continues(job: Job, parent: Version) -> bool:
    """Whether the training starts from the parent's weights: not where these have learned what is to measure them."""
    settings = parent.record.settings
    before = (settings["architecture"], settings["encoder"], settings.get("network_options", {}))
    is_same = before == (job.architecture, job.encoder, job.network_options)
    held_out = {task for item in job.items if item.held_out for task in item.labels}
    return is_same and job.train_from == "last" and parent.record.trained_on.isdisjoint(held_out)


def rebuild(checkpoints: Checkpoints, version: Version, maps: MapStore | None = None) -> SegmentationNetwork:
    """Build the network of a version, as it was trained, on the CPU.

    Args:
        maps: keeps the maps of an encoder that was not trained.

    Raises:
        KeyError: its record lacks a setting.
        CheckpointError: its weights are damaged, or another network's.
    """
    record = version.record
    return load_network(record.settings, len(record.classes), checkpoints.load_state(version), maps)


def _build(job: Job, encoder_weights: str, classes: int | None = None) -> SegmentationNetwork:
    return build(
        architecture=job.architecture,
        encoder=job.encoder,
        encoder_weights=encoder_weights,
        classes=classes or len(job.classes),
        dropout=job.dropout,
        options=job.network_options,
    )


def _transfer(network: SegmentationNetwork, state: Mapping[str, Tensor], before: Sequence[str], job: Job) -> None:
    """Copy the parent's weights in place; of tensors whose size depends on the classes, only the classes that stay."""
    stay = [name for name in job.classes if name in before]
    old, new = ([names.index(name) for name in stay] for names in (list(before), list(job.classes)))
    axes = _class_axes(job)
    with torch.no_grad():
        for name, own in network.state_dict().items():
            if axes[name]:
                own[_block(own, axes[name], new)] = state[name][_block(state[name], axes[name], old)]
            else:
                own.copy_(state[name])


def _class_axes(job: Job) -> dict[str, list[int]]:
    """Find, for any architecture, the axes that follow the number of classes: build it with two and with three."""
    two, three = (_build(job, "none", classes).state_dict() for classes in (2, 3))
    return {
        name: [axis for axis in range(tensor.ndim) if tensor.shape[axis] != three[name].shape[axis]]
        for name, tensor in two.items()
    }


def _block(tensor: Tensor, axes: Sequence[int], chosen: Sequence[int]) -> tuple[Tensor, ...]:
    """Index of the entries that belong to the `chosen` classes on each of `axes`."""
    every = [torch.tensor(chosen if axis in axes else range(size)) for axis, size in enumerate(tensor.shape)]
    return torch.meshgrid(*every, indexing="ij")
