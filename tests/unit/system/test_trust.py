"""TLS with certificates of an authority of one's own: trusted where the environment says so, and else what is said."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from certificates import Authority
from http_host import Host
from requests.utils import DEFAULT_CA_BUNDLE_PATH as PUBLIC
from wiring import make_settings

from ml_backend.doctor.installation.server import check_server
from ml_backend.doctor.label_studio.address import ask, check_address
from ml_backend.errors import ImageError, LabelStudioError
from ml_backend.images.hosts import ImageHosts
from ml_backend.label_studio import LabelStudio
from ml_backend.system.trust import issuer_of, trusting_session

LATER, EXPIRED = "20991231235959Z", "20210101000000Z"
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[Host]:
    with Host().serving(authority.certificate("127.0.0.1")) as host:
        host.route("/label-studio/api/version", {"release": "1.23.2", "label-studio-os-package": {}})
        host.route("/label-studio/api/projects/", {"results": [], "next": None})
        host.route("/label-studio/api/current-user/whoami", {"email": "a@b.example"})
        host.route("/label-studio/data/upload/1/a.png", b"an image")
        host.route("/image.png", b"another image")
        yield host


def studio(host: Host) -> LabelStudio:
    hosts = ImageHosts.parse("127.0.0.1")
    return LabelStudio(f"{host.url}/label-studio", "0" * 40, timeout=5.0, image_hosts=hosts)


def fetched(client: LabelStudio, reference: str) -> bytes:
    with client.fetch(reference) as chunks:
        return b"".join(chunks)


def directory(authority: Authority, folder: Path) -> Path:
    folder.mkdir()
    (folder / "own.pem").write_bytes(authority.file.read_bytes())
    subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    "named",
    [
        ("SSL_CERT_FILE",),
        ("SSL_CERT_DIR",),
        ("REQUESTS_CA_BUNDLE",),
        ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE=public"),
        ("SSL_CERT_DIR", "REQUESTS_CA_BUNDLE=public"),
    ],
    ids=" ".join,
)
def test_every_client_trusts_what_the_environment_names(
    authority: Authority, secure: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: tuple[str, ...]
) -> None:
    own = directory(authority, tmp_path / "own") if "SSL_CERT_DIR" in named else authority.file
    for name in named:
        variable, _, public = name.partition("=")
        monkeypatch.setenv(variable, PUBLIC if public else str(own))
    client = studio(secure)
    assert client.whoami()["email"] == "a@b.example"
    assert fetched(client, "/data/upload/1/a.png") == b"an image"
    assert fetched(client, f"{secure.url}/image.png") == b"another image"
    assert ask(f"{secure.url}/label-studio").release == "1.23.2"


def test_public_authorities_stay_trusted_beside_ones_own(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SSL_CERT_FILE adds: images on public hosts need no second bundle."""
    public = Authority(tmp_path / "public", "Public CA")
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(public.file))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    for signer in (authority, public):
        with Host().serving(signer.certificate("127.0.0.1")) as host:
            assert trusting_session().get(host.url, timeout=5).status_code == 404


def test_a_bundle_alone_is_all_that_is_trusted(
    authority: Authority, secure: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system trusts does not widen a bundle that somebody chose."""
    paths = ssl.get_default_verify_paths()
    system = paths._replace(cafile=str(authority.file), openssl_cafile=str(authority.file), capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: system)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", PUBLIC)
    with pytest.raises(requests.exceptions.SSLError):
        trusting_session().get(secure.url, timeout=5)


class TestNotTrusted:
    def test_an_unknown_authority(self, secure: Host, tmp_path: Path) -> None:
        with pytest.raises(LabelStudioError, match="nobody who is trusted here has signed it; set SSL_CERT_FILE"):
            studio(secure).whoami()
        with pytest.raises(ImageError, match="nobody who is trusted here has signed it; set SSL_CERT_FILE"):
            fetched(studio(secure), "/data/upload/1/a.png")
        settings = make_settings(tmp_path, label_studio_url=f"{secure.url}/label-studio")
        finding = check_address(settings, ask(settings.label_studio_url))
        assert finding.level == "problem"
        assert f"LABEL_STUDIO_URL = {secure.url}/label-studio does not answer" in finding.message
        assert "It is signed by Example Hospital CA; trusted are those of" in finding.message
        assert "SSL_CERT_FILE=FILE" in finding.remedy

    def test_the_bundle_that_was_used_is_named(
        self, secure: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", PUBLIC)
        settings = make_settings(tmp_path, label_studio_url=secure.url)
        assert f"REQUESTS_CA_BUNDLE = {PUBLIC}" in check_address(settings, ask(settings.label_studio_url)).message

    @pytest.mark.parametrize(
        ("name", "until", "why"),
        [
            ("127.0.0.1", EXPIRED, "it has expired"),
            ("labels.example.org", LATER, "it is for another host name"),
            ("127.0.0.2", LATER, "it is for another host name"),
        ],
    )
    def test_other_faults_are_no_matter_of_trust(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, until: str, why: str
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        with Host().serving(authority.certificate(name, until=until)) as host:
            with pytest.raises(LabelStudioError, match=why):
                studio(host).whoami()
            settings = make_settings(tmp_path, label_studio_url=host.url)
            finding = check_address(settings, ask(settings.label_studio_url))
        assert why in finding.message
        assert "SSL_CERT_FILE" not in finding.message + finding.remedy

    def test_a_bundle_that_is_not_there(self, secure: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
        missing = f"REQUESTS_CA_BUNDLE names a file that is not there .{tmp_path / 'nowhere.pem'}"
        with pytest.raises(LabelStudioError, match=missing):
            studio(secure).whoami()
        assert "is not there" in ask(secure.url).failure

    def test_nextmask_itself_behind_such_a_certificate(self, secure: Host, tmp_path: Path) -> None:
        settings = make_settings(tmp_path, backend_url=secure.url)
        (finding,) = check_server(settings, None, "")
        assert "nobody who is trusted here has signed it" in finding.message

    def test_http_where_https_was_meant(self, host: Host) -> None:
        assert ask(host.url.replace("http://", "https://")).failure == "it does not speak https"

    def test_the_issuer_of_nothing(self) -> None:
        assert issuer_of("https://127.0.0.1:9", 1.0) == ""
