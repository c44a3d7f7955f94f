"""Reasons why a request got no answer, in words that may be shown: the libraries' texts contain whole addresses."""

from __future__ import annotations

import requests
from urllib3.exceptions import HTTPError

from ml_backend.system.trust import why_refused

FAILURES = (requests.RequestException, HTTPError)
"""What requests and urllib3 raise."""

LACKS_RIGHT = "The user of LABEL_STUDIO_API_KEY lacks the right: use the token of a user who may edit the project"


def reason(error: Exception, timeout: float) -> str:
    """Return in a few words why there was no answer.

    Args:
        error: one of FAILURES.
        timeout: seconds that the request waited at most.
    """
    if isinstance(error, requests.Timeout) or "Read timed out" in repr(error):
        return f"no answer within {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return why_refused(error)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return "the address, or one it redirects to, is not valid"
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return "what it was compressed with cannot be read"
    if "NameResolution" in repr(error):
        return "its host name is not known"
    if "refused" in repr(error):
        return "connection refused"
    if "IncompleteRead" in repr(error):
        return "the connection ended before the whole file had come"
    return f"no connection ({type(error).__name__})"
