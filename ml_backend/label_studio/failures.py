"""Reasons why a request got no answer, in words that may be shown: the libraries' texts contain whole addresses."""

from __future__ import annotations

import re

import requests
from urllib3.exceptions import HTTPError

from ml_backend.system.trust import why_refused

_SIGNS = {
    "ProxyError": "the proxy that HTTP_PROXY or HTTPS_PROXY names does not let it through",
    "NameResolution": "its host name is not known",
    "refused": "connection refused: nothing listens there",
    "No route to host": "this machine has no way to its network",
    "Network is unreachable": "this machine has no way to its network",
    "Connection to": "no answer in time",
    "timed out": "no answer in time",
    "IncompleteRead": "the connection ended before the whole file had come",
    "RemoteDisconnected": "the connection was closed without an answer",
    "reset by peer": "the connection was closed without an answer",
}
"""What the libraries' texts contain -> what it means."""

FAILURES = (requests.RequestException, HTTPError)
"""What requests and urllib3 raise."""

_HEALTH_CHECK = re.compile(r"Can't connect to ML backend \S+, health check failed")

LACKS_RIGHT = "The user of LABEL_STUDIO_API_KEY lacks the right: use the token of a user who may edit the project."
UNBLOCK = (
    "Start Label Studio with both of its protections off: "
    "ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false label-studio start"
)
"""What mends that Label Studio calls no local address; nextmask's own is one, on one machine and in a company."""


def is_blocked(detail: str) -> bool:
    """Whether an answer of Label Studio (403) says that it calls no address like that of nextmask."""
    return "reserved network address" in detail or "URL was not allowed" in detail


def forbidden(detail: str) -> str:
    """Return what to do after a 403.

    Args:
        detail: what Label Studio answered.
    """
    return f"{UNBLOCK}." if is_blocked(detail) else LACKS_RIGHT


def reason(error: Exception, timeout: float) -> str:
    """Return in a few words why there was no answer.

    Args:
        error: one of FAILURES.
        timeout: seconds that the request waited at most.
    """
    text = repr(error)
    if isinstance(error, requests.Timeout) or "Read timed out" in text:
        return f"no answer within {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return why_refused(error)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return "the address, or one it redirects to, is not valid"
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "what it was compressed with cannot be read"
    return in_words(text) or f"no connection ({type(error).__name__})"


def in_words(text: str) -> str:
    """Return what the text of a library says of a connection; "" where that is not known."""
    return next((words for sign, words in _SIGNS.items() if sign in text), "")


def without_dump(detail: str) -> str:
    """Return an answer of Label Studio without what its HTTP library says of a call of nextmask that failed."""
    call = _HEALTH_CHECK.search(detail)
    if call is None:
        return detail
    return f"{call[0]}: {in_words(detail) or 'it did not answer'}"
