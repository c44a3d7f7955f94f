"""Fetches files by a task's reference: from Label Studio with credentials, from other allowed hosts without.

Redirects are followed here, since each may lead to another host, which has to be allowed, and since no credentials are
sent after the first redirect away from Label Studio. Its cloud storages redirect to an address that is signed for a
minute and is never stored, logged or shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urljoin

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.util import parse_url

from ml_backend.errors import ImageError, LabelStudioError
from ml_backend.images.hosts import ImageHosts, entry_for
from ml_backend.images.references import CLOUD_SCHEMES, as_imported, is_cloud, scheme_of, shown_reference
from ml_backend.label_studio.failures import FAILURES, LACKS_RIGHT, reason
from ml_backend.label_studio.guard import FileFetch, NotAllowed, TooLate
from ml_backend.label_studio.own_files import OwnFiles, is_own_path
from ml_backend.label_studio.tokens import OnlyTo, Token, origin_of

_CONNECT_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16
_REDIRECTS = 5
WAITS = (0.5, 1.0)
"""Seconds before a request is sent again, once for each."""
_REASONS = {401: "refused", 403: "refused", 404: "not found", 410: "gone"}
_STORAGE = {
    404: "Label Studio finds no storage for it (404). Connect its bucket or container to the project as a source "
    "storage (Settings > Cloud Storage)",
    424: "Label Studio could not read it from its storage (424): it is not there, or Label Studio may not read it",
}


class _Refused(Exception):
    """A request that is not sent; the message says why, as a sentence."""


class Files:
    """Fetches files. Safe to use from many threads.

    Args:
        own: addresses of Label Studio's files.
        token: for Label Studio.
        session: with the adapters of `guard`.
        hosts: allowed hosts besides Label Studio.
        timeout: longest pause of a host, in seconds.
        seconds: longest time of a whole file.
    """

    def __init__(
        self,
        url: str,
        own: OwnFiles,
        token: Token,
        session: requests.Session,
        *,
        hosts: ImageHosts,
        timeout: float,
        seconds: float,
    ) -> None:
        self._own, self._token, self._session = own, token, session
        self._home = origin_of(url)
        self._hosts, self._timeout, self._seconds = hosts, timeout, seconds

    @contextmanager
    def stream(self, reference: str) -> Iterator[Iterable[bytes]]:
        """Open a file, and yield its bytes in chunks as they come.

        Args:
            reference: a path on Label Studio such as "/data/upload/…", or an http(s) address.

        Raises:
            ImageError: the file cannot be fetched; also while the chunks are read.
        """
        name, url = shown_reference(reference), self._address(reference)
        with FileFetch(self._hosts, self._home, self._seconds) as fetch:
            try:
                response = self._followed(url, fetch)
            except FAILURES as error:
                raise ImageError(f"Image {name} cannot be fetched: {self._why(error, fetch)}.") from None
            except (LabelStudioError, _Refused) as error:
                raise ImageError(f"Image {name} cannot be fetched: {error}") from None
            except TooLate:
                raise ImageError(f"Image {name} cannot be fetched: {self._late()}.") from None
            except NotAllowed as error:
                raise ImageError(f"Image {name} cannot be fetched: {self._advice(url, error)}") from None
            with response:
                if not response.ok:
                    raise ImageError(f"Image {name} cannot be fetched: {self._refusal(response, reference)}.")
                yield self._chunks(response, name, fetch)

    def _chunks(self, response: requests.Response, name: str, fetch: FileFetch) -> Iterator[bytes]:
        try:
            yield from response.iter_content(_CHUNK_BYTES)
            fetch.check()  # a connection that was cut looks like the end of a file without a stated length
        except TooLate:
            raise ImageError(f"Image {name} broke off: {self._late()}.") from None
        except FAILURES as error:
            raise ImageError(f"Image {name} broke off: {self._why(error, fetch)}.") from None

    # -- requests -----------------------------------------------------------------------------------------------------
    def _followed(self, url: str, fetch: FileFetch) -> requests.Response:
        """Send a request, and follow its redirects."""
        at_home = True
        for _ in range(_REDIRECTS + 1):
            at_home = at_home and self._own.may_sign(url)
            response = self._answer(url, fetch, signed=at_home)
            target = self._session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            url = self._next(url, target)
        raise _Refused(f"more than {_REDIRECTS} redirects.")

    def _answer(self, url: str, fetch: FileFetch, *, signed: bool) -> requests.Response:
        """Send a request; when Label Studio refuses the access token, get another and try again."""
        header = self._token.header() if signed else None
        response = self._get(url, fetch, header)
        if response.status_code == 401 and header is not None and self._token.renew(header):
            response.close()
            response = self._get(url, fetch, self._token.header())
        return response

    def _get(self, url: str, fetch: FileFetch, header: str | None) -> requests.Response:
        """Send a request, and again where that may help. Retries of urllib3 would log addresses with signatures."""
        self._check_proxy(url)
        for wait in WAITS:
            try:
                response = self._sent(url, fetch, header)
            except (requests.exceptions.SSLError, requests.Timeout):
                raise
            except requests.ConnectionError:
                pass
            else:
                if response.status_code not in (502, 503, 504):
                    return response
                response.close()
            time.sleep(wait)
        return self._sent(url, fetch, header)

    def _sent(self, url: str, fetch: FileFetch, header: str | None) -> requests.Response:
        with fetch.current():
            return self._session.get(
                url,
                auth=OnlyTo(self._home, header),
                timeout=(min(_CONNECT_SECONDS, self._seconds), self._timeout),
                stream=True,
                allow_redirects=False,
                headers={"Accept-Encoding": "identity"},
            )

    def _next(self, url: str, target: str) -> str:
        """Return the address that a redirect leads to."""
        address = urljoin(url, target)
        if scheme_of(address) not in ("http", "https"):
            raise _Refused("the address that it redirects to is not valid.")
        _check_user(address)
        if origin_of(url)[0] == "https" != origin_of(address)[0] and origin_of(url) != self._home:
            raise _Refused(f"{_host(url)} redirects from https to http.")
        return address

    def _check_proxy(self, url: str) -> None:
        """Refuse an address that a proxy would resolve, unless the host is allowed by name."""
        scheme, host, port = origin_of(url)
        if (scheme, host, port) == self._home or not select_proxy(url, get_environ_proxies(url)):
            return
        if not self._hosts.named(host.strip("[]"), int(port or 0)):
            entry = entry_for(host.strip("[]"), int(port or 0))
            raise _Refused(
                f"it would be fetched through the proxy of the environment, which hides the address of {host}. To "
                f"allow it, add {entry} to NEXTMASK_IMAGE_HOSTS, by name."
            )

    # -- words --------------------------------------------------------------------------------------------------------
    def _address(self, reference: str) -> str:
        scheme, name = scheme_of(reference), shown_reference(reference)
        if is_cloud(reference):
            raise ImageError(f"Image {name} is in cloud storage; which one is not known without its project.")
        if scheme not in ("http", "https") and (scheme or reference.startswith("//")):
            raise ImageError(
                f"Image {name} has the scheme {scheme or 'none'!r}; only http, https, {', '.join(CLOUD_SCHEMES)} and "
                "paths on Label Studio can be fetched."
            )
        try:
            if scheme:
                _check_user(reference)
        except _Refused as error:
            raise ImageError(f"Image {name} cannot be fetched: {error}") from None
        return self._own.address(reference) or reference

    def _advice(self, url: str, error: NotAllowed) -> str:
        """Return which host is not allowed, and how to allow it."""
        asked = entry_for(_host(url), origin_of(url)[2] or 0)
        led = "" if asked == error.entry else f"it is redirected to {error.host}; "
        perhaps = self._other_name(url)
        return (
            f"{led}{error.host} may not be asked: it has no public address, or NEXTMASK_IMAGE_HOSTS leaves it out. "
            f"To allow it, add {error.entry} to NEXTMASK_IMAGE_HOSTS.{f' {perhaps}.' if perhaps else ''}"
        )

    def _other_name(self, url: str) -> str:
        """Return what to do if an address is Label Studio's by another name; "" where it does not look so."""
        if origin_of(url) == self._home or not is_own_path(parse_url(url).path or ""):
            return ""
        return "If this is Label Studio by another name, set NEXTMASK_LABEL_STUDIO_PUBLIC_URL to its address there"

    def _refusal(self, response: requests.Response, reference: str) -> str:
        """Return why a file was refused."""
        status = response.status_code
        if origin_of(response.url) != self._home:
            by = f"{_host(response.url)}: " if _host(response.url) != _host(reference) else ""
            perhaps = self._other_name(response.url)
            return f"{by}{_REASONS.get(status, 'no success')} ({status}){f'. {perhaps}' if perhaps else ''}"
        if status in (401, 403):
            why = " ".join(self._token.refusal("")) if status == 401 else LACKS_RIGHT
            return f"Label Studio refused it ({status}). {why}"
        if as_imported(reference) != reference:
            return _STORAGE.get(status, f"Label Studio could not read it from the storage ({status})")
        if status == 500:
            return "Label Studio answered 500, as it does for uploads that no longer exist"
        return f"{_REASONS.get(status, 'no success')} ({status})"

    def _why(self, error: Exception, fetch: FileFetch) -> str:
        try:
            fetch.check()
        except TooLate:
            return self._late()
        return reason(error, self._timeout)

    def _late(self) -> str:
        return f"it did not come within the {self._seconds:g} s of NEXTMASK_IMAGE_SECONDS"


def _host(url: str) -> str:
    return origin_of(url)[1].strip("[]")


def _check_user(url: str) -> None:
    if parse_url(url).auth is not None:
        raise _Refused(
            "its address has a user name or password in it, which everybody sees who sees the task. Import it without; "
            "files that need credentials belong into a cloud storage of Label Studio."
        )
