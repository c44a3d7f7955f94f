"""The dashboard beside a real Label Studio: a training as it runs, its version, and the way back to the one before."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, expect
from steps import label
from support import PASSWORD, USER, Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = [pytest.mark.live, pytest.mark.browser]


def test_a_training_is_watched_and_its_version_rolled_back(
    serving: Nextmask,
    offline_chromium: Browser,
    label_studio: LabelStudio,
    make_learning_project: Callable[[int], int],
    dataset: Dataset,
) -> None:
    project = make_learning_project(10)
    tasks = label_studio.task_ids(project)
    context = offline_chromium.new_context(http_credentials={"username": USER, "password": PASSWORD})
    page = context.new_page()
    page.set_default_timeout(240_000)
    state = page.locator("#live")

    page.goto(f"{serving.url}/projects/{project}")
    expect(page.get_by_text("There is no version yet")).to_be_visible()
    label(label_studio, project, dataset, tasks[:4])
    state.locator("progress").wait_for()
    expect(state.get_by_text(re.compile(r"nextmask-1\.\d+ is served now"))).to_be_visible(timeout=240_000)
    state.get_by_role("link", name="Show its measures").click()
    expect(state.get_by_text(re.compile(r"^nextmask-1\.\d+$"))).to_be_visible()

    label(label_studio, project, dataset, tasks[4:8])
    serving.wait_for_version(project, 2)
    page.get_by_role("link", name="Versions").click()
    serves = page.locator("tr.serving")
    expect(serves.locator("th")).to_contain_text("2")
    expect(serves.locator("td[data-label=Labels]")).to_have_text("8")
    page.get_by_role("link", name="Roll back to version 1").click()
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_text("Version 1 serves again")).to_be_visible()
    status = serving.wait_for_version(project, 1)
    assert label_studio.project(project)["model_version"] == status.version

    page.get_by_role("link", name="Events").click()
    events = page.get_by_role("region", name="Events").inner_text()
    assert "rolled back" in events
    assert events.count("published") >= 2
    context.close()
