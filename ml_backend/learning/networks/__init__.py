"""Segmentation networks: configured names in, networks that take images of any size out.

smp and timm take seconds to import, so they are imported when the first network is built.
"""

from ml_backend.learning.networks.build import build, check_network, load_network
from ml_backend.learning.networks.devices import (
    Device,
    autocast,
    device_type,
    discover,
    is_out_of_memory,
    moved,
    place,
    resolve_device,
)
from ml_backend.learning.networks.encoder_maps import MapFolder, MapMemory, MapStore
from ml_backend.learning.networks.geometry import fit_size, labels_at, pad_to, resize_image
from ml_backend.learning.networks.memory import working_bytes
from ml_backend.learning.networks.segmentation import SegmentationNetwork

__all__ = [
    "Device",
    "MapFolder",
    "MapMemory",
    "MapStore",
    "SegmentationNetwork",
    "autocast",
    "build",
    "check_network",
    "device_type",
    "discover",
    "fit_size",
    "is_out_of_memory",
    "labels_at",
    "load_network",
    "moved",
    "pad_to",
    "place",
    "resize_image",
    "resolve_device",
    "working_bytes",
]
