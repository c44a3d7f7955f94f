"""A headless Chromium: one signed in to the Label Studio of the live tests, and one that reaches this machine only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright
from studio_page import StudioPage
from support import Nextmask, Studio

VIEWPORT = {"width": 1400, "height": 900}


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Ends with each module: while its event loop runs, no test in the same process can run another loop."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def chromium(studio: Studio, playwright: Playwright) -> Iterator[Browser]:
    # Label Studio's pages ask other hosts for fonts and error reports: what a test sees must not hang on those.
    yield from _browser(playwright, str(urlsplit(studio.url).hostname))


@pytest.fixture(scope="module")
def offline_chromium(playwright: Playwright) -> Iterator[Browser]:
    """A browser for pages of our own: it needs no Label Studio, and finds no other host."""
    yield from _browser(playwright, "127.0.0.1")


def _browser(playwright: Playwright, host: str) -> Iterator[Browser]:
    program = shutil.which("chromium") or "/usr/bin/chromium"
    only = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}"
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic", only]
    browser = playwright.chromium.launch(executable_path=program, args=options)
    yield browser
    browser.close()


@pytest.fixture
def make_learning_project(serving: Nextmask, make_project: Callable[..., int]) -> Callable[[int], int]:
    """Connect a project with so many images; four labels start a training just long enough to find the classes."""

    def make(images: int) -> int:
        project = make_project(images=images)
        serving.connect(project, train_after=4, iterations=24)
        return project

    return make


@pytest.fixture
def studio_page(chromium: Browser, studio: Studio) -> Iterator[StudioPage]:
    context = chromium.new_context(viewport=VIEWPORT)
    page = StudioPage(context.new_page(), studio)
    page.sign_in()
    yield page
    context.close()
