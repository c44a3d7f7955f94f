"""Image references: the address of an image in a task's data, and the address that it is fetched from.

The database keeps references as they were imported, since they tell held-out labels and follow-up tasks. Label Studio
gives out files in cloud storage (`s3://…`) by project: the same URI may lead to different files, or to none, in two
projects. Such files are therefore fetched, and cached, by the project's address for them.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
"""Schemes of the cloud storages of Label Studio 1.23.2."""

_SHOWN_LENGTH = 120
_LOCAL = re.compile(r"/data/local-files/?\?(?:[^#]*&)?d=([^&#]*)")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the names of uploaded files."""
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_BREAKS = re.compile(r"[\t\n\r]")
_USER = re.compile(r"(//)[^/?#]*@")
# Label Studio puts such an address in place of a cloud URI when it shows a task; `presign` is the older name.
_RESOLVED = re.compile(
    r"(?:https?://[^/?#]+)?(?:/[^?#]*)?/(?:tasks|projects)/[0-9]+/(?:resolve|presign)/?\?fileuri=([A-Za-z0-9_=-]+)"
)


def scheme_of(reference: str) -> str | None:
    """Return the scheme in lower case; None for a path."""
    match = _SCHEME.match(reference)
    return match.group(1).lower() if match else None


def is_data(reference: str) -> bool:
    """Whether a reference is the image itself: a data: URI."""
    return reference.lstrip()[:5].lower() == "data:"


def without_breaks(reference: str) -> str:
    """Return a reference without what browsers leave out of addresses: white space around them, tabs and line breaks.

    Names in cloud storage, which browsers never see, stay as they are.
    """
    return reference if is_cloud(reference) else _BREAKS.sub("", reference.strip())


def is_cloud(reference: str) -> bool:
    """Whether a reference names a file in cloud storage."""
    return scheme_of(reference) in CLOUD_SCHEMES and "://" in reference


def as_imported(reference: str) -> str:
    """Return the cloud URI of a reference that Label Studio has resolved; other references as they are."""
    match = _RESOLVED.fullmatch(reference)
    if match is None:
        return reference
    try:
        uri = base64.urlsafe_b64decode(match.group(1)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return reference
    return uri if is_cloud(uri) else reference


def in_project(reference: str, project_id: int) -> str:
    """Return the address that a reference of a project's task is fetched from: for cloud files, Label Studio's path."""
    uri = as_imported(reference)
    if not is_cloud(uri):
        return without_breaks(reference)
    return f"/projects/{project_id}/resolve/?fileuri={base64.urlsafe_b64encode(uri.encode()).decode()}"


def file_name(reference: str) -> str:
    """Return the name of an image's file, as people know it; empty where the reference holds the image itself.

    >>> file_name("/data/upload/7/0a1b2c3d-cell%20one.png"), file_name("/data/local-files/?d=scans/a.png")
    ('cell one.png', 'a.png')
    >>> file_name("s3://bucket/folder/b.png"), file_name("https://images.example/c.png?sign=abc#top")
    ('b.png', 'c.png')
    """
    reference = as_imported(reference)
    if scheme_of(reference) == "data":
        return ""
    local = _LOCAL.search(reference)
    path = local[1] if local else (reference if is_cloud(reference) else re.split(r"[?#]", reference)[0])
    name = unquote(path).rstrip("/").rsplit("/", 1)[-1]
    return _UPLOADED.sub("", name) if "/data/upload/" in path else name


def shown_reference(reference: str) -> str:
    """Return a reference as messages may show it: shortened, without data, password, or a query (it may be signed)."""
    reference = as_imported(reference)
    if is_data(reference):
        return f"{reference.strip()[:30]}…"
    text = reference
    if scheme_of(reference) or reference.startswith("//"):
        text = _USER.sub(r"\1", reference if is_cloud(reference) else re.split(r"[?#]", reference)[0])
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
