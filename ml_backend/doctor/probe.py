"""A program that says which packages, devices and networks work here: `python -m ml_backend.doctor.probe JSON`.

A process of its own, because what it looks at may crash, or hang in a driver. Each part is one line of JSON that is
written as soon as it is known, so what hangs takes only the parts behind it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Json = dict[str, Any]

_HUB = "https://huggingface.co"
_REACH_SECONDS = 5.0
_DRIVER = Path("/proc/driver/nvidia/version")


def main(wanted: Json) -> None:
    """Write one line per part.

    Args:
        wanted: the settings strategy, strategy_options, architecture, encoder, encoder_weights, network_options,
            device.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is not there is not fetched: that may be gigabytes
    parts: dict[str, Callable[[], Any]] = {
        "torch": _torch,
        "devices": _devices,
        "torchvision": lambda: importlib.import_module("torchvision").__version__,
        "timm": lambda: importlib.import_module("timm").__version__,
        "segmentation_models_pytorch": lambda: importlib.import_module("segmentation_models_pytorch").__version__,
        "strategy": lambda: _strategy(wanted),
        "network": lambda: _network(wanted),
        "weights": lambda: _weights(wanted),
    }
    for name, part in parts.items():
        try:
            answer = {"part": name, "value": part()}
        except Exception as error:  # noqa: BLE001 (whatever a package raises when it does not fit is the answer)
            answer = {"part": name, "error": str(error)[:2000], "kind": type(error).__name__}
        print(json.dumps(answer), flush=True)  # noqa: T201 (this is a program, and its output an answer)
    os._exit(0)  # what torch does at the end of a process is of no use here, and may take long


def _torch() -> Json:
    import torch

    return {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}


def _devices() -> Json:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "driver": _DRIVER.read_text().splitlines()[0] if _DRIVER.exists() else "",
        "nodes": sorted(node.name for node in Path("/dev").glob("nvidia[0-9]*")),
        "warnings": [str(warning.message)[:500] for warning in caught],
        "built_for": list(torch.cuda.get_arch_list()),
        "usable": [_device(index) for index in range(count)],
    }


def _device(index: int) -> Json:
    """Compute something there: a device that is listed may still be too old for the kernels of this build."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    device: Json = {"name": properties.name, "capability": f"{properties.major}.{properties.minor}"}
    try:
        layer = torch.nn.Conv2d(3, 8, 3).to(f"cuda:{index}")
        layer(torch.ones(1, 3, 16, 16, device=f"cuda:{index}")).sum().item()
        device["free"], device["total"] = torch.cuda.mem_get_info(index)
    except Exception as error:  # noqa: BLE001 (whatever the driver says)
        device["error"] = str(error).splitlines()[0][:300]
    return device


def _strategy(wanted: Json) -> str:
    from ml_backend.learning.ranking import make_strategy

    return make_strategy(wanted["strategy"], wanted["strategy_options"]).name


def _network(wanted: Json) -> str:
    """Return the architecture, which settings may leave to the device."""
    from ml_backend.learning.networks import check_network
    from ml_backend.learning.networks.recipe import network_of

    architecture, options = network_of(SimpleNamespace(**wanted))
    check_network(architecture, wanted["encoder"], options)
    return architecture


def _weights(wanted: Json) -> Json:
    """Build the network, as a first training would; weights that would have to be fetched are asked after."""
    from ml_backend.learning.networks import build
    from ml_backend.learning.networks.recipe import network_of
    from ml_backend.learning.networks.weights import BUNDLED, NONE, check_weights

    weights = wanted["encoder_weights"]
    check_weights(wanted["encoder"], weights)
    architecture, options = network_of(SimpleNamespace(**wanted))
    try:
        build(architecture, wanted["encoder"], weights, classes=2, dropout=0.0, options=options)
    except Exception as error:
        if weights in (BUNDLED, NONE):
            raise
        return {"here": False, "reachable": _reachable(), "error": str(error)[:300]}
    return {"here": True}


def _reachable() -> bool:
    import requests

    try:
        requests.head(_HUB, timeout=_REACH_SECONDS)
    except requests.RequestException:
        return False
    return True


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
