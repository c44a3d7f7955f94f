"""A headless Chromium, signed in to the Label Studio of the live tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, sync_playwright
from studio_page import StudioPage
from support import Studio

VIEWPORT = {"width": 1400, "height": 900}


@pytest.fixture(scope="session")
def chromium(studio: Studio) -> Iterator[Browser]:
    program = shutil.which("chromium") or "/usr/bin/chromium"
    # Label Studio's pages ask other hosts for fonts and error reports: what a test sees must not hang on those.
    only = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {urlsplit(studio.url).hostname}"
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic", only]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def studio_page(chromium: Browser, studio: Studio) -> Iterator[StudioPage]:
    context = chromium.new_context(viewport=VIEWPORT)
    page = StudioPage(context.new_page(), studio)
    page.sign_in()
    yield page
    context.close()
