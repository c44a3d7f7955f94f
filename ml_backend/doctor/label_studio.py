"""What belongs to Label Studio: its address, the token, the rights, the release, the clock, and what it blocks.

Nothing is changed there. Whether backends and webhooks on a private address are blocked is asked with requests that
are invalid in another field besides: Label Studio checks every field and then refuses, whether the address would have
been good or not, so that nothing is registered and nobody is called.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

import requests
from urllib3.util import parse_url

from ml_backend.doctor.findings import Finding, note, ok, problem, warning
from ml_backend.doctor.running import Missing
from ml_backend.errors import ConfigurationError, LabelStudioError
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.client import TESTED_RELEASE
from ml_backend.label_studio.tokens import claims_of, is_personal
from ml_backend.projects.registration import same_address
from ml_backend.projects.services import label_studio_of
from ml_backend.settings import Settings

OLDEST_TESTED: Final = TESTED_RELEASE
NEWEST_TESTED: Final = TESTED_RELEASE
FAST_IMPORT_FLAG: Final = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"
LARGE_PROJECT: Final = 5000
"""Tasks from which on imports without that flag take seconds."""
_CLOCK_SECONDS = 60.0
_NOT_FOUND = 404
_WRONG_LENGTH = "its length is"
_LEGACY_LENGTH = 40
_UNKNOWN = "(it does not say)"


@dataclass(frozen=True)
class Answer:
    """What an address answered to GET /api/version, or why it did not.

    Attributes:
        release: of Label Studio; "" where something else answered.
        failure: in words, where nothing answered.
        status, location: of what answered.
        apart: seconds that its clock is ahead of ours; None where it did not say.
        nextmask: whether a nextmask answered.
    """

    url: str
    release: str = ""
    failure: str = ""
    status: int = 0
    location: str = ""
    apart: float | None = None
    nextmask: bool = False


@dataclass(frozen=True)
class Host:
    """A Label Studio that lets us in.

    Attributes:
        client: asks it, with less patience than the worker's.
        user: as `whoami` describes it.
    """

    client: LabelStudio
    answer: Answer
    user: dict[str, Any]


# -- address ---------------------------------------------------------------------------------------------------------
def ask(url: str, patience: float = 5.0) -> Answer:
    """Ask an address what it is, without credentials: who listens there may not be trusted."""
    before = time.time()
    try:
        response = requests.get(f"{url}/api/version", timeout=patience, allow_redirects=False)
    except requests.RequestException as error:
        return Answer(url, failure=_failure(error, patience))
    after = time.time()
    found = _object(response)
    release = str(found.get("release", "")) if "label-studio-os-package" in found else ""
    is_there = bool(release) and _has_api(url, patience)
    return Answer(
        url,
        release=release if is_there else "",
        status=response.status_code if is_there or not release else _NOT_FOUND,
        location=response.headers.get("Location", ""),
        apart=_apart(response.headers.get("Date"), before, after),
        nextmask=response.status_code in (401, _NOT_FOUND) and "model_class" in _health(url, patience),
    )


def _failure(error: requests.RequestException, patience: float) -> str:
    text = repr(error)
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not accepted" if "CERTIFICATE" in text else "it does not speak https"
    if isinstance(error, requests.Timeout):
        return f"no answer within {patience:g} s"
    if "NameResolution" in text:
        return "its host name is not known"
    if "refused" in text:
        return "connection refused: nothing listens there"
    return f"no connection ({type(error).__name__})"


def _object(response: requests.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _has_api(url: str, patience: float) -> bool:
    """Whether the API is there. /api/version and /health say little: 1.23.2 answers them below any path."""
    try:
        return requests.head(f"{url}/api/projects/", timeout=patience, allow_redirects=False).status_code != _NOT_FOUND
    except requests.RequestException:
        return False


def _health(url: str, patience: float) -> dict[str, Any]:
    try:
        return _object(requests.get(f"{url}/health", timeout=patience, allow_redirects=False))
    except requests.RequestException:
        return {}


def _apart(stated: str | None, before: float, after: float) -> float | None:
    """Return how far the host's clock, which shows whole seconds, is ahead of ours; 0 where it may be right."""
    try:
        moment = parsedate_to_datetime(stated or "").timestamp()
    except (TypeError, ValueError):
        return None
    if moment > after:
        return moment - after
    return min(0.0, moment + 1.0 - before)


def judge_address(settings: Settings, answer: Answer, *, patience: float = 5.0) -> Finding:
    """Say whether Label Studio is at LABEL_STUDIO_URL, and where it may be otherwise."""
    url, why = answer.url, "Nothing works without Label Studio: no label is read, and no queue filled."
    shown = f"LABEL_STUDIO_URL = {url}"
    if answer.release:
        return ok("address", f"Label Studio {answer.release} at {url}")
    if answer.location and (300 <= answer.status < 400):
        target = _redirect_target(answer)
        found = f"{shown} redirects to {answer.location.partition('?')[0]}"
        return problem("address", found, why, f"Set LABEL_STUDIO_URL to the address it is really served at: {target}")
    elsewhere = _found_elsewhere(url, patience)
    cure = f"Set LABEL_STUDIO_URL={elsewhere}" if elsewhere else ""
    if answer.failure:
        usual = f"Start Label Studio, or set LABEL_STUDIO_URL; try: curl {url}/health"
        return problem("address", f"{shown} does not answer: {answer.failure}", why, cure or usual)
    if answer.nextmask or same_address(url, settings.effective_backend_url):
        found = f"{shown} is the address of nextmask itself"
        return problem("address", found, why, cure or "Set LABEL_STUDIO_URL to the address of Label Studio")
    found = f"{shown}: what answers there ({answer.status}) is not Label Studio"
    usual = "Set LABEL_STUDIO_URL to the address that Label Studio has in the browser, path prefix included"
    return problem("address", found, why, cure or usual)


def _redirect_target(answer: Answer) -> str:
    """Return the address that a redirect of /api/version leads to, without that path."""
    target = requests.compat.urljoin(f"{answer.url}/api/version", answer.location.partition("?")[0])
    return str(target).removesuffix("/").removesuffix("/api/version")


def _found_elsewhere(url: str, patience: float) -> str:
    """Look for Label Studio with the other scheme, without the path, and where the root redirects to; "" if nowhere."""
    parsed = parse_url(url)
    other = "https" if parsed.scheme == "http" else "http"
    origin = f"{parsed.scheme}://{parsed.netloc}"
    guesses = [f"{other}{url.removeprefix(parsed.scheme or '')}", origin]
    try:
        home = requests.get(f"{origin}/", timeout=patience, allow_redirects=False).headers.get("Location", "")
    except requests.RequestException:
        home = ""
    if "/user/login" in home:
        guesses.append(str(requests.compat.urljoin(f"{origin}/", home.partition("/user/login")[0])))
    return next((guess for guess in dict.fromkeys(guesses) if guess != url and _is_likely(ask(guess, patience))), "")


def _is_likely(answer: Answer) -> bool:
    """Whether Label Studio answered, or something that has a certificate of its own making: it speaks https, then."""
    return bool(answer.release) or "certificate" in answer.failure


# -- token -----------------------------------------------------------------------------------------------------------
def enter(settings: Settings, answer: Answer, *, patience: float = 5.0) -> tuple[Host | None, Finding]:
    """Ask Label Studio who we are; return a host where it lets us in, and what is to be said of the token."""
    key = settings.label_studio_api_key.get_secret_value().strip()
    why = "Without a token that Label Studio accepts nothing is read or written there."
    try:
        client = label_studio_of(settings.model_copy(update={"request_timeout": patience, "image_seconds": patience}))
    except ConfigurationError as error:
        return None, problem("token", str(error).partition(" Create a")[0], why, _create(settings))
    try:
        user = client.whoami()
    except LabelStudioError as error:
        return None, _refused(settings, key, error, why)
    kind = "personal access token" if is_personal(key) else "legacy token"
    return Host(client, answer, user), ok("token", f"{kind} of {user.get('email', _UNKNOWN)}")


def _create(settings: Settings) -> str:
    return (
        f"Open {settings.label_studio_url}/user/account/personal-access-token, press Create New Token, and set "
        "LABEL_STUDIO_API_KEY to it"
    )


def _refused(settings: Settings, key: str, error: LabelStudioError, why: str) -> Finding:
    if error.status is not None and error.status >= 500:
        found = f"Label Studio answers {error.status} to this user's calls, although it is up"
        cause = "That is what it does for a user who was removed from the organization."
        return problem("token", found, f"{cause} {why}", "Invite the user again, or use another user's token")
    if error.status != 401:
        return problem("token", str(error), why, _create(settings))
    if is_personal(key):
        found = f"LABEL_STUDIO_API_KEY is refused (401): {_personal_fault(key, str(error))}"
        return problem("token", found, why, _create(settings))
    if "has been disabled" in str(error):
        found = "LABEL_STUDIO_API_KEY is a legacy token (401), and the organization does not allow this kind"
        allow = f"or allow them: {settings.label_studio_url}/organization, API Tokens Settings, Legacy Tokens"
        return problem("token", found, why, f"{_create(settings)}; {allow}")
    length = "" if len(key) == _LEGACY_LENGTH else f"; {_WRONG_LENGTH} {len(key)}, that of a legacy token 40"
    found = f"LABEL_STUDIO_API_KEY is refused (401): Label Studio knows no such legacy token{length}"
    return problem("token", found, why, _create(settings))


def _personal_fault(key: str, message: str) -> str:
    claims = claims_of(key)
    if not claims:
        return "it is no personal access token, although it has two dots; copy it again"
    if claims.get("token_type") == "access":
        return "it is an access token, which lives five minutes; the personal access token is wanted that buys them"
    expiry = claims.get("exp")
    if isinstance(expiry, (int, float)) and expiry < time.time():
        ended = datetime.fromtimestamp(expiry, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return f"the personal access token expired on {ended}"
    if "blacklisted" in message:
        return "the personal access token was revoked"
    if "api/token/refresh" not in message:
        return "the organization does not allow personal access tokens (Organization, API Tokens Settings)"
    return "the personal access token is of another Label Studio, or was not copied whole"


# -- rights, release, clock ------------------------------------------------------------------------------------------
def judge_rights(user: dict[str, Any]) -> Finding:
    """Say whether the user may do what nextmask does; hosts that do not list rights are believed."""
    listed = user.get("permissions")
    wanted = ("projects.view", "projects.change", "tasks.view", "predictions.any", "webhooks.change", "views.change")
    lacking = [right for right in wanted if right not in listed] if isinstance(listed, list) else []
    if lacking:
        found = f"{user.get('email', _UNKNOWN)} lacks the rights {', '.join(lacking)}"
        why = "Projects cannot be connected, or no queue published."
        return problem("rights", found, why, "Use the token of a user who may edit the projects")
    return ok("rights", "the user may edit projects, predictions and webhooks")


def judge_release(release: str, oldest: str = OLDEST_TESTED, newest: str = NEWEST_TESTED) -> Finding:
    """Compare the host's release with those that the tests run against."""
    found = f"Label Studio {release}"
    if _number(release) < _number(oldest):
        why = f"nextmask is tested with {oldest}; earlier releases may lack what it needs."
        return warning("release", found, why, f"Upgrade it: pip install -U label-studio=={newest}")
    if _number(release) > _number(newest):
        return note("release", f"{found} is newer than the newest that nextmask is tested with ({newest})")
    return ok("release", f"{found} is what nextmask is tested with")


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release.partition("+")[0])[:3])


def judge_clock(apart: float | None) -> Finding:
    """Compare the clocks of the two machines."""
    if apart is None:
        raise Missing("Label Studio does not say what time it is")
    if abs(apart) <= _CLOCK_SECONDS:
        return ok("clock", "Label Studio's agrees with this machine's")
    found = f"Label Studio's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    why = "Times that are shown mislead, and workers on several machines take each other's projects over."
    return warning("clock", found, why, "Let both machines keep time with NTP: timedatectl set-ntp true")


# -- what the host blocks --------------------------------------------------------------------------------------------
def judge_protections(client: LabelStudio, backend_url: str) -> Iterator[Finding]:
    """Say whether Label Studio lets backends and webhooks be at the address of nextmask. Changes nothing there."""
    fields = {"ML_BLOCK_LOCAL_IP": _refusal(client, "/api/ml/", {"url": backend_url, "auth_method": "no such method"})}
    hook = {"url": f"{backend_url}/webhook", "actions": ["NO_SUCH_ACTION"]}
    fields["SSRF_PROTECTION_ENABLED"] = _refusal(client, "/api/webhooks/", hook)
    unknown = next((text for text in fields.values() if "resolve" in text and "reserved" not in text), "")
    blocked = [name for name, text in fields.items() if text and text != unknown]
    if unknown:
        found = f"Label Studio cannot find the host of NEXTMASK_BACKEND_URL = {backend_url}: {unknown}"
        remedy = "Set NEXTMASK_BACKEND_URL to an address that works where Label Studio runs"
        yield problem("protection", found, "It can neither call nextmask nor send webhooks to it.", remedy)
    if blocked:
        found = f"Label Studio blocks {backend_url}: {' and '.join(blocked)} {'are' if len(blocked) > 1 else 'is'} on"
        effects = {"ML_BLOCK_LOCAL_IP": "no backend is accepted there", "SSRF_PROTECTION_ENABLED": "no webhook"}
        why = f"With it, {' and '.join(effects[name] for name in blocked)}: connect is refused (403)."
        settings = " ".join(f"{name}=false" for name in fields)
        yield problem("protection", found, why, f"Start Label Studio with both off: {settings} label-studio start")
    if not unknown and not blocked:
        yield ok("protection", f"Label Studio lets backends and webhooks be at {backend_url}")


def _refusal(client: LabelStudio, path: str, fields: dict[str, Any]) -> str:
    """Return why an address is not allowed; "" where it is. The other field is invalid, so nothing is ever made."""
    try:
        client.transport.json("POST", path, json=fields)
    except LabelStudioError as error:
        text = str(error).partition("answered")[2].partition(": ")[2]
        if error.status == 403:
            return text if "reserved" in text or "not allowed" in text else ""
        return text.rstrip(".") if error.status == 500 and "resolve" in text else ""
    return ""


def fast_import(client: LabelStudio) -> bool | None:
    """Say whether the host imports predictions the fast way; None where this token is not told."""
    try:
        page = client.transport.text("/feature-flags/")
    except LabelStudioError:
        return None
    found = re.search(rf'"{FAST_IMPORT_FLAG}": (true|false)', page)
    return found is not None and found.group(1) == "true"
