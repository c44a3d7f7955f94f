"""Fetching images: from allowed addresses only, at every hop, with credentials for Label Studio only, and in time."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from http_host import Answer, Host

from ml_backend.errors import ImageError, LabelStudioRefused
from ml_backend.images.hosts import ImageHosts
from ml_backend.images.references import as_imported, in_project, shown_reference
from ml_backend.label_studio import LabelStudio

KEY = "5ec2e7" * 6 + "abcd"
ANYWHERE = "127.0.0.1"

Lookup = dict[str, list[str]]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Lookup:
    """A resolver whose answers the test decides: each asking for a name takes the next of its addresses."""
    known: Lookup = {}
    real = socket.getaddrinfo

    def lookup(name: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        answers = known.get(name)
        if answers is None:
            return real(name, port, *arguments, **options)
        return real(answers.pop(0) if len(answers) > 1 else answers[0], port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


def studio(host: Host, hosts: str = "public", **options: Any) -> LabelStudio:
    return LabelStudio(host.url, KEY, timeout=5.0, image_hosts=ImageHosts.parse(hosts), **options)


def read(client: LabelStudio, reference: str) -> bytes:
    with client.fetch(reference) as chunks:
        return b"".join(chunks)


def refused(client: LabelStudio, reference: str) -> str:
    with pytest.raises(ImageError) as caught:
        read(client, reference)
    return str(caught.value)


class TestAddresses:
    @pytest.mark.parametrize(
        "spelling",
        ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]", "0"],
    )
    def test_this_machine_is_refused_in_every_spelling(self, host: Host, elsewhere: Host, spelling: str) -> None:
        port = elsewhere.url.rpartition(":")[2]
        message = refused(studio(host), f"http://{spelling}:{port}/a.png")
        assert elsewhere.requests == []
        assert re.search(r"add \S+ to NEXTMASK_IMAGE_HOSTS", message) or "host name is not known" in message

    @pytest.mark.parametrize("where", ["169.254.169.254", "[fd00:ec2::254]", "100.64.0.1", "10.0.0.1:8080"])
    def test_private_addresses_are_refused_without_a_connection(self, host: Host, where: str) -> None:
        message = refused(studio(host), f"http://{where}/latest/meta-data/")
        assert "may not be asked" in message
        advised = re.search(r"add (\S+) to", message)
        assert advised
        ImageHosts.parse(advised.group(1))

    def test_the_entry_that_the_error_advises_is_what_it_takes(self, host: Host, elsewhere: Host) -> None:
        elsewhere.route("/a.png", b"image")
        advised = re.search(r"add (\S+) to NEXTMASK_IMAGE_HOSTS", refused(studio(host), f"{elsewhere.url}/a.png"))
        assert advised
        assert read(studio(host, f"public,{advised.group(1)}"), f"{elsewhere.url}/a.png") == b"image"

    def test_a_public_name_of_a_private_address(self, host: Host, elsewhere: Host, names: Lookup) -> None:
        names["images.example.org"] = ["127.0.0.1"]
        reference = elsewhere.url.replace("127.0.0.1", "images.example.org") + "/a.png"
        assert "images.example.org may not be asked" in refused(studio(host), reference)
        assert elsewhere.requests == []
        elsewhere.route("/a.png", b"image")
        for allowed in ("images.example.org", "*.example.org", "127.0.0.0/8"):
            assert read(studio(host, allowed), reference) == b"image"
        assert elsewhere.requests[0].headers["Host"].startswith("images.example.org")

    def test_a_name_that_changes_its_address_after_the_check(
        self, host: Host, elsewhere: Host, names: Lookup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rebinding: the first answer is public, all later ones are this machine. Only the first is ever used."""
        names["rebinding.example.org"] = ["192.88.99.7", "127.0.0.1"]
        tried: list[str] = []

        def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
            tried.append(address[0])
            raise OSError("no such network here")

        monkeypatch.setattr("ml_backend.label_studio.guard.connection.create_connection", connect)
        monkeypatch.setattr("ml_backend.label_studio.files.WAITS", ())
        refused(studio(host), elsewhere.url.replace("127.0.0.1", "rebinding.example.org") + "/a.png")
        assert tried == ["192.88.99.7"]

    def test_of_several_addresses_only_allowed_ones_are_tried(
        self, host: Host, elsewhere: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = int(elsewhere.url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("10.0.0.9", "127.0.0.1", "10.0.0.8")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        elsewhere.route("/a.png", b"image")
        client = studio(host, "127.0.0.1/32")
        monkeypatch.setattr(
            "ml_backend.label_studio.guard.connection.create_connection",
            lambda address, *_, **__: _plain_connection(address),
        )
        assert read(client, f"http://images.lan:{port}/a.png") == b"image"

    def test_label_studio_is_always_asked(self, host: Host) -> None:
        host.route("/a.png", b"image")
        assert read(studio(host, ""), "/a.png") == b"image"

    def test_without_public_no_other_host_is_asked(self, host: Host, names: Lookup) -> None:
        names["images.example.org"] = ["93.184.216.34"]
        message = refused(studio(host, "10.0.0.0/8"), "https://images.example.org/a.png")
        assert "add images.example.org to NEXTMASK_IMAGE_HOSTS" in message

    def test_a_proxy_is_asked_only_for_hosts_that_are_named(
        self, host: Host, elsewhere: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy resolves names itself, so an address cannot be looked at."""
        monkeypatch.setenv("http_proxy", elsewhere.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        elsewhere.route("/a.png", b"image")
        message = refused(studio(host, "public,10.0.0.0/8"), "http://images.example.org/a.png")
        assert "add images.example.org to NEXTMASK_IMAGE_HOSTS" in message
        assert elsewhere.requests == []
        assert read(studio(host, "images.example.org"), "http://images.example.org/a.png") == b"image"
        assert "Authorization" not in elsewhere.requests[0].headers


def _plain_connection(address: tuple[str, int]) -> socket.socket:
    assert address[0] == "127.0.0.1", "an address that is not allowed"
    sock = socket.socket()
    sock.connect(address)
    return sock


class TestTls:
    def test_a_checked_address_is_asked_under_its_name(
        self, host: Host, names: Lookup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SNI, certificate and Host are those of the name, though the address is what is connected to."""
        certificate = _certificate(tmp_path, "images.example.org")
        names["images.example.org"] = names["other.example.org"] = ["127.0.0.1"]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        asked: list[str] = []
        with Host().serving() as secure:
            secure.route("/a.png", b"image")
            with _tls(secure, certificate, asked) as port:
                client = studio(host, "127.0.0.0/8")
                assert read(client, f"https://images.example.org:{port}/a.png") == b"image"
                assert "certificate" in refused(client, f"https://other.example.org:{port}/a.png")
        assert asked == ["images.example.org", "other.example.org"]


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_each_hop_must_be_allowed(self, host: Host, elsewhere: Host, status: int) -> None:
        host.route("/tasks/1/resolve/", Answer(b"", status, {"Location": f"{elsewhere.url}/b.png?signature=5ec2e7x"}))
        message = refused(studio(host), "/tasks/1/resolve/?fileuri=x")
        assert f"add {elsewhere.url[7:]} to NEXTMASK_IMAGE_HOSTS" in message
        assert "redirected to 127.0.0.1" in message
        assert "5ec2e7" not in message
        assert elsewhere.requests == []

    def test_a_public_host_leads_to_no_private_one(self, host: Host, elsewhere: Host, names: Lookup) -> None:
        names["images.example.org"] = ["127.0.0.1"]
        elsewhere.route("/a.png", Answer(b"", 302, {"Location": "http://169.254.169.254/latest/meta-data/"}))
        reference = elsewhere.url.replace("127.0.0.1", "images.example.org") + "/a.png"
        assert "169.254.169.254 may not be asked" in refused(studio(host, "images.example.org"), reference)

    def test_credentials_do_not_come_back(self, host: Host, elsewhere: Host) -> None:
        host.route("/a.png", Answer(b"", 302, {"Location": f"{elsewhere.url}/b.png"}))
        elsewhere.route("/b.png", Answer(b"", 302, {"Location": f"{host.url}/c.png"}))
        host.route("/c.png", b"image")
        assert read(studio(host, ANYWHERE), "/a.png") == b"image"
        assert ["Authorization" in request.headers for request in host.requests] == [True, False]

    def test_cookies_are_not_kept(self, host: Host, elsewhere: Host) -> None:
        for one in (host, elsewhere):
            one.route("/a.png", Answer(b"image", headers={"Set-Cookie": "sessionid=5ec2e7; Path=/"}))
        client = studio(host, ANYWHERE)
        for reference in ("/a.png", f"{elsewhere.url}/a.png"):
            read(client, reference)
            read(client, reference)
        assert not any("Cookie" in request.headers for request in [*host.requests, *elsewhere.requests])

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/a", "http://u:5ec2e7@127.0.0.1/", "//"])
    def test_where_a_redirect_may_not_lead(self, host: Host, elsewhere: Host, target: str) -> None:
        elsewhere.route("/a.png", Answer(b"", 302, {"Location": target}))
        assert "5ec2e7" not in refused(studio(host, ANYWHERE), f"{elsewhere.url}/a.png")

    def test_from_https_to_http_only_label_studio_may_lead(
        self, host: Host, elsewhere: Host, names: Lookup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate = _certificate(tmp_path, "studio.example.org")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        names["studio.example.org"] = ["127.0.0.1"]
        elsewhere.route("/b.png", b"image")
        with Host().serving() as secure, _tls(secure, certificate, []) as port:
            secure.route("/a.png", Answer(b"", 302, {"Location": f"{elsewhere.url}/b.png"}))
            url = f"https://studio.example.org:{port}"
            assert "from https to http" in refused(studio(host, ANYWHERE), f"{url}/a.png")
            assert elsewhere.requests == []
            own = LabelStudio(url, KEY, image_hosts=ImageHosts.parse(ANYWHERE))
            assert read(own, "/a.png") == b"image"
            assert "Authorization" in secure.requests[1].headers
            assert "Authorization" not in elsewhere.requests[0].headers


class TestReferences:
    @pytest.mark.parametrize("uri", ["s3://b/a.png", "gs://b/folder/ü #?.png", "azure-blob://box/a b.png"])
    def test_cloud_files_are_asked_of_label_studio_for_the_project(self, host: Host, uri: str) -> None:
        host.route("/projects/7/resolve/", b"image")
        assert read(studio(host), in_project(uri, 7)) == b"image"
        (request,) = host.requests
        assert base64.urlsafe_b64decode(request.query["fileuri"][0]).decode() == uri
        assert "Authorization" in request.headers

    def test_a_path_prefix_is_kept(self, host: Host) -> None:
        host.route("/studio/projects/7/resolve/", b"image")
        client = LabelStudio(f"{host.url}/studio", KEY)
        assert read(client, in_project("s3://b/a.png", 7)) == b"image"

    @pytest.mark.parametrize("base", ["", "/studio", "http://host", "https://host:8080/studio"])
    @pytest.mark.parametrize("path", ["tasks/5/resolve/", "tasks/5/presign/", "projects/3/resolve/"])
    def test_what_label_studio_resolved_is_recognised(self, base: str, path: str) -> None:
        uri = "s3://b/ä/1.png"
        code = base64.urlsafe_b64encode(uri.encode()).decode()
        assert as_imported(f"{base}/{path}?fileuri={code}") == uri
        assert in_project(f"{base}/{path}?fileuri={code}", 7) == in_project(uri, 7)

    @pytest.mark.parametrize(
        "reference",
        [
            "/tasks/5/resolve/?fileuri=" + base64.urlsafe_b64encode(b"file:///etc/passwd").decode(),
            "/tasks/5/resolve/?f=x",
            "/tasks/5/resolve/?fileuri=___",
            "/data/upload/1/a.png",
            "http://h/a.png?x=s3://b/a.png",
            "s3:a.png",
        ],
    )
    def test_other_references_stay_as_they_are(self, reference: str) -> None:
        assert in_project(reference, 7) == reference

    @pytest.mark.parametrize(
        ("status", "reason"), [(404, "Cloud Storage"), (424, "could not read it from its storage")]
    )
    def test_storages_that_fail_say_what_to_do(self, host: Host, status: int, reason: str) -> None:
        host.route("/projects/7/resolve/", Answer(b"", status))
        message = refused(studio(host), in_project("s3://b/a.png", 7))
        assert message.startswith("Image s3://b/a.png cannot be fetched: ")
        assert reason in message

    def test_passwords_in_an_address_are_refused_and_not_shown(self, host: Host, elsewhere: Host) -> None:
        message = refused(studio(host, ANYWHERE), elsewhere.url.replace("//", "//user:5ec2e7@") + "/a.png")
        assert "user name or password" in message
        assert "5ec2e7" not in message
        assert elsewhere.requests == []

    def test_label_studio_by_another_name_is_recognised(self, host: Host, elsewhere: Host) -> None:
        message = refused(studio(host), f"{elsewhere.url}/data/upload/1/a.png")
        assert "set NEXTMASK_LABEL_STUDIO_PUBLIC_URL" in message

    @pytest.mark.parametrize(
        ("reference", "text"),
        [
            ("http://u:p@h/a.png?sig=1#x", "http://h/a.png"),
            ("//u:p@h/a.png?sig=1", "//h/a.png"),
            ("s3://b/a?b#c.png", "s3://b/a?b#c.png"),
            ("/data/local-files/?d=a/b.png", "/data/local-files/?d=a/b.png"),
            ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUg", "data:image/png;base64,iVBORw0K…"),
            (in_project("s3://b/a.png", 7), "s3://b/a.png"),
        ],
    )
    def test_what_messages_show(self, reference: str, text: str) -> None:
        assert shown_reference(reference) == text


PUBLIC = "https://Labels.Example.org/label-studio"
FILES = ["data/upload/3/a.png", "data/local-files/?d=a%20b.png", "storage-data/uploaded/?filepath=a.png"]


class TestPublicAddress:
    """Tasks name Label Studio's files by its public address, and nextmask reaches it by another."""

    def studio(self, host: Host, path: str = "", **options: Any) -> LabelStudio:
        client = LabelStudio(host.url + path, KEY, timeout=5.0, public_urls=lambda: [PUBLIC], **options)
        for file in FILES:
            host.route(f"{path}/{file.partition('?')[0]}", f"the file {file}".encode())
        return client

    @pytest.mark.parametrize("path", ["", "/inner", "/label-studio"])
    @pytest.mark.parametrize(
        "base",
        [
            "/label-studio",
            "/another/prefix",
            "",
            "https://labels.example.org/label-studio",
            "HTTPS://LABELS.EXAMPLE.ORG:443/label-studio",
            "https://labels.example.org/other/../label-studio",
        ],
    )
    @pytest.mark.parametrize("file", FILES)
    def test_its_files_are_asked_of_the_inner_one_with_the_token(
        self, host: Host, path: str, base: str, file: str
    ) -> None:
        assert read(self.studio(host, path), f"{base}/{file}") == f"the file {file}".encode()
        (request,) = host.requests
        assert request.headers["Authorization"] == f"Token {KEY}"
        assert request.path == f"{path}/{file.partition('?')[0]}"
        assert not request.query or request.query in ({"d": ["a b.png"]}, {"filepath": ["a.png"]})

    @pytest.mark.parametrize(
        "address",
        [
            "https://labels.example.org.evil.example/label-studio/data/upload/3/a.png",
            "https://evil.example/label-studio/data/upload/3/a.png",
            "https://evil.example/https://labels.example.org/label-studio/data/upload/3/a.png",
            "https://evil.example?https://labels.example.org/label-studio/data/upload/3/a.png",
            "https://evil.example#https://labels.example.org/label-studio/data/upload/3/a.png",
            "https://labels.example.org:8443/label-studio/data/upload/3/a.png",
            "http://labels.example.org/label-studio/data/upload/3/a.png",
            "https://labels.example.org/label-studio-2/data/upload/3/a.png",
            "https://labels.example.org/label-studio/../data/upload/3/a.png",
            "https://labels.example.org/label-studio%2Fdata/upload/3/a.png",
            "https://labels.example.org/label-studio/images/3/a.png",
            "https://labels.example.org/images/a.png",
            "https://labels.example.org\\@evil.example/label-studio/data/upload/3/a.png",
        ],
    )
    def test_other_addresses_are_not_mapped(self, host: Host, elsewhere: Host, names: Lookup, address: str) -> None:
        for name in ("labels.example.org", "evil.example", "labels.example.org.evil.example"):
            names[name] = ["10.0.0.1"]
        client = self.studio(host)
        assert "may not be asked" in refused(client, address) or "not valid" in refused(client, address)
        assert host.requests == []

    @pytest.mark.parametrize("public", [[PUBLIC], []])
    def test_advice_leads_people_to_the_address_that_they_have(self, host: Host, public: list[str]) -> None:
        host.route("/inner/api/current-user/whoami", Answer({"detail": "Invalid token."}, 401))
        client = LabelStudio(f"{host.url}/inner", KEY, timeout=5.0, public_urls=lambda: public)
        with pytest.raises(LabelStudioRefused) as caught:
            client.whoami()
        page = "/user/account/personal-access-token"
        assert f"{PUBLIC if public else host.url + '/inner'}{page}" in str(caught.value)

    @pytest.mark.parametrize("user", ["user@", "user:password@", "labels.example.org@"])
    def test_an_address_with_a_user_is_refused(self, host: Host, user: str) -> None:
        message = refused(self.studio(host), f"https://{user}labels.example.org/label-studio/data/upload/3/a.png")
        assert "user name or password" in message
        assert host.requests == []

    def test_an_address_without_a_scheme_is_refused(self, host: Host) -> None:
        assert "scheme 'none'" in refused(self.studio(host), "//labels.example.org/label-studio/data/upload/3/a.png")
        assert host.requests == []

    @pytest.mark.parametrize(
        "path", ["other/data/upload/3/a.png", "inner/data/upload/%2e%2e/%2e%2e/%2e%2e/other/a.png", "a.png"]
    )
    def test_another_program_beside_it_gets_no_token(self, host: Host, path: str) -> None:
        """Below one host, Label Studio has a part of the paths; an address that names another is asked without."""
        client = self.studio(host, "/inner")
        host.route("/a.png", b"an image")
        with contextlib.suppress(ImageError):
            read(client, f"{host.url}/{path}")
        assert host.requests
        assert all(
            "Authorization" not in request.headers or request.path.startswith("/inner/data/upload/3")
            for request in host.requests
        )

    @pytest.mark.parametrize(("status", "reason"), [(401, "refused (401)"), (404, "not found (404)")])
    def test_who_may_be_label_studio_by_another_name_is_said(
        self, host: Host, elsewhere: Host, status: int, reason: str
    ) -> None:
        elsewhere.route("/data/upload/3/a.png", Answer(b"", status))
        client = studio(host, hosts=ANYWHERE)
        message = refused(client, f"{elsewhere.url}/data/upload/3/a.png")
        assert f"{reason}. If this is Label Studio by another name, set NEXTMASK_LABEL_STUDIO_PUBLIC_URL" in message


class TestLimits:
    def test_an_image_that_drips_is_cut_off(self, host: Host) -> None:
        """Each byte comes well within the time-out of a read; all of them would take minutes."""
        for part in ("header", "body", "chunks"):
            with _dripping(part) as url:
                client = studio(host, ANYWHERE, image_seconds=1.0)
                assert "within the 1 s of NEXTMASK_IMAGE_SECONDS" in refused(client, f"{url}/a.png"), part

    def test_the_time_is_that_of_all_hops(self, host: Host) -> None:
        with _dripping("body") as url:
            host.route("/a.png", Answer(b"", 302, {"Location": f"{url}/b.png"}))
            client = studio(host, ANYWHERE, image_seconds=1.0)
            assert "NEXTMASK_IMAGE_SECONDS" in refused(client, "/a.png")

    def test_a_connection_is_good_for_the_next_image_after_the_time(self, host: Host) -> None:
        host.route("/a.png", b"image")
        client = studio(host, image_seconds=0.5)
        assert read(client, "/a.png") == b"image"
        threading.Event().wait(0.7)  # longer than the first image had
        assert read(client, "/a.png") == b"image"

    def test_endless_headers_end(self, host: Host) -> None:
        for name, count in (("X-Long", 1), ("X-Many", 5000)):
            headers = {f"{name}-{n}": "x" * (200_000 if count == 1 else 10) for n in range(count)}
            host.route("/a.png", Answer(b"image", headers=headers))
            assert "cannot be fetched" in refused(studio(host), "/a.png")

    def test_broken_compression_is_said(self, host: Host) -> None:
        host.route("/a.png", Answer(b"this is no gzip", headers={"Content-Encoding": "gzip"}))
        assert "broke off" in refused(studio(host), "/a.png")

    def test_what_is_compressed_all_the_same_is_unpacked_in_bounded_pieces(self, host: Host, tmp_path: Path) -> None:
        """A gigabyte of zeros in a megabyte: the limit on bytes ends it, and memory stays small."""
        bomb = gzip.compress(bytes(1 << 30), 9)
        assert len(bomb) < 1_100_000
        host.route("/bomb.png", Answer(bomb, headers={"Content-Encoding": "gzip"}))
        host.route("/twice.png", Answer(gzip.compress(bomb, 9), headers={"Content-Encoding": "gzip, gzip"}))
        host.route("/small.png", Answer(gzip.compress(b"\x89PNG"), headers={"Content-Encoding": "gzip"}))
        assert read(studio(host), "/small.png") == b"\x89PNG"
        program = """
            import json, resource, sys
            from pathlib import Path
            from ml_backend.errors import ImageError
            from ml_backend.images.cache import ImageCache
            from ml_backend.label_studio import LabelStudio
            url, folder = sys.argv[1:]
            client = LabelStudio(url, "key")
            limits = {"max_bytes": 10**9, "max_image_bytes": 5 * 10**7, "max_pixels": 10**6}
            cache = ImageCache(Path(folder), client.fetch, **limits)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            said = []
            for name in ("bomb", "twice"):
                try:
                    cache.path(f"/{name}.png")
                except ImageError as error:
                    said.append(str(error))
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps([said, (after - before) / 1024]))
        """
        command = [sys.executable, "-c", textwrap.dedent(program), host.url, str(tmp_path)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        said, megabytes = json.loads(found.stdout)
        assert len(said) == 2
        assert all("NEXTMASK_MAX_IMAGE_BYTES" in message for message in said)
        assert megabytes < 60

    def test_nothing_of_a_signed_address_is_logged(
        self, host: Host, elsewhere: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also when a connection breaks: urllib3 would log the path of each retry."""
        caplog.set_level(logging.INFO)
        with Host().serving() as gone:
            dead = gone.url
        signed = "b.png?X-Amz-Signature=5ec2e7"
        host.route("/a.png", Answer(b"", 303, {"Location": f"{elsewhere.url}/{signed}"}))
        host.route("/c.png", Answer(b"", 303, {"Location": f"{dead}/{signed}"}))
        elsewhere.route("/b.png", Answer(b"", 503), Answer(b"half", length=8))
        client = studio(host, ANYWHERE)
        messages = [refused(client, "/a.png"), refused(client, "/c.png")]
        assert "5ec2e7" not in caplog.text + "".join(messages)
        assert len(elsewhere.requests) == 2  # an answer of 503 is asked for again


@contextmanager
def _accepting(serve: Callable[[socket.socket], None], stop: threading.Event) -> Iterator[int]:
    """Let each connection be served by a thread of its own, until the end, which `stop` says; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def accept() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


@contextmanager
def _dripping(part: str) -> Iterator[str]:
    """A server that sends a byte ten times a second, of a header without an end or of a body."""
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        start = {"header": b"HTTP/1.1 200 OK\r\nX: ", "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"}
        start["chunks"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(start[part])
                while not stop.wait(0.1):
                    connection.sendall(b"x")
            except OSError:
                pass

    with _accepting(serve, stop) as port:
        yield f"http://127.0.0.1:{port}"


def _certificate(folder: Path, name: str) -> Path:
    """A certificate of its own authority, with its key, in one file."""
    file, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file


@contextmanager
def _tls(plain: Host, certificate: Path, asked: list[str]) -> Iterator[int]:
    """TLS in front of a host; notes the names that clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _sock, name, _context: asked.append(str(name))
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as client:
                client.settimeout(5)
                behind = socket.create_connection(("127.0.0.1", int(plain.url.rpartition(":")[2])))
                with behind:
                    behind.sendall(client.recv(65536).replace(b"keep-alive", b"close"))
                    behind.settimeout(1)
                    try:
                        while data := behind.recv(65536):
                            client.sendall(data)
                    except TimeoutError:
                        pass
        except OSError:
            pass

    with _accepting(serve, stop) as port:
        yield port
