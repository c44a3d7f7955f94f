"""Whether MODEL_DIR can be written, and has room for the next model version and the images; and so with a bucket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ml_backend.doctor.findings import Finding, ok, problem, warning
from ml_backend.errors import FilesUnavailable
from ml_backend.projects.folders import try_out
from ml_backend.settings import Settings
from ml_backend.system.disk import free_bytes

LEAST_FREE: Final = 200_000_000
"""Bytes that a first version, its training and the state database take."""


def check_folder(settings: Settings) -> Iterator[Finding]:
    """Say whether MODEL_DIR can be written, and has room for what is to come."""
    is_bucket = not isinstance(settings.model_dir, Path)
    if is_bucket:
        yield _check_bucket(settings)
    folder, name = settings.local_folder, _name(settings)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        yield problem(
            "folder",
            f"{name}: {there} is a file",
            "There is no place for the state.",
            "Set MODEL_DIR to a folder"
            if name.startswith("MODEL_DIR")
            else f"Start nextmask elsewhere, or: rm {there}",
        )
        return
    owner = there.stat().st_uid
    mine = os.geteuid()
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield _unwritable(folder, name, there, error)
        return
    if owner != mine:
        message = f"{name} belongs to user {owner}, this is user {mine}"
        why = "One user may not be able to change the other's files."
        yield warning("folder", message, why, f"Run all commands as user {owner}, or: chown -R {mine} {folder}")
    yield from _check_room(settings, there)


def _name(settings: Settings) -> str:
    """Return how the folder of what stays on this machine is called."""
    if isinstance(settings.model_dir, Path):
        return f"MODEL_DIR = {settings.model_dir}"
    return f"The folder {settings.local_folder}, which a bucket needs beside it,"


def _check_bucket(settings: Settings) -> Finding:
    """Say whether the bucket in MODEL_DIR can be written, listed and read."""
    bucket = f"MODEL_DIR = {settings.model_dir}"
    try:
        try_out(settings)
    except FilesUnavailable as error:
        return problem("bucket", error.cause, "Nothing can be trained, and no label read.", error.remedy)
    return ok("bucket", f"{bucket} can be written, listed and read")


def _unwritable(folder: Path, name: str, there: Path, error: OSError) -> Finding:
    owner, mine = there.stat().st_uid, os.geteuid()
    message = f"{name} cannot be written: {error.strerror} (owner: user {owner}; this is user {mine})"
    why = "Nothing can be trained, and no state kept."
    files = os.statvfs(there)
    if files.f_files and not files.f_favail:
        return problem("disk", f"{message}; no file can be made: all {files.f_files} inodes of its disk are used", why,
                       "Delete files, or set MODEL_DIR to a folder on another disk")  # fmt: skip
    if free_bytes(there) < LEAST_FREE:
        remedy = "Free some space, or set MODEL_DIR to a folder on another disk"
        return problem("disk", f"{message}; {_size(free_bytes(there))} are free", why, remedy)
    return problem("folder", message, why, f"chown -R {mine} {folder}, or set MODEL_DIR to a folder of your own")


def _check_room(settings: Settings, there: Path) -> Iterator[Finding]:
    folder, free = settings.local_folder, free_bytes(there)
    need = max(
        LEAST_FREE, settings.minimum_free_bytes, 2 * max(map(_bytes_in, folder.glob("projects/*/model/*")), default=0)
    )
    cached = sum(map(_bytes_in, (folder / "images", folder / "files", settings.maps_folder)))
    growth = max(0, settings.image_cache_bytes - cached)
    shown = f"{_name(settings).rstrip(',')}: {_size(free)} free"
    cure = "Free some space, or set MODEL_DIR to a folder on another disk"
    if free < need:
        message = f"{shown}; the next model version takes up to {_size(need)}"
        yield problem("disk", message, "The next training fails.", cure)
    elif free < need + growth:
        message = f"{shown}; the image cache ({_size(cached)} now) may grow to {_size(settings.image_cache_bytes)}"
        why = "Once the disk is full, trainings fail."
        yield warning("disk", message, why, f"Lower NEXTMASK_IMAGE_CACHE_BYTES to {int(cached + (free - need) / 2)}")
    else:
        made = "" if folder.exists() else ", created at the first start"
        yield ok("disk", f"{shown}{made}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(root, name).lstat().st_size
            except OSError:  # deleted meanwhile
                continue
    return total


def _size(count: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count:.0f} bytes"
