"""Whether the images of a project's tasks can be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ml_backend.annotations.label_map import label_map_of
from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.doctor.project.facts import Facts
from ml_backend.doctor.running import Missing
from ml_backend.errors import ImageError, LabelConfigError
from ml_backend.images.data_uris import data_bytes
from ml_backend.images.formats import SNIFFED_BYTES, kind_of
from ml_backend.images.references import in_project, is_data, shown_reference
from ml_backend.label_studio import LabelStudio
from ml_backend.settings import Settings

_SAMPLE: Final = 3
"""Images that are fetched, at most."""


def check_images(client: LabelStudio, facts: Facts) -> Iterator[Finding]:
    """Fetch the beginning of a few images, as the worker would.

    Raises:
        Missing: the project has no task, or its labelling configuration names no image.
    """
    settings = facts.tested
    try:
        label_map = label_map_of(str(facts.project.get("label_config") or ""), settings)
    except LabelConfigError:
        raise Missing("the labelling configuration names no image") from None
    # The first and the newest: what was imported last is where a storage or a bucket has changed.
    tasks = client.some_tasks(facts.id, _SAMPLE)
    if not tasks:
        raise Missing("the project has no task yet")
    faults = []
    for task in tasks:
        reference = label_map.image_reference(task.get("data") or {})
        try:
            if reference is None:
                raise ImageError(f"The task's data has no image under {label_map.image_variable!r}.")
            _fetch_beginning(client, in_project(reference, facts.id))
        except ImageError as error:
            faults.append((task["id"], reference or "", str(error)))
    if not faults:
        yield ok("images", f"{len(tasks)} of {facts.project.get('task_number')} were fetched")
        return
    number, reference, reason = faults[0]
    message = f"{len(faults)} of {len(tasks)} images that were tried cannot be fetched; task {number}: {reason}"
    why = "Tasks without an image are left out of training and ranking."
    yield problem("images", message, why, _image_remedy(settings, facts.id, reference, reason))


def _fetch_beginning(client: LabelStudio, reference: str) -> None:
    if is_data(reference):
        data_bytes(reference)
        return
    with client.fetch(reference) as chunks:
        start = b""
        for chunk in chunks:
            start += chunk
            if len(start) >= SNIFFED_BYTES:
                break
    kind_of(start[:SNIFFED_BYTES], shown_reference(reference))


def _image_remedy(settings: Settings, project_id: int, reference: str, reason: str) -> str:
    storage = f"{settings.effective_label_studio_public_url}/projects/{project_id}/settings/storage"
    path = reference.partition("?")[0]
    if "NEXTMASK_LABEL_STUDIO_PUBLIC_URL" in reason:
        return "If it is Label Studio, set NEXTMASK_LABEL_STUDIO_PUBLIC_URL to its address in the browser"
    # Label Studio's own address, or a path prefix of it, may stand before its paths.
    if "/data/local-files" in path:
        return f"Add a Local Files storage to this project whose path is that folder or one above it: {storage}"
    if "/data/upload/" in path:
        return "Upload the images again: the files are gone from Label Studio's data folder"
    if reference.startswith(("http://", "https://")):
        return f"See what nextmask's machine gets: curl -I '{path}'; credentials go to Label Studio only"
    return f"See whether the storage and its credentials are right, and press Sync: {storage}"
