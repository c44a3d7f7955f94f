"""The client of Label Studio against a small HTTP server with real sockets, statuses, redirects and slow answers."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from http_host import Answer, Host, Request, Route

from ml_backend.errors import (
    ConfigurationError,
    ImageError,
    LabelStudioError,
    LabelStudioMisread,
    LabelStudioNotFound,
    LabelStudioRefused,
    LabelStudioUnavailable,
)
from ml_backend.images.hosts import ImageHosts
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.queries import host_time
from ml_backend.label_studio.tokens import make_token

KEY = "5ec2e7" * 6 + "abcd"
PERSONAL = ".".join(
    [
        base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode(),
        base64.urlsafe_b64encode(b'{"token_type":"refresh"}').decode(),
        f"5ec2e7signature{'a' * 28}",
    ]
)
WHOAMI = "/api/current-user/whoami"


@pytest.fixture
def client(host: Host) -> LabelStudio:
    """May fetch images from this machine, where all hosts of these tests are."""
    return LabelStudio(host.url, KEY, timeout=2.0, image_hosts=ImageHosts.parse("127.0.0.1"))


def read(client: LabelStudio, reference: str) -> bytes:
    with client.fetch(reference) as chunks:
        return b"".join(chunks)


def access_token(number: int, life: float = 300.0) -> str:
    claims = {"iat": 1000.0, "exp": 1000.0 + life, "number": number}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"head.{payload}.signature{number}"


def selling(life: float = 300.0) -> Route:
    """Sell a new access token each time."""
    counter = iter(range(1000))
    return lambda _: Answer({"access": access_token(next(counter), life)})


class TestTokens:
    def test_a_legacy_token_is_sent_as_it_is(self, host: Host, client: LabelStudio) -> None:
        host.route(WHOAMI, {"id": 7})
        assert client.whoami() == {"id": 7}
        assert host.requests[0].headers["Authorization"] == f"Token {KEY}"

    def test_a_personal_token_buys_an_access_token_and_keeps_it(self, host: Host) -> None:
        host.routes["/api/token/refresh/"] = selling()
        host.route(WHOAMI, {"id": 7})
        client = LabelStudio(host.url, f" {PERSONAL}\n")
        client.whoami()
        client.whoami()
        (exchange,) = host.seen("/api/token/refresh/")
        assert json.loads(exchange.body) == {"refresh": PERSONAL}
        assert "Authorization" not in exchange.headers
        assert {r.headers["Authorization"] for r in host.seen(WHOAMI)} == {f"Bearer {access_token(0)}"}

    def test_an_access_token_is_replaced_before_it_ends(self, host: Host) -> None:
        host.routes["/api/token/refresh/"] = selling(life=30.2)
        host.route(WHOAMI, {"id": 7})
        client = LabelStudio(host.url, PERSONAL)
        client.whoami()
        time.sleep(0.3)
        client.whoami()
        assert len(host.seen("/api/token/refresh/")) == 2

    def test_a_refused_access_token_is_replaced_once(self, host: Host) -> None:
        host.routes["/api/token/refresh/"] = selling()
        host.route(WHOAMI, Answer({"detail": "expired"}, 401), {"id": 7})
        assert LabelStudio(host.url, PERSONAL).whoami() == {"id": 7}
        first, second = host.seen(WHOAMI)
        assert first.headers["Authorization"] != second.headers["Authorization"]

    def test_a_personal_token_that_is_refused_twice_is_an_error_that_says_what_to_do(self, host: Host) -> None:
        host.routes["/api/token/refresh/"] = selling()
        host.route(WHOAMI, Answer({"detail": "Authentication credentials were not provided."}, 401))
        with pytest.raises(LabelStudioRefused, match="personal access token") as caught:
            LabelStudio(host.url, PERSONAL).whoami()
        assert caught.value.status == 401
        assert len(host.seen(WHOAMI)) == 2

    def test_a_revoked_personal_token_is_an_error_that_says_what_to_do(self, host: Host) -> None:
        host.route("/api/token/refresh/", Answer({"detail": "Token is blacklisted"}, 401))
        with pytest.raises(LabelStudioRefused, match=r"blacklisted.*was revoked.*Create a Personal Access Token"):
            LabelStudio(host.url, PERSONAL).whoami()

    def test_a_refused_legacy_token_names_the_setting_and_where_to_allow_it(self, host: Host) -> None:
        host.route(WHOAMI, Answer({"detail": "legacy token authentication has been disabled"}, 401))
        with pytest.raises(LabelStudioRefused, match=r"disabled.*LABEL_STUDIO_API_KEY.*/organization, API Tokens"):
            LabelStudio(host.url, KEY).whoami()
        assert len(host.requests) == 1

    def test_many_threads_buy_one_access_token(self, host: Host) -> None:
        sell = selling()

        def slowly(request: Request) -> Answer:
            time.sleep(0.1)
            return sell(request)

        host.routes["/api/token/refresh/"] = slowly
        host.route(WHOAMI, {"id": 7})
        client = LabelStudio(host.url, PERSONAL)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: client.whoami()["id"], range(16))) == {7}
        assert len(host.seen("/api/token/refresh/")) == 1

    @pytest.mark.parametrize("key", ["", "  ", "two words", "töken"])
    def test_what_cannot_be_a_token_is_a_configuration_error(self, key: str) -> None:
        with pytest.raises(ConfigurationError, match="LABEL_STUDIO_API_KEY") as caught:
            LabelStudio("http://localhost:8080", key)
        assert not key.strip() or key.strip() not in str(caught.value)

    @pytest.mark.parametrize("key", [KEY, PERSONAL])
    def test_no_secret_is_shown_or_logged(self, host: Host, key: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        host.routes["/api/token/refresh/"] = selling()
        host.route(WHOAMI, Answer({"detail": "no"}, 403))
        host.route("/data/upload/1/x.png", Answer(b"", 401))
        client = LabelStudio(host.url, key, timeout=0.5)
        shown = [repr(client), repr(client.transport), repr(make_token(key, host.url, str)), str(vars(client))]
        with pytest.raises(LabelStudioRefused) as refused:
            client.whoami()
        with pytest.raises(ImageError) as broken:
            read(client, "/data/upload/1/x.png")
        with pytest.raises(LabelStudioError) as missing:
            client.project(7)
        shown += [repr(error.value) + str(error.getrepr(style="long")) for error in (refused, broken, missing)]
        for text in [*shown, caplog.text]:
            assert "5ec2e7" not in text
            assert "signature" not in text


class TestErrors:
    @pytest.mark.parametrize(
        "url", ["", "localhost:8080", "ftp://host", "http://", "http://user:secret@host", "http://host/?token=secret"]
    )
    def test_what_is_no_address_is_a_configuration_error(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="LABEL_STUDIO_URL") as caught:
            LabelStudio(url, KEY)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, LabelStudioError),
            (401, LabelStudioRefused),
            (403, LabelStudioRefused),
            (404, LabelStudioNotFound),
            (500, LabelStudioUnavailable),
        ],
    )
    def test_statuses_become_kinds_of_errors(
        self, host: Host, client: LabelStudio, status: int, kind: type[LabelStudioError]
    ) -> None:
        body = {"detail": "Validation error", "validation_errors": {"model_version": ["doesn't exist" + "!" * 999]}}
        host.route("/api/projects/3/", Answer(body, status))
        with pytest.raises(kind, match=r"Validation error.*model_version.*doesn't exist") as caught:
            client.update_project(3, model_version="x")
        assert type(caught.value) is kind
        assert caught.value.status == status
        assert len(str(caught.value)) < 900

    def test_reads_are_tried_again(self, host: Host, client: LabelStudio) -> None:
        host.route(WHOAMI, Answer(b"busy", 503), {"id": 7})
        assert client.whoami() == {"id": 7}

    def test_writes_are_not_tried_again(self, host: Host, client: LabelStudio) -> None:
        host.route("/api/projects/", Answer(b"busy", 503), {"id": 1})
        with pytest.raises(LabelStudioUnavailable, match="503"):
            client.create_project(title="x")
        assert len(host.requests) == 1

    def test_reads_whose_answer_breaks_off_are_tried_again(self, host: Host, client: LabelStudio) -> None:
        half = Answer(b'{"i', headers={"Content-Type": "application/json"})
        host.route(WHOAMI, Answer(b'{"i', length=9), half, {"id": 7})
        assert client.whoami() == {"id": 7}
        host.route(WHOAMI, half)
        with pytest.raises(LabelStudioUnavailable, match=f"GET {WHOAMI} with JSON that is cut off"):
            client.whoami()

    def test_writes_whose_answer_breaks_off_may_have_happened(self, host: Host, client: LabelStudio) -> None:
        host.route("/api/projects/", Answer(b'{"id', length=9), {"id": 1})
        with pytest.raises(LabelStudioUnavailable, match="ended before"):
            client.create_project(title="x")
        assert len(host.requests) == 1

    @pytest.mark.parametrize("answer", [[7], "7", {"pk": 7}])
    def test_an_answer_of_another_shape_is_said(self, host: Host, client: LabelStudio, answer: object) -> None:
        host.route(WHOAMI, answer)
        with pytest.raises(LabelStudioMisread, match=rf"answered GET {WHOAMI}.* in another shape") as caught:
            _ = client.whoami()["id"]
        assert isinstance(caught.value, LabelStudioError)
        assert not str(caught.value).startswith(("'", '"'))

    def test_a_list_of_something_else_is_another_shape(self, host: Host, client: LabelStudio) -> None:
        host.route("/api/ml/", [[]])
        with pytest.raises(LabelStudioMisread, match="a list of objects was expected"):
            client.ml_backends(7)

    def test_a_host_that_asks_for_peace_gets_it(
        self, host: Host, client: LabelStudio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host.route(WHOAMI, Answer(b"", 429, headers={"Retry-After": "30"}), {"id": 7})
        for _ in range(3):
            with pytest.raises(LabelStudioUnavailable, match="429"):
                client.whoami()
        assert len(host.requests) == 1
        later = time.monotonic() + 31
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert client.whoami() == {"id": 7}

    def test_a_project_is_gone_only_where_the_host_is_well(self, host: Host, client: LabelStudio) -> None:
        host.route("/api/projects/7/", Answer(b"{}", 404))
        host.route(WHOAMI, Answer(b"<html>nginx</html>", 404))
        assert not client.is_gone(7), "whatever stands before the host answers 404 to everything"
        host.route(WHOAMI, {"id": 1})
        assert client.is_gone(7)
        host.route("/api/projects/7/", {"id": 7})
        assert not client.is_gone(7)

    def test_a_host_that_is_down_is_unavailable(self, host: Host) -> None:
        with Host().serving() as gone:
            url = gone.url
        with pytest.raises(LabelStudioUnavailable, match=r"connection refused.*LABEL_STUDIO_URL"):
            LabelStudio(url, KEY).create_project(title="x")

    def test_a_host_that_does_not_answer_is_unavailable(self, host: Host) -> None:
        def never(_: Request) -> Answer:
            time.sleep(0.5)
            return Answer({})

        host.routes["/api/projects/"] = never
        with pytest.raises(LabelStudioUnavailable, match=r"no answer within 0\.1 s"):
            LabelStudio(host.url, KEY, timeout=0.1).create_project(title="x")

    def test_something_else_than_label_studio_is_said(self, host: Host, client: LabelStudio) -> None:
        host.route(WHOAMI, Answer(b"<html>", headers={"Content-Type": "text/html"}))
        with pytest.raises(LabelStudioError, match=r"text/html instead of JSON.*LABEL_STUDIO_URL"):
            client.whoami()

    @pytest.mark.parametrize("key", [KEY, PERSONAL])
    def test_calls_follow_no_redirect(self, host: Host, elsewhere: Host, key: str) -> None:
        moved = Answer(b"", 307, {"Location": f"{elsewhere.url}{WHOAMI}?x=1"})
        host.route(WHOAMI, moved)
        host.route("/api/token/refresh/", moved)
        with pytest.raises(LabelStudioError, match=f"redirects .* to {elsewhere.url}.*Set LABEL_STUDIO_URL"):
            LabelStudio(host.url, key).whoami()
        assert elsewhere.requests == []


class TestFetch:
    def test_uploads_are_read_with_credentials(self, host: Host, client: LabelStudio) -> None:
        content = bytes(range(256)) * 1000
        host.route("/data/upload/1/a%20b.png", content)
        assert read(client, "/data/upload/1/a%20b.png") == content
        assert host.requests[0].headers["Authorization"] == f"Token {KEY}"

    def test_local_files_keep_their_query(self, host: Host, client: LabelStudio) -> None:
        host.route("/data/local-files/", b"image")
        assert read(client, "/data/local-files/?d=folder/a.png") == b"image"
        assert host.requests[0].query == {"d": ["folder/a.png"]}

    @pytest.mark.parametrize("reference", ["/data/upload/1/a.png", "/studio/data/upload/1/a.png"])
    def test_a_path_prefix_is_added_once(self, host: Host, reference: str) -> None:
        host.route("/studio/data/upload/1/a.png", b"image")
        assert read(LabelStudio(f"{host.url}/studio/", KEY), reference) == b"image"

    def test_an_absolute_address_of_the_host_gets_credentials(self, host: Host, client: LabelStudio) -> None:
        host.route("/data/upload/1/a.png", b"image")
        assert read(client, f"{host.url}/data/upload/1/a.png") == b"image"
        assert "Authorization" in host.requests[0].headers

    def test_other_hosts_get_no_credentials(self, elsewhere: Host, client: LabelStudio) -> None:
        elsewhere.route("/a.png", b"image")  # another port of the same machine is another host
        assert read(client, f"{elsewhere.url}/a.png") == b"image"
        assert "Authorization" not in elsewhere.requests[0].headers

    def test_credentials_do_not_follow_a_redirect_to_another_host(
        self, host: Host, elsewhere: Host, client: LabelStudio
    ) -> None:
        host.route("/tasks/1/resolve/", Answer(b"", 303, {"Location": f"{elsewhere.url}/bucket/a.png"}))
        elsewhere.route("/bucket/a.png", Answer(b"", 302, {"Location": "/b.png"}))
        elsewhere.route("/b.png", b"image")
        assert read(client, "/tasks/1/resolve/?fileuri=x") == b"image"
        assert all("Authorization" not in request.headers for request in elsewhere.requests)

    def test_credentials_follow_a_redirect_on_the_same_host(self, host: Host, client: LabelStudio) -> None:
        host.route("/old.png", Answer(b"", 302, {"Location": "/new.png"}))
        host.route("/new.png", b"image")
        assert read(client, "/old.png") == b"image"
        assert "Authorization" in host.requests[1].headers

    def test_an_address_that_parsers_read_differently_gets_no_credentials(
        self, host: Host, elsewhere: Host, client: LabelStudio
    ) -> None:
        for trick in (f"{elsewhere.url}\\@{host.url[7:]}/a.png", f"{elsewhere.url}#@{host.url[7:]}/a.png"):
            with pytest.raises(ImageError):
                read(client, trick)
        assert len(elsewhere.requests) == 2
        assert all("Authorization" not in request.headers for request in elsewhere.requests)

    def test_a_personal_token_is_renewed_for_files_as_well(self, host: Host) -> None:
        host.routes["/api/token/refresh/"] = selling()
        host.route("/data/upload/1/a.png", Answer(b"", 401), b"image")
        assert read(LabelStudio(host.url, PERSONAL), "/data/upload/1/a.png") == b"image"

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            (404, r"not found \(404\)"),
            (401, "LABEL_STUDIO_API_KEY"),
            (403, "lacks the right"),
            (500, "no longer exist"),
        ],
    )
    def test_refusals_say_why(self, host: Host, client: LabelStudio, status: int, reason: str) -> None:
        host.route("/data/upload/1/a.png", Answer(b"", status))
        with pytest.raises(ImageError, match=reason):
            read(client, "/data/upload/1/a.png")

    @pytest.mark.parametrize("reference", ["redis://bucket/a.png", "file:///etc/passwd", "C:\\a.png", "//host/a.png"])
    def test_other_schemes_are_refused_by_name(self, client: LabelStudio, reference: str) -> None:
        scheme = reference.partition(":")[0].lower() if ":" in reference else "none"
        with pytest.raises(ImageError, match=f"scheme '{scheme}'"):
            read(client, reference)

    def test_a_redirect_to_a_file_is_refused(self, host: Host, client: LabelStudio) -> None:
        host.route("/a.png", Answer(b"", 302, {"Location": "file:///etc/passwd"}))
        with pytest.raises(ImageError, match="not valid"):
            read(client, "/a.png")

    def test_a_file_that_breaks_off_is_an_error(self, host: Host, client: LabelStudio) -> None:
        host.route("/a.png", Answer(b"half", length=8))
        with pytest.raises(ImageError, match="ended before the whole file"):
            read(client, "/a.png")

    def test_signatures_are_not_shown(self, elsewhere: Host, client: LabelStudio) -> None:
        with pytest.raises(ImageError, match=r"a\.png cannot be fetched: not found") as caught:
            read(client, f"{elsewhere.url}/a.png?signature=5ec2e7")
        assert "5ec2e7" not in str(caught.value)

    def test_endless_redirects_end(self, host: Host, client: LabelStudio) -> None:
        host.route("/a.png", Answer(b"", 302, {"Location": "/a.png"}))
        with pytest.raises(ImageError, match="redirects"):
            read(client, "/a.png")


Task = dict[str, Any]


def data_manager(tasks: list[Task], *, before_page: Callable[[int], None] = lambda _: None) -> Route:
    """A list of tasks that filters, orders and cuts as the host does."""
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "greater": lambda a, b: a > b,
        "greater_or_equal": lambda a, b: a >= b,
        "equal": lambda a, b: a == b,
        "in_list": lambda a, b: a in b,
        "contains": lambda a, b: any(part in a for part in b),
    }
    pages = iter(range(1000))

    def answer(request: Request) -> Answer:
        before_page(next(pages))
        asked = json.loads(request.query["query"][0])
        found = list(tasks)
        for item in asked["filters"]["items"]:
            column, value = item["filter"].removeprefix("filter:tasks:"), item["value"]
            found = [task for task in found if compare[item["operator"]](task[column], value)]
        found.sort(key=lambda task: task[asked["ordering"][0].removeprefix("tasks:")])
        return Answer({"tasks": found[: int(request.query["page_size"][0])], "total": len(found)})

    return answer


def make_task(number: int, second: int, **more: Any) -> Task:
    return {"id": number, "updated_at": f"2026-01-01T00:00:{second:02}.000000Z", "annotations": [], **more}


class TestTasks:
    @pytest.mark.parametrize("page_size", [1, 2, 3, 5, 50])
    def test_every_change_comes_once_in_order(self, host: Host, client: LabelStudio, page_size: int) -> None:
        # five tasks that changed at one moment, more than some pages hold
        tasks = [make_task(n, second) for n, second in enumerate([5, 3, 3, 3, 3, 3, 1, 4, 2, 5], start=1)]
        host.routes["/api/tasks/"] = data_manager(tasks)
        seen = list(client.changed_tasks(1, None, page_size))
        assert sorted(task["id"] for task in seen) == list(range(1, 11))
        moments = [task["updated_at"] for task in seen]
        assert moments == sorted(moments)

    def test_only_changes_since_then(self, host: Host, client: LabelStudio) -> None:
        host.routes["/api/tasks/"] = data_manager([make_task(n, n) for n in range(1, 9)])
        since = "2026-01-01T01:00:05+01:00"  # five seconds past midnight in UTC
        assert [task["id"] for task in client.changed_tasks(1, since, 2)] == [5, 6, 7, 8]

    def test_a_task_that_changes_meanwhile_is_not_missed(self, host: Host, client: LabelStudio) -> None:
        tasks = [make_task(n, n) for n in range(1, 9)]

        def change(page: int) -> None:
            if page == 1:
                tasks[0]["updated_at"] = tasks[6]["updated_at"] = "2026-01-01T00:01:00.000000Z"

        host.routes["/api/tasks/"] = data_manager(tasks, before_page=change)
        seen = [(task["id"], task["updated_at"][-13:]) for task in client.changed_tasks(1, None, 3)]
        assert {number for number, _ in seen} == set(range(1, 9))
        assert seen[-2:] == [(1, ":00.000000Z"), (7, ":00.000000Z")] or {n for n, _ in seen[-2:]} == {1, 7}

    def test_predictions_that_annotations_started_from_are_named(self, host: Host, client: LabelStudio) -> None:
        rows = [{"id": 1, "parent_prediction": 70}, {"id": 2, "parent_prediction": 71}, {"id": 3}]
        host.routes["/api/tasks/"] = data_manager([make_task(1, 1, annotations=rows), make_task(2, 2)])
        rectangles = [{"id": "r", "type": "rectanglelabels", "value": {"x": 3.5, "rectanglelabels": ["ask"]}}]
        small = {"format": "", "rle": [], "brushlabels": ["cell"], "opacity": None}
        big = {"format": "rle", "rle": [7] * 10_000, "brushlabels": ["cell"], "opacity": None}
        odd = [{"id": "o", "type": "brushlabels", "value": "text"}, {"id": "n"}]
        result: list[Any] = [{"id": "m", "type": "brushlabels", "value": big}, "no region", *rectangles, *odd]
        host.route("/api/predictions/70/", {"id": 70, "model_version": "v-1", "score": 0.5, "result": result})
        first, second = client.changed_tasks(1, None)
        kept = {"id": 70, "model_version": "v-1", "score": 0.5}
        kept["result"] = [{"id": "m", "type": "brushlabels", "value": small}, *rectangles, *odd]
        assert first["predictions"] == [kept]  # 71 was pruned
        assert second["predictions"] == []

    def test_tasks_by_id_leave_out_those_that_are_gone(self, host: Host, client: LabelStudio) -> None:
        host.routes["/api/tasks/"] = data_manager([make_task(n, 1) for n in range(1, 251)])
        assert [task["id"] for task in client.tasks(1, [250, 3, 999, 3, *range(100, 240)])] == [
            3,
            *range(100, 240),
            250,
        ]
        assert len(host.requests) == 2

    def test_all_ids(self, host: Host, client: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ml_backend.label_studio.client.IDS_PER_PAGE", 4)
        host.routes["/api/tasks/"] = data_manager([make_task(n, 1) for n in (9, 2, 5, 7, 1, 3, 4, 8)])
        assert client.task_ids(1) == [1, 2, 3, 4, 5, 7, 8, 9]

    def test_the_version_is_matched_exactly(self, host: Host, client: LabelStudio) -> None:
        long = ",".join(f"nextmask-{n}" for n in range(100, 150))[:500]  # the host cuts here
        versions = ["nextmask-7.2", "nextmask-7.21", "nextmask-7.21,nextmask-7.2", "old, nextmask-7.2", "", long]
        tasks = [make_task(n, 1, predictions_model_versions=text) for n, text in enumerate(versions, start=1)]
        tasks[-1]["predictions_model_versions"] += "nextmask-7.21"
        host.routes["/api/tasks/"] = data_manager(tasks)
        host.route("/api/predictions/", [{"id": 1, "model_version": "nextmask-7.2"}])
        assert client.tasks_with_prediction(1, "nextmask-7.2") == {1, 3, 4, 6}
        assert [request.query["task"] for request in host.seen("/api/predictions/")] == [["6"]]

    def test_nothing_left_to_label_is_no_error(self, host: Host, client: LabelStudio) -> None:
        host.route("/api/projects/1/next", Answer({"detail": "There are no tasks for a@example.com"}, 404))
        host.route("/api/projects/1/", {"id": 1})
        assert client.next_task(1) is None
        with pytest.raises(LabelStudioNotFound):
            client.next_task(2)

    def test_uploads_keep_every_file_and_the_hosts_limits(
        self, host: Host, client: LabelStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ml_backend.label_studio.client.UPLOAD_FILES", 2)
        counter = iter(range(100))

        def take(request: Request) -> Answer:
            count = request.body.count(b'filename="')
            fields = {part.split(b'"')[1] for part in request.body.split(b"form-data; ")[1:]}
            assert len(fields) == count  # the host keeps one file per field name
            return Answer({"task_ids": [next(counter) for _ in range(count)]}, 201)

        host.routes["/api/projects/1/import"] = take
        paths = [tmp_path / f"{n}.png" for n in range(5)]
        for path in paths:
            path.write_bytes(b"image")
        assert client.upload_images(1, paths) == [0, 1, 2, 3, 4]
        assert len(host.requests) == 3

    def test_the_cursor_limit_is_a_minute_before_the_hosts_clock(self, host: Host, client: LabelStudio) -> None:
        host.route("/health", {"status": "UP"})
        host.routes["/health"] = lambda _: Answer({"status": "UP"})
        moment = client.settled()
        assert moment == host_time(moment)
        assert moment < host_time(time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 58)))

    def test_projects_are_read_to_the_last_page(self, host: Host, client: LabelStudio) -> None:
        host.route("/api/projects/", {"results": [{"id": 2}], "next": "x"}, {"results": [{"id": 1}], "next": None})
        assert [project["id"] for project in client.projects()] == [2, 1]


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-02T03:04:05Z",  # how the host itself writes a moment without microseconds, and then does not read it
        "2026-01-02T03:04:05.000000Z",
        "2026-01-02T03:04:05",
        "2026-01-02T04:04:05+01:00",
        "2026-01-02 03:04:05.000+00:00",
    ],
)
def test_moments_are_written_as_the_host_reads_them(moment: str) -> None:
    assert host_time(moment) == "2026-01-02T03:04:05.000000Z"


def test_what_is_no_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        host_time("yesterday")
