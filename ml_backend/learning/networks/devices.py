"""Where networks run: the CPU, or CUDA devices with bfloat16; all with channels-last memory."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ml_backend.errors import ConfigurationError
from ml_backend.settings import ALL_DEVICES

_SHORTAGES = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    # of oneDNN, which computes convolutions on CPUs (its error for an unknown operation ends in "descriptor for")
    "could not create a primitive\n",
    "could not create a memory object",
)


@dataclass(frozen=True)
class Device:
    """A device of this machine.

    Attributes:
        name: cpu or cuda:N, as torch takes it.
        key: the same for all processes that share the device, and for no other device: the GPU's own number, wherever
            CUDA_VISIBLE_DEVICES puts it; of a CPU, the machine.
    """

    name: str
    key: str


def discover(name: str) -> tuple[Device, ...]:
    """Return the devices that `name` means: one, as `resolve_device` has it, or with cuda:all those of this machine.

    Raises:
        ConfigurationError: as `resolve_device`.
    """
    first = resolve_device(name)
    count = torch.cuda.device_count() if name == ALL_DEVICES else 0
    return tuple(map(_described, [f"cuda:{index}" for index in range(count)] or [str(first)]))


def _described(name: str) -> Device:
    machine = socket.gethostname()
    if not name.startswith("cuda"):
        return Device(name, f"{machine} {name}")
    own = getattr(torch.cuda.get_device_properties(name), "uuid", None)  # not of every build
    return Device(name, f"GPU {own}" if own else f"{machine} {name}")


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means: auto (CUDA where available), cpu, cuda, cuda:N or of cuda:all the first.

    Raises:
        ConfigurationError: another name, or a device that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = ["cpu", *(f"cuda:{index}" for index in range(count))]
    wanted = {"auto": "cuda:0" if count else "cpu", "cuda": "cuda:0", ALL_DEVICES: "cuda:0"}.get(name, name)
    if wanted not in available:
        raise ConfigurationError(
            f"NEXTMASK_DEVICE = {name!r} is not available here. Set auto or one of: {', '.join(available)}."
        )
    return torch.device(wanted)


def device_type(name: str) -> Literal["cpu", "cuda"]:
    """Return the kind of the device that `name` means, whether this machine has it or not."""
    on_gpu = name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())
    return "cuda" if on_gpu else "cpu"


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device, without waiting for what a GPU still computes."""
    waits = device.type != "cuda" or tensor.device.type == "cuda"  # or is there already
    return tensor.to(device) if waits else tensor.pin_memory().to(device, non_blocking=True)


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to its device, in the memory layout that is fastest there; returns the same module.

    On a CPU a step takes about three quarters of the time that it takes in torch's usual layout (docs/benchmarks.md).
    """
    return network.to(device).to(memory_format=torch.channels_last)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a GPU, of memory pinned for it, or on the CPU."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = f"{error}\n".lower()
    return isinstance(error, RuntimeError) and any(shortage in text for shortage in _SHORTAGES)


def autocast(device: torch.device) -> torch.autocast:
    """Return a context of mixed precision: bfloat16 on CUDA devices that compute with it, nothing elsewhere."""
    enabled = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
