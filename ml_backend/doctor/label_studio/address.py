"""What answers at LABEL_STUDIO_URL, and how far its clock is from ours."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.util import parse_url

from ml_backend.doctor.findings import Finding, ok, problem, warning
from ml_backend.doctor.running import Missing
from ml_backend.label_studio.failures import FAILURES, reason
from ml_backend.projects.registration import same_address
from ml_backend.settings import Settings
from ml_backend.system import trust
from ml_backend.system.trust import trusting_session

_CLOCK_SECONDS = 60.0
_NOT_FOUND = 404
_TRUST = (
    "Put the certificate of that authority (PEM) into a file, and start nextmask with SSL_CERT_FILE=FILE; or add it to "
    "the authorities of the system"
)


@dataclass(frozen=True)
class Answer:
    """What a server answered to GET /api/version, or why it did not.

    Attributes:
        url: the address that was asked.
        release: of Label Studio; "" where another program answered.
        failure: why nothing answered, in words; "" where something did.
        status, location: HTTP status of the answer (0: none), and where it redirects to.
        clock_offset: seconds that its clock is ahead of ours; None where it did not say.
        nextmask: whether a nextmask answered.
        authority: what is known of an authority that is not trusted; "" where the certificate is not refused for that.
    """

    url: str
    release: str = ""
    failure: str = ""
    status: int = 0
    location: str = ""
    clock_offset: float | None = None
    nextmask: bool = False
    authority: str = ""


def ask(url: str, patience: float = 5.0) -> Answer:
    """Ask what answers at an address, without credentials: who listens there may not be trusted.

    Args:
        url: the address, without a slash at its end.
        patience: seconds to wait for each answer.
    """
    before = time.time()
    try:
        response = trusting_session().get(f"{url}/api/version", timeout=patience, allow_redirects=False)
    except FAILURES as error:
        fault = trust.verification_error(error)
        return Answer(url, failure=reason(error, patience), authority=_authority(url, fault, patience))
    after = time.time()
    answer = _object(response)
    release = str(answer.get("release", "")) if "label-studio-os-package" in answer else ""
    is_there = bool(release) and _has_api(url, patience)
    return Answer(
        url,
        release=release if is_there else "",
        status=response.status_code if is_there or not release else _NOT_FOUND,
        location=response.headers.get("Location", ""),
        clock_offset=clock_offset(response.headers.get("Date"), before, after),
        nextmask=response.status_code in (401, _NOT_FOUND) and "model_class" in _health(url, patience),
    )


def _authority(url: str, fault: ssl.SSLCertVerificationError | None, patience: float) -> str:
    if fault is None or not trust.is_of_unknown_authority(fault):
        return ""
    signer = trust.issuer_of(url, patience) or "an authority that it does not name"
    return f"It is signed by {signer}; trusted are those of {trust.trusted_files(url)}"


def _object(response: requests.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _has_api(url: str, patience: float) -> bool:
    """Whether the API is there. /api/version and /health say little: 1.23.2 answers them below any path."""
    try:
        answer = trusting_session().head(f"{url}/api/projects/", timeout=patience, allow_redirects=False)
        return answer.status_code != _NOT_FOUND
    except requests.RequestException:
        return False


def _health(url: str, patience: float) -> dict[str, Any]:
    try:
        return _object(trusting_session().get(f"{url}/health", timeout=patience, allow_redirects=False))
    except requests.RequestException:
        return {}


def clock_offset(stated: str | None, before: float, after: float) -> float | None:
    """Return how many seconds the host's clock, which shows whole seconds, is ahead of ours; 0 where it may be right.

    Args:
        stated: the header Date of an answer; None where there is none.
        before, after: when the request was sent and the answer was there, in seconds since the epoch by our clock.

    Returns:
        None where the header says no time.
    """
    try:
        moment = parsedate_to_datetime(stated or "").timestamp()
    except (TypeError, ValueError):
        return None
    if moment > after:
        return moment - after
    return min(0.0, moment + 1.0 - before)


def check_address(settings: Settings, answer: Answer, *, patience: float = 5.0) -> Finding:
    """Say whether Label Studio is at LABEL_STUDIO_URL, and where it may be otherwise."""
    url, why = answer.url, "Nothing works without Label Studio: no label is read, and no queue is filled."
    shown = f"LABEL_STUDIO_URL = {url}"
    if answer.release:
        return ok("address", f"Label Studio {answer.release} at {url}")
    if answer.location and (300 <= answer.status < 400):
        target = _redirect_target(answer)
        message = f"{shown} redirects to {answer.location.partition('?')[0]}"
        return problem("address", message, why, f"Set LABEL_STUDIO_URL to the address it is really served at: {target}")
    if answer.authority:
        message = f"{shown} does not answer: {answer.failure.partition(';')[0]}. {answer.authority}"
        return problem("address", message, why, _TRUST)
    elsewhere = _address_elsewhere(url, patience)
    cure = f"Set LABEL_STUDIO_URL={elsewhere}" if elsewhere else ""
    if answer.failure:
        usual = f"Start Label Studio, or set LABEL_STUDIO_URL; try: curl {url}/health"
        return problem("address", f"{shown} does not answer: {answer.failure}", why, cure or usual)
    if answer.nextmask or same_address(url, settings.effective_backend_url):
        message = f"{shown} is the address of nextmask itself"
        return problem("address", message, why, cure or "Set LABEL_STUDIO_URL to the address of Label Studio")
    message = f"{shown}: what answers there ({answer.status}) is not Label Studio"
    usual = "Set LABEL_STUDIO_URL to the address that Label Studio has in the browser, path prefix included"
    return problem("address", message, why, cure or usual)


def _redirect_target(answer: Answer) -> str:
    """Return the address that a redirect of /api/version leads to, without that path."""
    target = requests.compat.urljoin(f"{answer.url}/api/version", answer.location.partition("?")[0])
    return str(target).removesuffix("/").removesuffix("/api/version")


def _address_elsewhere(url: str, patience: float) -> str:
    """Look for Label Studio with the other scheme, without the path, and where the root redirects to; "" if nowhere."""
    parsed = parse_url(url)
    other = "https" if parsed.scheme == "http" else "http"
    origin = f"{parsed.scheme}://{parsed.netloc}"
    guesses = [f"{other}{url.removeprefix(parsed.scheme or '')}", origin]
    try:
        home = trusting_session().get(f"{origin}/", timeout=patience, allow_redirects=False).headers.get("Location", "")
    except requests.RequestException:
        home = ""
    if "/user/login" in home:
        guesses.append(str(requests.compat.urljoin(f"{origin}/", home.partition("/user/login")[0])))
    return next((guess for guess in dict.fromkeys(guesses) if guess != url and _is_likely(ask(guess, patience))), "")


def _is_likely(answer: Answer) -> bool:
    """Whether Label Studio answered, or something that has a certificate of its own making: it speaks https, then."""
    return bool(answer.release) or "certificate" in answer.failure


def check_clock(offset: float | None) -> Finding:
    """Compare the clocks of the two machines.

    Args:
        offset: as `Answer.clock_offset`.

    Raises:
        Missing: it is not known.
    """
    if offset is None:
        raise Missing("Label Studio does not say what time it is")
    if abs(offset) <= _CLOCK_SECONDS:
        return ok("clock", "Label Studio's agrees with this machine's")
    message = f"Label Studio's clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's"
    why = "Times are shown wrongly, and workers on several machines take over each other's projects."
    return warning("clock", message, why, "Let both machines keep time with NTP: timedatectl set-ntp true")
