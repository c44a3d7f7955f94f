"""Script in everything that people write, in a real browser: it is shown, and never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from servers import serving
from wiring import PROJECT, give_project, make_services, make_settings, task_of

from ml_backend.server.app import create_app

pytestmark = pytest.mark.browser

RUN = "document.title='owned';alert(1)"
HOSTILE = f"""<script>{RUN}</script><img src=x onerror="{RUN}">'"><svg onload={RUN}>{{{{ 7*7 }}}}=1+1"""
PAGES = [
    "",
    "/queue",
    "/versions",
    "/tasks",
    "/events",
    "/compare",
    f"/compare?a={HOSTILE}&b=1",
    "/live",
    "/versions/1/serve",
]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    services = make_services(tmp_path)
    give_project(services, title=HOSTILE, error=HOSTILE, state="failed", notice=HOSTILE, stage=HOSTILE)
    services.store.put_tasks([task_of(1, image=HOSTILE, status="broken", error=HOSTILE)])
    services.store.put_tasks([task_of(2, image=HOSTILE), task_of(3, image="javascript:" + RUN)])
    services.store.put_ranking(PROJECT, {2: 0.9, 3: 0.8})
    services.store.put_published(PROJECT, "nextmask-1.1", [(2, 0.1, None), (3, 0.2, None)])
    services.store.add_event(PROJECT, "failed", HOSTILE, level="error")
    app = create_app(make_settings(tmp_path))
    services.store.close()
    with serving(app) as address:
        yield address


def test_nothing_that_people_write_is_run(offline_chromium: Browser, address: str) -> None:
    page = offline_chromium.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    shown = 0
    for path in ["/", *(f"/projects/{PROJECT}{path}" for path in PAGES)]:
        page.goto(address + path)
        page.wait_for_load_state("load")
        text = page.locator("body").inner_text()
        shown += "<script>document.title" in text
        assert "owned" not in page.title() or "<script>" in page.title(), path
        assert page.locator("body script:not([src])").count() == 0, path
        assert page.locator("[onerror], [onload], a[href^='javascript:']").count() == 0, path
        assert "49=1+1" not in text, path
    assert dialogs == []
    assert shown >= 4, "the words themselves are shown"
    page.close()
