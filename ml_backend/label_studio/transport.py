"""The HTTP session with Label Studio: addresses, credentials, retries and errors; `files` fetches images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, parse_url

from ml_backend.errors import (
    ConfigurationError,
    LabelStudioError,
    LabelStudioMisread,
    LabelStudioNotFound,
    LabelStudioRefused,
    LabelStudioUnavailable,
)
from ml_backend.images.hosts import ImageHosts
from ml_backend.images.references import shown_reference
from ml_backend.label_studio.failures import FAILURES, forbidden, reason, without_dump
from ml_backend.label_studio.files import Files
from ml_backend.label_studio.guard import GuardedAdapter
from ml_backend.label_studio.own_files import OwnFiles
from ml_backend.label_studio.tokens import EXCHANGE, OnlyTo, make_token, origin_of
from ml_backend.system.trust import TrustingAdapter

SLOW_SECONDS = 900.0
"""Timeout of calls whose length grows with the project: imports, deletions of a model version."""

_CONNECT_SECONDS = 10.0
_PAUSES = (0.3, 1.0)
"""Seconds before a GET whose answer broke off is tried again, for each attempt."""
_TOO_MANY = 429
_LONGEST_PAUSE = 60.0
"""Longest pause, in seconds, that a Retry-After header is followed for; it may ask for an hour."""
_MESSAGE_PART = 150
_CONNECTIONS = 16

_RETRY = Retry(
    total=3,
    read=1,
    backoff_factor=0.5,
    status_forcelist=(502, 503, 504),
    allowed_methods=("GET",),  # other calls are repeated only when no connection was made: they may have had an effect
    raise_on_status=False,
    respect_retry_after_header=False,  # it may ask for an hour
)


class Transport:
    """Sends requests to Label Studio with credentials, and fetches files from other hosts without.

    Safe to use from many threads. Cookies are not kept, since Label Studio requires a CSRF token with a session cookie.

    Args:
        url: address of Label Studio, with its path prefix if it has any.
        token: legacy token or personal access token.
        timeout: longest pause of an answer, in seconds.
        image_hosts: hosts besides Label Studio that files may be fetched from.
        image_seconds: longest time that a file may take.
        public_urls: returns the addresses of Label Studio in people's browsers, which tasks may name.

    Raises:
        ConfigurationError: the address or the token is unusable.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float,
        image_hosts: ImageHosts,
        image_seconds: float,
        public_urls: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.url = _checked(url)
        self._origin = origin_of(self.url)
        self._timeout = timeout
        self._session = _make_session(TrustingAdapter(max_retries=_RETRY, pool_maxsize=_CONNECTIONS))
        self._given = token.strip()
        self._token = make_token(token, next(iter(public_urls()), self.url), self._exchange)
        self._files = Files(
            self.url,
            OwnFiles(self.url, public_urls),
            self._token,
            _make_session(GuardedAdapter(pool_maxsize=_CONNECTIONS)),
            hosts=image_hosts,
            timeout=timeout,
            seconds=image_seconds,
        )
        self._quiet_until = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def json(self, method: str, path: str, *, slow: bool = False, **options: Any) -> Any:
        """Call the API, and return the decoded answer; None when it is empty.

        Args:
            method: GET, POST, …; a GET without a complete answer is tried again.
            path: below the address of Label Studio, such as "/api/version".
            slow: wait SLOW_SECONDS for the answer.
            options: params, json or files, for the library requests.

        Raises:
            LabelStudioError: or an error derived from it.
        """
        timeout = max(self._timeout, SLOW_SECONDS) if slow else self._timeout
        pauses = iter(_PAUSES if method == "GET" else ())
        while True:
            try:
                return self._once(method, path, timeout, options)
            except _IncompleteAnswer:
                pause = next(pauses, None)
                if pause is None:
                    raise
            time.sleep(pause)

    def _once(self, method: str, path: str, timeout: float, options: dict[str, Any]) -> Any:
        self._check_pause()
        try:
            response = self._send(method, self.url + path, timeout=timeout, allow_redirects=False, **options)
        except FAILURES as error:
            kind = _IncompleteAnswer if "IncompleteRead" in repr(error) else LabelStudioUnavailable
            # `from None`, because the cause contains the request with its credentials
            raise self._no_answer(error, timeout, kind) from None
        if response.status_code == _TOO_MANY:
            self._quiet_until = time.monotonic() + min(_LONGEST_PAUSE, _retry_after(response))
        return self._decoded(response, f"{method} {path}")

    def text(self, path: str) -> str:
        """Return a page as text.

        Raises:
            LabelStudioError: or an error derived from it.
        """
        try:
            response = self._send("GET", self.url + path, allow_redirects=False)
        except FAILURES as error:
            raise self._no_answer(error, self._timeout) from None
        if not response.ok:
            raise self._error(response, f"GET {path}")
        return response.text

    def _check_pause(self) -> None:
        """Raise during a pause that Label Studio asked for, so that callers do not wait."""
        left = self._quiet_until - time.monotonic()
        if left > 0:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} answered with {_TOO_MANY} (too many requests); wait {left:.0f} s.",
                status=_TOO_MANY,
            )

    def clock(self) -> datetime:
        """Return the time of Label Studio's clock, to the second.

        Raises:
            LabelStudioUnavailable: it does not answer.
        """
        try:
            response = self._send("GET", f"{self.url}/health", allow_redirects=False)
        except FAILURES as error:
            raise self._no_answer(error, self._timeout) from None
        stated = response.headers.get("Date")
        return parsedate_to_datetime(stated) if stated else datetime.now(timezone.utc)

    def stream(self, reference: str) -> AbstractContextManager[Iterable[bytes]]:
        """Open a file by a task's reference, and yield its bytes in chunks as they come; see `Files.stream`.

        Raises:
            ImageError: the file cannot be fetched; also while the chunks are read.
        """
        return self._files.stream(reference)

    def _send(self, method: str, url: str, *, timeout: float | None = None, **options: Any) -> requests.Response:
        """Send a request; when Label Studio refuses the access token, get another and try again."""
        waits = (_CONNECT_SECONDS, timeout or self._timeout)
        header = self._token.header() if origin_of(url) == self._origin else None
        response = self._session.request(method, url, auth=OnlyTo(self._origin, header), timeout=waits, **options)
        if response.status_code == 401 and header is not None and self._token.renew(header):
            response.close()
            auth = OnlyTo(self._origin, self._token.header())
            response = self._session.request(method, url, auth=auth, timeout=waits, **options)
        return response

    def _exchange(self, refresh: str) -> str:
        """Return an access token for a personal access token."""
        try:
            response = self._session.post(
                self.url + EXCHANGE,
                json={"refresh": refresh},
                auth=OnlyTo(self._origin, None),
                timeout=(_CONNECT_SECONDS, self._timeout),
                allow_redirects=False,  # a redirect would carry the token elsewhere
            )
        except FAILURES as error:
            raise self._no_answer(error, self._timeout) from None
        answer = self._decoded(response, f"POST {EXCHANGE}")
        if not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
            raise LabelStudioError(f"Label Studio at {self.url} answered {EXCHANGE} without an access token.")
        return str(answer["access"])

    def _decoded(self, response: requests.Response, call: str) -> Any:
        if not response.ok:
            raise self._error(response, call)
        if response.is_redirect:
            target = shown_reference(response.headers.get("Location", ""))
            raise LabelStudioError(
                f"Label Studio at {self.url} redirects {call} to {target}. Set LABEL_STUDIO_URL to the address it is "
                "really served at.",
                status=response.status_code,
            )
        if not response.content:
            return None
        kind = response.headers.get("Content-Type", "no content type")
        try:
            return response.json(object_hook=partial(_Object, call=f"{call} at {self.url}"))
        except ValueError:
            if "json" in kind:
                raise _IncompleteAnswer(
                    f"Label Studio at {self.url} answered {call} with JSON that is cut off or damaged.",
                    status=response.status_code,
                ) from None
            raise LabelStudioError(
                f"{self.url} answered {call} with {kind} instead of JSON. Is LABEL_STUDIO_URL the address of Label "
                "Studio?",
                status=response.status_code,
            ) from None

    def _error(self, response: requests.Response, call: str) -> LabelStudioError:
        status, detail = response.status_code, _shortened(self._without_secrets(_detail(response), response))
        message = f"Label Studio at {self.url} answered {call} with {status}: {detail}"
        if status == 401:
            cause, remedy = self._token.refusal(message)
            return LabelStudioRefused(f"{message}. {cause}", remedy, status=status)
        if status == 403:
            return LabelStudioRefused(f"{message}.", forbidden(detail), status=status)
        if status == 404:
            return LabelStudioNotFound(message, status=status)
        again = status >= 500 or status == _TOO_MANY
        return (LabelStudioUnavailable if again else LabelStudioError)(message, status=status)

    def _without_secrets(self, text: str, response: requests.Response) -> str:
        """Remove the credentials of a request from the message of its answer, which may quote them."""
        sent = (response.request.headers.get("Authorization") or "").rpartition(" ")[2]
        for secret in filter(None, (self._given, sent)):
            text = text.replace(secret, "(hidden)")
        return text

    def _no_answer(
        self, error: Exception, timeout: float, kind: type[LabelStudioUnavailable] = LabelStudioUnavailable
    ) -> LabelStudioUnavailable:
        return kind(
            f"Label Studio at {self.url} did not answer: {reason(error, timeout)}.",
            "Check that it runs, and LABEL_STUDIO_URL.",
        )


class _IncompleteAnswer(LabelStudioUnavailable):
    """The connection or the JSON ended too early."""


class _Object(dict[str, Any]):
    """A JSON object of an answer; a missing key raises an error that names the call."""

    def __init__(self, values: Mapping[str, Any], *, call: str) -> None:
        super().__init__(values)
        self._call = call

    def __missing__(self, key: str) -> Any:
        raise misread(self._call, f"there is no {key!r} in it")


def misread(call: str, why: str) -> LabelStudioMisread:
    """Return the error for an answer of an unexpected form.

    Args:
        call: method and path.
        why: what is wrong with the answer.
    """
    return LabelStudioMisread(
        f"Label Studio answered {call} in another shape than nextmask knows: {why}. Is its release one that nextmask "
        "was tested with, and LABEL_STUDIO_URL its address?"
    )


def _retry_after(response: requests.Response) -> float:
    """Return the seconds of the Retry-After header; 0 without the header."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return _LONGEST_PAUSE  # it is a date


def _checked(url: str) -> str:
    url = url.strip().rstrip("/")
    try:
        parsed = parse_url(url)
    except HTTPError:
        parsed = parse_url("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"LABEL_STUDIO_URL is {url!r}; give an address such as http://localhost:8080.")
    if parsed.auth or parsed.query or parsed.fragment:
        raise ConfigurationError(
            f"LABEL_STUDIO_URL has more than an address (of {parsed.host}): leave out user, password, query and "
            "fragment; the token goes into LABEL_STUDIO_API_KEY."
        )
    return url


def _make_session(adapter: HTTPAdapter) -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = "nextmask"
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


def _detail(response: requests.Response) -> str:
    """Return the message in an answer."""
    try:
        body = response.json()
    except ValueError:
        return response.reason or "no reason given"
    if isinstance(body, dict):
        problems = body.get("validation_errors")
        words = str(body.get("detail") or "").strip() or json.dumps(body)
        body = f"{words}: {json.dumps(problems)}" if problems else words
    return without_dump(" ".join(str(body).split()).rstrip("."))


def _shortened(text: str) -> str:
    if len(text) <= 2 * _MESSAGE_PART:
        return text
    # Label Studio quotes what it was sent, with the whole mask, and says at the end what is wrong.
    return f"{text[:_MESSAGE_PART]} … {text[-_MESSAGE_PART:]}"
