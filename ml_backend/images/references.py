"""Image references: what a task's data holds, and what is asked of Label Studio for it.

A reference stays as it was imported wherever it is stored: held-out labels and follow-ups are told by it. Files in
cloud storage (`s3://…`) are given out by Label Studio, for one project: only a storage that is connected to it knows
the way. What is fetched, and what the cache knows an image by, is therefore the project's address for the file; two
projects may reach other things, or nothing, under the same URI.
"""

from __future__ import annotations

import base64
import binascii
import re

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
"""What the storages of Label Studio 1.23.2 give out."""

_SHOWN_LENGTH = 120
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_USER = re.compile(r"(//)[^/?#]*@")
# What Label Studio makes of a cloud URI when it shows a task; `presign` is the older name.
_RESOLVED = re.compile(
    r"(?:https?://[^/?#]+)?(?:/[^?#]*)?/(?:tasks|projects)/[0-9]+/(?:resolve|presign)/?\?fileuri=([A-Za-z0-9_=-]+)"
)


def scheme_of(reference: str) -> str | None:
    """Return the scheme in lower case; None of a path."""
    found = _SCHEME.match(reference)
    return found.group(1).lower() if found else None


def is_cloud(reference: str) -> bool:
    """Whether a reference names a file in cloud storage."""
    return scheme_of(reference) in CLOUD_SCHEMES and "://" in reference


def as_imported(reference: str) -> str:
    """Return the cloud URI of a reference that Label Studio has resolved; any other as it is."""
    found = _RESOLVED.fullmatch(reference)
    if found is None:
        return reference
    try:
        uri = base64.urlsafe_b64decode(found.group(1)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return reference
    return uri if is_cloud(uri) else reference


def in_project(reference: str, project_id: int) -> str:
    """Return what is fetched for a reference of a project's task: for cloud files, the host's path to them."""
    uri = as_imported(reference)
    if not is_cloud(uri):
        return reference
    return f"/projects/{project_id}/resolve/?fileuri={base64.urlsafe_b64encode(uri.encode()).decode()}"


def shown_reference(reference: str) -> str:
    """Return a reference as messages may show it: shortened, without data, password, or a query (it may be signed)."""
    reference = as_imported(reference)
    if reference[:5].lower() == "data:":
        return f"{reference[:30]}…"
    text = reference
    if scheme_of(reference) or reference.startswith("//"):
        text = _USER.sub(r"\1", reference if is_cloud(reference) else re.split(r"[?#]", reference)[0])
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
