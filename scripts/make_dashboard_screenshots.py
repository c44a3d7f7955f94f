"""Makes the pictures in docs/images/dashboard: every page, in light and dark, and on a phone.

They show a project with several rounds; playwright (among the development tools) and Chromium are needed:

    make demo ARGS="--rounds 2"                                # leave it running; in a second terminal:
    .venv/bin/python scripts/make_dashboard_screenshots.py

Any other nextmask will do: --url, --project, and --user where it asks for a password (in BASIC_AUTH_PASS).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ml_backend.dashboard.rendering import TABS
from ml_backend.demo.state import Remembered

ROOT = Path(__file__).parents[1]
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740}}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
PATIENCE = 180.0
"""Seconds until all pictures are there: the first visitor of the queue has them made."""
HEIGHT = 1500
"""Pixels of a long page that are kept."""
COLOURS, BYTES = (224, 96, 48), 150_000
"""Of a picture: as many colours as fit into so many bytes."""


def shown(browser: Browser, url: str, path: str, scheme: str, size: str, account: tuple[str, str] | None) -> Page:
    """Returns a page once it no longer loads."""
    context = browser.new_context(
        viewport=SIZES[size],
        color_scheme=scheme,  # type: ignore[arg-type]  # light or dark
        timezone_id="Europe/Berlin",
        locale="en-GB",
        http_credentials={"username": account[0], "password": account[1]} if account else None,
    )
    page = context.new_page()
    page.goto(f"{url}{path}")
    page.wait_for_load_state("load")
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    # Not wait_for_function, which evaluates text in the page: the policy of the pages refuses that.
    until = time.monotonic() + PATIENCE
    while not page.evaluate("[...document.images].every((image) => image.complete)") and time.monotonic() < until:
        page.wait_for_timeout(200)
    page.wait_for_timeout(700)
    return page


def save(page: Page, path: Path) -> None:
    """Writes the page, from its top, as a small PNG."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, HEIGHT)))
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in COLOURS:
        picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < BYTES:
            break
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {picture.width} x {picture.height}")


def main() -> None:
    """Writes <page>-<light|dark>.png and <page>-phone.png."""
    parser = argparse.ArgumentParser(description="Make the pictures of the dashboard from a running nextmask.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".nextmask" / "demo", help="the demo's folder")
    parser.add_argument("--url", help="another nextmask than the demo's")
    parser.add_argument("--project", type=int, help="its project")
    parser.add_argument("--user", help="its BASIC_AUTH_USER; the password is read from BASIC_AUTH_PASS")
    parser.add_argument("--version", type=int, default=2, help="the version that has a page of its own")
    parser.add_argument("--only", help="the name of a page")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "dashboard")
    given = parser.parse_args()
    if given.url:
        url, project = given.url, given.project
        account = (given.user, os.environ["BASIC_AUTH_PASS"]) if given.user else None
    else:
        demo = Remembered(**json.loads((given.folder / "demo.json").read_text()))
        url, project = f"http://127.0.0.1:{demo.port}", demo.project
        account = ("nextmask", demo.backend_password)
    pages = {"projects": "/"} | {name: f"/projects/{project}{path}" for name, _, path in TABS}
    pages["version"] = f"/projects/{project}/versions/{given.version}"
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        for name, path in pages.items():
            if given.only and name != given.only:
                continue
            for scheme in ("light", "dark"):
                page = shown(browser, url, path, scheme, "desktop", account)
                save(page, given.output / f"{name}-{scheme}.png")
                page.context.close()
            page = shown(browser, url, path, "light", "phone", account)
            save(page, given.output / f"{name}-phone.png")
            page.context.close()
        browser.close()


if __name__ == "__main__":
    main()
