"""Credentials for Label Studio: a personal access token drives the loop as a legacy token does; a wrong one is named.

All other live tests use a legacy token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from processes import wait_for
from support import PASSWORD, USER, Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live


@pytest.fixture
def personal_token(label_studio: LabelStudio) -> Iterator[str]:
    """A personal access token; a user can have only one."""
    token = str(label_studio.transport.json("POST", "/api/token/")["token"])
    yield token
    label_studio.transport.json("POST", "/api/token/blacklist/", json={"refresh": token})


def test_a_personal_access_token_drives_the_loop(
    personal_token: str,
    make_nextmask: Callable[..., Nextmask],
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    nextmask = make_nextmask(label_studio_api_key=personal_token)
    project = make_project(images=7, dataset=shapes)
    nextmask.connect(project)
    assert len(nextmask.annotate(project, shapes, 4)) == 4
    status = nextmask.wait_for_version(project, 1)
    assert (status.labels, status.queue, status.errors) == (4, 3, {})
    assert personal_token not in nextmask.log.read_text()


def test_a_wrong_token_is_shown_with_its_remedy(
    make_nextmask: Callable[..., Nextmask], label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    wrong = "1" * 40
    nextmask = make_nextmask(label_studio_api_key=wrong)
    project = make_project(images=1, dataset=shapes)
    # As someone does who adds the backend in Label Studio's settings.
    credentials = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": PASSWORD}
    label_studio.add_ml_backend(project=project, url=nextmask.url, title="nextmask", **credentials)
    wait_for(lambda: nextmask.services.store.project(project), name="the project")
    wait_for(lambda: nextmask.status(project).state == "failed", name="the failure")
    message = nextmask.status(project).errors["project"]
    assert "401" in message
    assert "LABEL_STUDIO_API_KEY" in message
    assert "Personal Access Token" in message
    assert wrong not in message
    assert wrong not in nextmask.log.read_text()
    # Serving goes on.
    answer = nextmask.post("/predict", {"project": f"{project}.1", "tasks": [{"id": 1, "data": {}}]})
    assert answer.json()["results"] == [{"result": [], "score": 1.0, "model_version": "nextmask-0.0"}]
