"""What the machine can compute with: PyTorch and its packages, GPU, encoder weights, strategy.

`probe` asks in a process of its own; the checks are functions of its answers.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from ml_backend.doctor.findings import Finding, note, ok, problem, warning
from ml_backend.doctor.running import Missing
from ml_backend.settings import ALL_DEVICES, Settings

Json = Mapping[str, Any]

PACKAGES = ("torch", "torchvision", "timm", "segmentation_models_pytorch")
PROBED = ("strategy", "strategy_options", "architecture", "encoder", "encoder_weights", "network_options", "device")
_LOW_MEMORY = 2_000_000_000
_INSTALL = (
    "Install nextmask anew into an environment of its own: python -m venv .venv && .venv/bin/pip install . (in a clone "
    "of the repository)"
)
_CUDA_BUILD = "Install a build of PyTorch for CUDA (https://pytorch.org/get-started/locally/)"


def probe(settings: Settings, seconds: float, environment: Mapping[str, str] | None = None) -> dict[str, Json]:
    """Run the program `ml_backend.doctor.probe`.

    Args:
        settings: whose strategy, network and weights are tried.
        seconds: after which the program is stopped.
        environment: variables of the program beside those of this process.

    Returns:
        Its answers, part -> {"value": …} or {"error": …, "kind": …}; parts that it did not get to are missing, and
        "ended" says why: with which code the program ended, or "" and after how many seconds it was stopped.
    """
    asked = json.dumps({name: getattr(settings, name) for name in PROBED})
    command = [sys.executable, "-m", "ml_backend.doctor.probe", asked]
    try:
        variables = None if environment is None else {**os.environ, **environment}
        done = subprocess.run(  # noqa: S603 (our own interpreter)
            command, capture_output=True, timeout=seconds, check=False, env=variables
        )
        output, ended = done.stdout, "" if done.returncode == 0 else f"it ended with code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", ""
    answers: dict[str, Json] = {}
    for line in output.decode(errors="replace").splitlines(keepends=True):
        if line.startswith('{"part"') and line.endswith("\n"):  # a package may write to standard output, too
            answer = json.loads(line)
            answers[answer["part"]] = answer
    return answers if "weights" in answers else answers | {"ended": {"error": ended, "seconds": seconds}}


def check_packages(answers: Mapping[str, Json]) -> Iterator[Finding]:
    """Say which packages cannot be imported."""
    versions = {name: _version(name) for name in PACKAGES}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    broken = [name for name in PACKAGES if "error" in answers.get(name, {})]
    for name in broken:
        answer = answers[name]
        message = f"{name} {versions[name]} cannot be imported: {answer['kind']}: {answer['error']}"
        why = "nextmask can neither train nor predict. torch and torchvision must be of releases that fit each other."
        yield problem("packages", message, why, f"{_INSTALL}. Versions that were tested: requirements/constraints.txt")
    if "ended" in answers:
        part = next((name for name in (*PACKAGES, "strategy", "network", "weights") if name not in answers), "the end")
        see = 'python -c "import torch; print(torch.cuda.is_available())"'
        if fault := answers["ended"]["error"]:
            message = f"The test of PyTorch and its devices stopped before {part}: {fault}"
            yield problem("packages", message, "A package crashes; a training would, too.", f"See what happens: {see}")
        else:
            message = (
                f"PyTorch and its packages were still being tried ({part}) after {answers['ended']['seconds']:.0f} s"
            )
            why = "The machine is slow or busy, or a driver hangs: which of them is not known."
            remedy = f"Give it more time: nextmask doctor --timeout 120. If it hangs then, too: {see}"
            yield Finding("packages", "skipped", message, why, remedy)
    elif not broken:
        yield ok("packages", f"Python {platform.python_version()}, {shown}")


def check_device(answers: Mapping[str, Json], wanted: str) -> Iterator[Finding]:
    """Say whether there is a GPU, and whether torch can use it.

    Args:
        answers: of `probe`.
        wanted: NEXTMASK_DEVICE.

    Raises:
        Missing: torch did not say.
    """
    answer = answers.get("devices", {})
    if "value" not in answer:
        raise Missing("PyTorch could not be asked for devices")
    torch, devices = answers["torch"]["value"], answer["value"]
    names = [f"cuda:{index}" for index in range(len(devices["usable"]))]
    must_be_gpu = wanted.startswith("cuda")
    several = {"cuda", ALL_DEVICES} if names else set[str]()
    if wanted not in {"auto", "cpu", *several, *names}:
        message = f"NEXTMASK_DEVICE = {wanted!r} is not available here; {_absence(torch, devices)}"
        remedy = f"Set NEXTMASK_DEVICE=auto, or one of: {', '.join(['cpu', *names])}. {_remedy(torch, devices)}".strip()
        yield problem("device", message, "Every training and every prediction fails.", remedy)
    elif not names:
        message = f"No GPU is used: {_absence(torch, devices)}"
        if _has_hardware(devices) and wanted != "cpu":
            yield warning("device", message, "Training on the CPU takes many times as long.", _remedy(torch, devices))
        else:
            yield note("device", f"{message}. Networks run on the CPU")
    for name, device in zip(names, devices["usable"], strict=True):
        yield from _check_gpu(name, device, devices["built_for"], must_be_gpu or name == "cuda:0")


def _check_gpu(name: str, device: Json, built_for: list[str], used: bool) -> Iterator[Finding]:
    shown = f"{name}, {device['name']}, compute capability {device['capability']}"
    if "error" in device:
        message = f"{shown} cannot be computed on: {device['error']}"
        why = f"This PyTorch is built for {', '.join(built_for) or 'no GPU'}; training and prediction fail on others."
        remedy = f"Set NEXTMASK_DEVICE=cpu or another device; or: {_CUDA_BUILD} that supports it"
        yield (problem if used else warning)("device", message, why, remedy)
        return
    shown += f", {_gigabytes(device['free'])} of {_gigabytes(device['total'])} free"
    if device["free"] < _LOW_MEMORY:
        why = "Another program holds its memory; a training may run out of it."
        yield warning("device", shown, why, "See which one: nvidia-smi. Or set NEXTMASK_DEVICE to another device")
    else:
        yield ok("device", shown)


def _has_hardware(devices: Json) -> bool:
    return bool(devices["driver"] or devices["nodes"])


def _absence(torch: Json, devices: Json) -> str:
    if not _has_hardware(devices):
        return "this machine has no NVIDIA device, or no driver for it"
    if torch["cuda"] is None:
        return f"there is an NVIDIA device, but PyTorch {torch['version']} is built without CUDA"
    reason = f": {devices['warnings'][0]}" if devices["warnings"] else ""
    return f"there is an NVIDIA device that PyTorch {torch['version']} (CUDA {torch['cuda']}) cannot use{reason}"


def _remedy(torch: Json, devices: Json) -> str:
    if not _has_hardware(devices):
        return ""
    if torch["cuda"] is None:
        return f"{_CUDA_BUILD}, or set NEXTMASK_DEVICE=cpu"
    return (
        f"Get a newer NVIDIA driver (nvidia-smi shows which CUDA it supports; this PyTorch needs {torch['cuda']}), or "
        "install a build of PyTorch for an older CUDA, or set NEXTMASK_DEVICE=cpu"
    )


def check_network(answers: Mapping[str, Json], settings: Settings, check: str = "network") -> Iterator[Finding]:
    """Say whether strategy, network and weights of the settings can be had.

    Raises:
        Missing: the packages for it do not work.
    """
    for part in ("strategy", "network", "weights"):
        answer = answers.get(part)
        if answer is None or ("error" in answer and answer["kind"] != "ConfigurationError"):
            if any("error" in answers.get(name, {}) for name in PACKAGES) or answer is None:
                raise Missing("the packages that it needs do not work")
            why = "Nothing can be trained."
            yield problem(check, f"{part}: {answer['kind']}: {answer['error']}", why, _INSTALL)
            return
        if "error" in answer:
            why = "Training and ranking fail with these settings."
            yield problem(check, answer["error"], why, "Correct the settings: docs/configuration.md")
            return
    yield from _check_weights(answers["weights"]["value"], settings, check, answers["network"]["value"])


def _check_weights(weights: Json, settings: Settings, check: str, architecture: str) -> Iterator[Finding]:
    name = f"encoder {settings.encoder}, weights {settings.encoder_weights}"
    if weights["here"]:
        yield ok(check, f"{architecture} on {name}; strategy {settings.strategy}")
    elif weights["reachable"]:
        yield note(check, f"{name} are not on this machine yet; the first training fetches them")
    else:
        message = weights["error"].partition(" Without internet")[0]
        why = "They are not on this machine, and the site they come from does not answer: the first training fails."
        remedy = (
            "Use the weights that need no internet: NEXTMASK_ENCODER=tu-tf_efficientnet_lite0 "
            "NEXTMASK_ENCODER_WEIGHTS=bundled; or let this machine reach https://huggingface.co"
        )
        yield problem(check, message, why, remedy)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
