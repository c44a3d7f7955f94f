"""Makes the pictures in docs/images: the editor with a pre-filled task, and the queue in the Data Manager.

They show a running demo that has been trained; playwright (among the development tools) and Chromium are needed:

    make demo ARGS="--rounds 1"                                # leave it running
    .venv/bin/python scripts/make_screenshots.py               # in a second terminal

With the numbers of projects in the same Label Studio that run CEREALS (--regions), ask for points (--points), run
stream mode (--stream) and have smart tools (--smart), the pictures of these, too.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ml_backend.demo.run import USERNAME
from ml_backend.demo.state import Remembered
from ml_backend.projects.tabs import PASSED_TAB_TITLE, TAB_TITLE

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1400, 900
CLICK, ALT_CLICK = (0.36, 0.62), (0.52, 0.8)
"""Where the pictures of smart tools click, as fractions of the image's width and height."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]


def sign_in(browser: Browser, url: str, password: str) -> Page:
    """Returns a page whose visitor is the demo's user."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(f"{url}/user/login")
    page.fill("input[name=email]", USERNAME)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "login" not in address)
    return page


def open_tab(page: Page, url: str, project: int, title: str) -> None:
    """Shows a tab of the Data Manager, with its images."""
    page.goto(f"{url}/projects/{project}/data")
    page.get_by_text(title, exact=True).first.click()
    page.get_by_test_id("table-row").first.wait_for()


def open_editor(page: Page) -> None:
    """Shows the task that Label Studio serves next, with its pre-filled masks."""
    page.get_by_role("button", name="Label All Tasks").click()
    page.locator(".lsf-outliner-item").first.wait_for()


def save(page: Page, path: Path) -> None:
    """Writes the page as an optimised PNG, once nothing moves any more."""
    page.wait_for_load_state("networkidle")
    page.mouse.move(WIDTH - 5, HEIGHT - 5)
    page.wait_for_timeout(3000)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def save_smart_tools(page: Page, folder: Path) -> None:
    """Writes an open task of the sample data: the smart tool chosen, after a click, and after one with Alt."""
    page.get_by_test_id("bottombar-auto-annotation-toggle").click()
    page.locator(".lsf-toolbar__group .lsf-tool_smart").first.click()
    page.keyboard.press("3")
    save(page, folder / "choose.png")
    box = page.locator(".lsf-image canvas").first.bounding_box()
    if box is None:
        raise SystemExit("no image is shown")
    for name, (x, y), keys in (("click", CLICK, ("Control",)), ("shrink", ALT_CLICK, ("Control", "Alt"))):
        for key in keys:
            page.keyboard.down(key)
        with page.expect_response(lambda answer: "interactive-annotating" in answer.url, timeout=60_000):
            page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        for key in keys:
            page.keyboard.up(key)
        save(page, folder / f"{name}.png")
        page.keyboard.press("3")


def main() -> None:
    """Writes queue.png and editor.png; on request cereals.png, points.png, passed-over.png and smart-tools."""
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation from a running demo.")
    parser.add_argument("--folder", type=Path, default=ROOT / ".nextmask" / "demo", help="the demo's folder")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="where the pictures go")
    parser.add_argument(
        "--regions", type=int, metavar="PROJECT", help="a project that asks for regions: writes cereals.png"
    )
    parser.add_argument(
        "--points", type=int, metavar="PROJECT", help="a project that asks for points: writes points.png"
    )
    parser.add_argument(
        "--stream", type=int, metavar="PROJECT", help="a project in stream mode: writes passed-over.png"
    )
    parser.add_argument(
        "--smart",
        type=int,
        metavar="PROJECT",
        help="a project with smart tools, two classes, and no mask yet: smart-tools",
    )
    arguments = parser.parse_args()
    demo = Remembered(**json.loads((arguments.folder / "demo.json").read_text()))
    url = f"http://localhost:{demo.label_studio_port}"
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or "/usr/bin/chromium"
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = sign_in(browser, url, demo.password)
        open_tab(page, url, demo.project, TAB_TITLE)
        save(page, arguments.output / "queue.png")
        open_editor(page)
        save(page, arguments.output / "editor.png")
        if arguments.regions:
            open_tab(page, url, arguments.regions, TAB_TITLE)
            open_editor(page)
            save(page, arguments.output / "cereals.png")
        if arguments.points:
            open_tab(page, url, arguments.points, TAB_TITLE)
            open_editor(page)
            save(page, arguments.output / "points.png")
        if arguments.stream:
            open_tab(page, url, arguments.stream, PASSED_TAB_TITLE)
            save(page, arguments.output / "passed-over.png")
        if arguments.smart:
            open_tab(page, url, arguments.smart, TAB_TITLE)
            page.get_by_test_id("table-row").first.click()
            page.locator(".lsf-image").wait_for()
            save_smart_tools(page, arguments.output / "smart-tools")
        browser.close()


if __name__ == "__main__":
    main()
