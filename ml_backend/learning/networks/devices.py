"""Where networks run: the CPU, or a CUDA device with bfloat16; both with channels-last memory."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ml_backend.errors import ConfigurationError

_SHORTAGES = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    # of oneDNN, which computes convolutions on CPUs (its error for an unknown operation ends in "descriptor for")
    "could not create a primitive\n",
    "could not create a memory object",
)


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means: auto (CUDA where available), cpu, cuda or cuda:N.

    Raises:
        ConfigurationError: another name, or a device that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = ["cpu", *(f"cuda:{index}" for index in range(count))]
    wanted = {"auto": "cuda:0" if count else "cpu", "cuda": "cuda:0"}.get(name, name)
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
