"""Files of Label Studio that tasks name by another address than nextmask has for it.

Label Studio writes its public address (LABEL_STUDIO_HOST) into tasks: the path prefix of it into uploads, all of it
into local files. nextmask may reach it elsewhere, without that prefix. Only paths that Label Studio serves files under
are taken for its own: other servers may share its public address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from ml_backend.images.references import scheme_of
from ml_backend.label_studio.tokens import origin_of

# All that 1.23.2 serves files of tasks under.
_OWN = re.compile(
    r"/(?:data/(?:upload|local-files)|storage-data/uploaded|(?:tasks|projects)/[0-9]+/(?:resolve|presign|file-proxy))"
    r"(?=/|$)"
)


class OwnFiles:
    """The addresses of Label Studio's files.

    Args:
        url: address of Label Studio as nextmask reaches it.
        public_urls: returns its addresses in people's browsers, as far as they are known.
    """

    def __init__(self, url: str, public_urls: Callable[[], Iterable[str]]) -> None:
        self._url, self._public_urls = url, public_urls
        self._home = origin_of(url)
        self._prefix = _prefix(url)

    def address(self, reference: str) -> str | None:
        """Return where nextmask gets a file of Label Studio; None where a reference leads elsewhere."""
        scheme = scheme_of(reference)
        if scheme is None and not reference.startswith("//"):
            return self._at_home(reference)
        if scheme not in ("http", "https"):
            return None
        parsed = parse_url(reference)  # which takes dots out of the path
        path, query = parsed.path or "/", "" if parsed.query is None else f"?{parsed.query}"
        origin = origin_of(reference)
        for public in self._public_urls():
            prefix = _prefix(public)
            if origin == origin_of(public) and path.startswith(f"{prefix}/") and _OWN.match(path[len(prefix) :]):
                return f"{self._url}{path[len(prefix) :]}{query}"
        return self._at_home(path + query) if origin == self._home and is_own_path(path) else None

    def may_sign(self, address: str) -> bool:
        """Whether the token may be sent to an address: it is Label Studio's, not another program's beside it."""
        path = parse_url(address).path or "/"
        steps = re.split(r"[/\\]", unquote(path))
        return origin_of(address) == self._home and (
            not self._prefix or (path.startswith(f"{self._prefix}/") and ".." not in steps)
        )

    def _at_home(self, path: str) -> str:
        if self._prefix and path.startswith(f"{self._prefix}/"):
            return f"{self._url.removesuffix(self._prefix)}{path}"
        own = _OWN.search(re.split(r"[?#]", path)[0])
        return f"{self._url}/{path[own.start() if own else 0 :].lstrip('/')}"


def is_own_path(path: str) -> bool:
    """Whether Label Studio serves files under a path, below whatever prefix."""
    return _OWN.search(path) is not None


def is_public_url(url: str) -> bool:
    """Whether a text is an address that Label Studio may have in browsers."""
    try:
        parsed = parse_url(url)
    except LocationParseError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host) and not (parsed.auth or parsed.query)


def _prefix(url: str) -> str:
    return (parse_url(url).path or "").rstrip("/")
