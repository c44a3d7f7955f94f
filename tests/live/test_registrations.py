"""What Label Studio does to registrations while it lists them, and that nextmask ends where it should all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from faulty_proxy import FaultyProxy, Handler, held, wait_until_seen
from processes import wait_for
from support import PASSWORD, USER, Nextmask, Studio

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.connection import Connection

pytestmark = pytest.mark.live


@dataclass
class Watched:
    """A connection whose calls to Label Studio, and Label Studio's to nextmask, can be watched and held up."""

    connection: Connection
    to_host: FaultyProxy
    to_nextmask: FaultyProxy
    client: LabelStudio
    project: int

    @contextmanager
    def amid_a_listing(self, method: str) -> Iterator[None]:
        """Let the first call of this method about a registration come while Label Studio lists the project's models."""
        changed = threading.Event()
        setup = self.to_nextmask.fault(held(changed), path="/setup", times=0)
        listing = threading.Thread(target=self.client.ml_backends, args=(self.project,))

        def while_listing(handler: Handler) -> None:
            setup.times = 1
            listing.start()
            wait_until_seen(setup)
            handler.send(handler.forward())
            changed.set()

        self.to_host.fault(while_listing, method=method, path="/api/ml/", times=1)
        yield
        listing.join(60)
        assert changed.is_set()
        assert not listing.is_alive()

    def count(self, method: str) -> int:
        """Return how many calls of this method about a registration were sent."""
        return sum(call.method == method and call.path.startswith("/api/ml/") for call in self.to_host.calls)


@pytest.fixture
def watched(
    studio: Studio,
    serving: Nextmask,
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> Iterator[Watched]:
    project = make_project(images=2, dataset=shapes)
    with FaultyProxy(studio.url) as to_host, FaultyProxy(serving.url) as to_nextmask:
        services = serving.services
        settings = serving.settings.model_copy(update={"backend_url": to_nextmask.url})
        client = LabelStudio(to_host.url, studio.token)
        connection = Connection(settings, services.store, client, project)
        yield Watched(connection, to_host, to_nextmask, label_studio, project)


def test_a_registration_that_a_listing_brings_back_is_removed_again(watched: Watched) -> None:
    watched.connection.connect()
    with watched.amid_a_listing("DELETE"):
        assert any("removed the backend" in change for change in watched.connection.disconnect())
    assert watched.count("DELETE") == 2, "Label Studio did not bring it back: this test shows nothing"
    assert watched.client.ml_backends(watched.project) == []
    assert watched.client.webhooks(watched.project) == []


def test_settings_that_a_listing_undoes_are_set_again(watched: Watched) -> None:
    watched.connection.connect({"train_after": 5})
    with watched.amid_a_listing("PATCH"):
        assert len(watched.connection.connect({"train_after": 6})) == 1
    assert watched.count("PATCH") == 2, "Label Studio did not undo it: this test shows nothing"
    (row,) = watched.client.ml_backends(watched.project)
    assert row["extra_params"] == {"train_after": 6}


def test_two_registrations_with_different_settings_let_the_worker_rest(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=2, dataset=shapes)
    serving.connect(project)
    serving.wait_settled(project)
    credentials = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": PASSWORD}
    label_studio.add_ml_backend(
        project=project, url=serving.url, title="by hand", extra_params={"train_after": 99}, **credentials
    )
    serving.wait_settled(project)
    store = serving.services.store

    def wakes() -> int:
        found = store.project(project)
        assert found
        return found.wakes

    before = wakes()
    for _ in range(3):
        assert len(label_studio.ml_backends(project)) == 2
        time.sleep(1.0)
    assert (wakes(), serving.settled(project)) == (before, True)
    (event,) = [one for one in store.events(project) if one.kind == "registered_twice"]
    assert f"nextmask connect {project}" in event.text

    # New settings of the first one arrive at once, as ever.
    first = label_studio.ml_backends(project)[0]
    params = {**serving.project_settings, "train_after": 7}
    label_studio.update_ml_backend(first["id"], project=project, url=serving.url, extra_params=params, **credentials)

    def arrived() -> bool:
        found = store.project(project)
        return found is not None and '"train_after": 7' in found.extra_params and serving.settled(project)

    wait_for(arrived, name="the new settings")
    assert wakes() <= before + 3
    assert "removed a second registration of nextmask" in serving.connect(project)
    assert len(label_studio.ml_backends(project)) == 1
