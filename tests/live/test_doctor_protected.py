"""doctor and a Label Studio as it comes: local addresses blocked, legacy tokens off. And what it says of each token."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from prepared_studio import PASSWORD, TOKEN, USER, host_on
from studio_client import StudioClient
from support import Studio

from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.doctor import Finding
from ml_backend.doctor.diagnosis import look_at_label_studio
from ml_backend.doctor.label_studio.protection import check_protections
from ml_backend.doctor.label_studio.release import fast_import
from ml_backend.doctor.label_studio.token import log_in
from ml_backend.errors import LabelStudioError
from ml_backend.settings import load_settings

pytestmark = pytest.mark.live

BRUSH = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="disc" background="red"/></BrushLabels></View>"""
BACKEND = "http://127.0.0.1:9090"
BOTH = ("ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED")


@dataclass
class Browser:
    """Somebody who is signed in."""

    url: str
    session: requests.Session

    def post(self, path: str, **fields: Any) -> requests.Response:
        return self.session.post(f"{self.url}{path}", json=fields, timeout=60)

    def new_token(self) -> str:
        return str(self.post("/api/token/").json()["token"])


def signed_in(url: str, page: str = "/user/login/", user: str = USER, password: str = PASSWORD) -> Browser:
    """Fill in the page for signing in, or up."""
    session = requests.Session()
    form_page = session.get(f"{url}{page}", timeout=60)
    (hidden, *_) = re.findall(r'csrfmiddlewaretoken" value="([^"]+)', form_page.text)
    form = {"email": user, "password": password, "csrfmiddlewaretoken": hidden}
    session.headers["Referer"] = f"{url}{page}"
    session.post(f"{url}{page}", data=form, timeout=60, allow_redirects=False).raise_for_status()
    session.headers["X-CSRFToken"] = session.cookies.get("csrftoken") or hidden
    return Browser(url, session)


def host_with(command: Path, folder: Path, first_starts: Path, protections: tuple[str, ...]) -> LabelStudioHost:
    environment = {name: "true" if name in protections else "false" for name in BOTH}
    environment["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] = "false"
    return host_on(command, folder, first_starts, environment=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protected") / "data"


@pytest.fixture(scope="module")
def protected(label_studio_command: Path, folder: Path, first_starts: Path) -> Iterator[LabelStudioHost]:
    with host_with(label_studio_command, folder, first_starts, BOTH).running() as running:
        yield running


@pytest.fixture(scope="module")
def admin(protected: LabelStudioHost) -> Browser:
    return signed_in(protected.url)


@pytest.fixture(scope="module")
def token(admin: Browser) -> str:
    return admin.new_token()


def of_token(url: str, key: str) -> Finding:
    settings = load_settings(label_studio_url=url, label_studio_api_key=key)
    _, finding = log_in(settings, patience=60)
    assert not key or key not in finding.message + finding.why + finding.remedy
    return finding


def signed(folder: Path, **claims: Any) -> str:
    """A token that this Label Studio made, by all that it can see: signed with its own key."""
    secret = next(line for line in (folder / ".env").read_text().splitlines() if line.startswith("SECRET_KEY="))
    parts = [{"alg": "HS256", "typ": "JWT"}, {"token_type": "refresh", "jti": "0" * 32, "user_id": "1", **claims}]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    key = secret.partition("=")[2].strip().strip("'\"")
    signature = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


# -- tokens ----------------------------------------------------------------------------------------------------------
def test_legacy_tokens(protected: LabelStudioHost, studio: Studio) -> None:
    off = of_token(protected.url, TOKEN)
    assert "holds a legacy token, and the organization does not allow this kind" in off.message
    assert f"{protected.url}/user/account/personal-access-token" in off.remedy
    assert "Legacy Tokens" in off.remedy
    unknown = of_token(studio.url, "1" * 40)
    assert "does not know the legacy token" in unknown.message
    cut = of_token(studio.url, "1" * 39)
    assert "it has 39 characters, and Label Studio's have 40" in cut.message
    assert "is not set" in of_token(studio.url, "").message
    assert "has a space" in of_token(studio.url, "two words").message
    assert of_token(studio.url, studio.token).level == "ok"


def test_personal_access_tokens(
    protected: LabelStudioHost, folder: Path, studio: Studio, admin: Browser, token: str
) -> None:
    assert of_token(protected.url, token) == Finding("token", "ok", f"personal access token of {USER}")
    assert "of another Label Studio, was not copied whole, or is older than" in of_token(studio.url, token).message
    for cut in (token.rpartition(".")[0], token.partition(".")[0]):  # as Label Studio lists it
        assert "of the three parts" in of_token(protected.url, cut).message
    assert "is cut off at its end" in of_token(protected.url, token[:-3]).message
    access = admin.post("/api/token/refresh/", refresh=token).json()["access"]
    assert "holds an access token" in of_token(protected.url, access).message
    now = time.time()
    # That the key is right shows in a token that has not expired.
    assert of_token(protected.url, signed(folder, iat=int(now), exp=int(now) + 3600)).level == "ok"
    expired = of_token(protected.url, signed(folder, iat=int(now) - 7200, exp=int(now) - 3600))
    assert re.search(r"The personal access token in LABEL_STUDIO_API_KEY expired on 20\d\d-\d\d-\d\d", expired.message)


def test_revoked_tokens_and_users_who_were_removed(protected: LabelStudioHost, admin: Browser, token: str) -> None:
    link = admin.session.get(f"{admin.url}/api/invite", timeout=60).json()["invite_url"]
    second = signed_in(admin.url, link, "second@nextmask.local", "another-password")
    revoked = second.new_token()
    assert of_token(admin.url, revoked).level == "ok"
    second.post("/api/token/blacklist/", refresh=revoked.rpartition(".")[0]).raise_for_status()
    assert "was revoked" in of_token(admin.url, revoked).message
    kept = second.new_token()
    number = second.session.get(f"{admin.url}/api/current-user/whoami", timeout=60).json()["id"]
    admin.session.delete(f"{admin.url}/api/organizations/1/memberships/{number}/", timeout=60).raise_for_status()
    removed = of_token(admin.url, kept)
    assert removed.level == "problem"
    assert "removed from the organization" in removed.why
    admin.post("/api/jwt/settings", api_tokens_enabled=False).raise_for_status()
    try:
        assert "the organization does not allow this kind" in of_token(admin.url, token).message
    finally:
        admin.post("/api/jwt/settings", api_tokens_enabled=True).raise_for_status()


# -- what is blocked -------------------------------------------------------------------------------------------------
def of_protections(url: str, token: str, backend: str = BACKEND) -> list[Finding]:
    return list(check_protections(StudioClient(url, token, timeout=60), backend))


def check_blocked(url: str, token: str, protections: tuple[str, ...]) -> None:
    """What is named is what is on; and Label Studio has neither backend nor webhook afterwards."""
    client = StudioClient(url, token, timeout=60)
    number = int(client.create_project(title="blocked", label_config="<View/>")["id"])
    (finding,) = of_protections(url, token)
    assert finding.level == "problem"
    assert [name for name in BOTH if name in finding.message] == list(protections)
    assert "ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false" in finding.remedy
    assert (client.ml_backends(number), client.webhooks(number)) == ([], [])
    # A registration meets the same refusal.
    fields: dict[str, Any] = {"project": number, "url": BACKEND}
    if protections == ("ML_BLOCK_LOCAL_IP",):
        register = functools.partial(client.add_ml_backend, title="nextmask", **fields)
    else:
        register = functools.partial(client.add_webhook, actions=["TASKS_CREATED"], **fields)
    with pytest.raises(LabelStudioError) as refused:
        register()
    assert refused.value.status == 403
    client.delete_project(number)


def test_both_protections(protected: LabelStudioHost, token: str) -> None:
    check_blocked(protected.url, token, BOTH)
    unknown = of_protections(protected.url, token, "http://nextmask.invalid:9090")
    assert [finding.level for finding in unknown] == ["problem"]
    assert "cannot find the host" in unknown[0].message


def test_connect_names_the_protections_and_not_the_token(
    protected: LabelStudioHost, token: str, tmp_path: Path
) -> None:
    number = int(StudioClient(protected.url, token).create_project(title="blocked", label_config=BRUSH)["id"])
    environment = {
        **os.environ,
        "LABEL_STUDIO_URL": protected.url,
        "LABEL_STUDIO_API_KEY": token,
        "MODEL_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "ml_backend", "connect", f"{protected.url}/projects/{number}/data?tab=1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "blocks http://127.0.0.1:9090: ML_BLOCK_LOCAL_IP and SSRF_PROTECTION_ENABLED are on." in line
    assert "ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false label-studio start" in line
    assert "LABEL_STUDIO_API_KEY" not in line
    # nextmask serve says it at its start.
    found = look_at_label_studio(load_settings(label_studio_url=protected.url, label_studio_api_key=token))
    assert str(found) == line.removeprefix("Error: ")


def test_no_protection(studio: Studio, label_studio: StudioClient, make_project: Callable[..., int]) -> None:
    number = make_project(images=0)
    (finding,) = of_protections(studio.url, studio.token)
    assert finding.level == "ok"
    assert (label_studio.ml_backends(number), label_studio.webhooks(number)) == ([], [])


def test_the_fast_import_is_told_to_personal_tokens_only(
    protected: LabelStudioHost, token: str, label_studio: StudioClient
) -> None:
    assert fast_import(StudioClient(protected.url, token)) is True
    assert fast_import(label_studio) is None


@pytest.mark.parametrize("protection", BOTH)
def test_one_protection(
    label_studio_command: Path, folder: Path, first_starts: Path, protected: LabelStudioHost, protection: str
) -> None:
    """Last: each stops the Label Studio of this module and starts it again otherwise, on the same data."""
    protected.stop()
    with host_with(label_studio_command, folder, first_starts, (protection,)).running() as other:
        now = int(time.time())
        check_blocked(other.url, signed(folder, iat=now, exp=now + 3600), (protection,))
