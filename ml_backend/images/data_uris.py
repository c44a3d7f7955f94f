"""Images inside their reference (`data:image/png;base64,…`), read as browsers do by the Fetch standard."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from ml_backend.errors import ImageError
from ml_backend.images.references import shown_reference

_BASE64 = re.compile(r";\x20*base64$", re.IGNORECASE)
_WHITE_SPACE = b"\t\n\x0c\r "


def data_bytes(reference: str) -> bytes:
    """Return the bytes of a data: URI.

    White space, also as %20 or %0A, and the padding of base64 may be there or not.

    Raises:
        ImageError: it holds no data, or invalid base64.
    """
    header, comma, body = reference.strip()[len("data:") :].partition(",")
    if not comma:
        raise ImageError(f"Image {shown_reference(reference)} is a data: URI without a comma, hence without data.")
    data = unquote_to_bytes(body.partition("#")[0])
    if not _BASE64.search(header.strip()):
        return data
    data = data.translate(None, _WHITE_SPACE)
    if len(data) % 4 == 0 and data.endswith(b"="):
        data = data[:-2] if data.endswith(b"==") else data[:-1]
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(f"Image {shown_reference(reference)} is a data: URI with invalid base64: {error}.") from error
