"""What an annotator does in Label Studio's pages, and sees there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import FloatRect, Locator, Page, Response
from processes import wait_for
from support import Studio

PATIENCE = 60_000
"""Milliseconds to wait for what a page does; the machine may be busy training."""
_FAINT = 12
"""Changes of colour up to this many of 255 levels are no mask."""

Picture = NDArray[np.uint8]


class StudioPage:
    """One browser page."""

    def __init__(self, page: Page, studio: Studio) -> None:
        self._page, self._studio = page, studio
        self._refusals: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("response", self._note_refusal)
        page.on("pageerror", lambda error: self._refusals.append(f"script error: {error}"))

    def _note_refusal(self, response: Response) -> None:
        if response.status >= 400 and response.url.startswith(f"{self._studio.url}/api/"):
            self._refusals.append(f"{response.status} {response.request.method} {response.url}")

    def problems(self) -> list[str]:
        """What went wrong so far: requests that were refused, errors in scripts, and messages that pop up now.

        Of a Submit that is refused an annotator sees no more than a bubble that soon goes.
        """
        bubbles = self._page.locator("[class*=toast-viewport] li, .ant-message-notice, .ant-modal-content")
        texts = [text for text in bubbles.all_inner_texts() if not text.endswith("successfully")]
        return [*self._refusals, *(f"message: {text!r}" for text in texts)]

    # -- ways through the pages ---------------------------------------------------------------------------------------
    def sign_in(self) -> None:
        self._page.goto(f"{self._studio.url}/user/login")
        self._page.fill("input[name=email]", self._studio.user)
        self._page.fill("input[name=password]", self._studio.password)
        self._page.click("button[type=submit]")
        self._page.wait_for_url(re.compile(r"/(projects/?)?(\?.*)?$"))

    def open_tab(self, project: int, title: str) -> None:
        """Open a tab of the project's Data Manager by a click on its title."""
        self._page.goto(f"{self._studio.url}/projects/{project}/data")
        self._page.get_by_text(title, exact=True).first.click()
        self._rows().first.wait_for()

    def rows(self) -> list[tuple[int, float]]:
        """Task id and prediction score of each row of the open tab, from top to bottom."""
        cells = [text.split() for text in self._rows().all_inner_texts()]
        return [(int(task), float(score)) for task, score in cells]

    def listed(self) -> list[int]:
        """Task ids of the open tab, from top to bottom."""
        return [int(text.split()[0]) for text in self._rows().all_inner_texts()]

    def open_row(self, task: int, *, regions: bool = True) -> None:
        """Open a task by a click on its row; one that opens without regions needs to be told."""
        self._rows().filter(has=self._page.get_by_label(f"Select Task {task}", exact=True)).click()
        if regions:
            self._wait_for_editor()
        else:
            self._page.locator(".lsf-image").wait_for()
        assert self.task() == task

    def label_all_tasks(self) -> None:
        """Let Label Studio choose what is labelled next."""
        self._page.get_by_role("button", name="Label All Tasks").click()
        self._wait_for_editor()

    def _rows(self) -> Locator:
        return self._page.get_by_test_id("table-row")

    def _wait_for_editor(self) -> None:
        self._page.locator(".lsf-outliner-item").first.wait_for()

    # -- the editor ---------------------------------------------------------------------------------------------------
    def task(self) -> int:
        """The id of the open task."""
        shown = self._page.locator(".lsf-current-task__task-id").inner_text()
        return int(shown.split()[0].lstrip("#"))

    def outliner(self) -> list[str]:
        """Labels of the regions in the list beside the image."""
        return self._page.locator(".lsf-outliner-item__title").all_inner_texts()

    def picture(self) -> Picture:
        """The image with what is drawn over it, (H, W, 3) RGB in pixels of the screen, once it no longer changes."""
        image = self._page.locator(".lsf-image")
        image.wait_for()
        box = image.bounding_box()
        assert box, "no image is shown"
        pictures = [self._photograph(box)]

        def rests() -> bool:
            pictures.append(self._photograph(box))
            return np.array_equal(*pictures[-2:])

        wait_for(rests, name="a picture that no longer changes")
        return pictures[-1]

    def _photograph(self, box: FloatRect) -> Picture:
        png = np.frombuffer(self._page.screenshot(clip=box), np.uint8)
        return cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def picture_without_regions(self) -> Picture:
        """The same with all regions hidden; afterwards they are shown again."""
        self._page.get_by_label("Hide all regions").click()
        picture = self.picture()
        self._page.get_by_label("Show all regions").click()
        return picture

    def next_region(self) -> None:
        """Select the next region of the outliner by its hotkey."""
        before = self._selected()
        self.press("Alt+.")
        wait_for(lambda: self._selected() not in (before, None), name="another region that is selected")

    def _selected(self) -> int | None:
        items = self._page.locator(".lsf-outliner-item")
        chosen = items.evaluate_all("all => all.map(one => one.closest('.lsf-tree-node-selected') !== null)")
        return chosen.index(True) if True in chosen else None

    def press(self, key: str) -> None:
        """Press a key, and give the editor the moment that it needs."""
        self._page.keyboard.press(key)
        self._page.wait_for_timeout(300)

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse over the image; x and y as fractions of its sides."""
        box = self._page.locator(".lsf-image canvas").first.bounding_box()
        assert box, "no image is shown"
        (x, y), (to_x, to_y) = ((box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end))
        self._page.mouse.move(x, y)
        self._page.mouse.down()
        for step in range(1, 9):
            self._page.mouse.move(x + (to_x - x) * step / 8, y + (to_y - y) * step / 8)
        self._page.mouse.up()
        self._page.wait_for_timeout(300)

    # -- smart tools --------------------------------------------------------------------------------------------------
    def take_smart_tool(self, *, auto_accept: bool = False) -> None:
        """Switch smart tools on, and take the first of them: clicks."""
        toggles = self._page.get_by_test_id
        toggles("bottombar-auto-annotation-toggle").click()
        if auto_accept:
            toggles("bottombar-auto-accept-toggle").click()
        self._page.locator(".lsf-toolbar__group .lsf-tool_smart").first.click()
        self._page.wait_for_timeout(300)

    def ask_by_click(self, x: float, y: float, *keys: str) -> dict[str, Any]:
        """Click on the image with keys held, x and y as fractions of its sides; return what Label Studio answers."""
        box = self._page.locator(".lsf-image canvas").first.bounding_box()
        assert box, "no image is shown"
        with self._page.expect_response(lambda answer: "interactive-annotating" in answer.url) as response:
            for key in keys:
                self._page.keyboard.down(key)
            self._page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
            for key in keys:
                self._page.keyboard.up(key)
        answer: dict[str, Any] = response.value.json()
        self._page.wait_for_timeout(500)
        return answer

    def suggestions(self) -> int:
        """How many suggestions wait to be accepted."""
        shown = self._page.locator(".lsf-auto-accept__info")
        return int(shown.inner_text().split()[0]) if shown.count() else 0

    def accept_suggestions(self) -> None:
        self._page.get_by_test_id("bottombar-accept-suggestions-button").click()
        wait_for(lambda: self.suggestions() == 0, name="the suggestions' acceptance")

    def submit(self) -> None:
        self._submitted(self._page.get_by_test_id("bottombar-submit-button").click)

    def submit_by_keyboard(self) -> None:
        self._submitted(lambda: self._page.keyboard.press("Control+Enter"))

    def skip(self) -> None:
        self._submitted(self._page.get_by_test_id("bottombar-skip-button").click)

    def _submitted(self, act: Callable[[], None]) -> None:
        """Do what submits the annotation, and wait until Label Studio has answered."""
        path = re.compile(rf"/api/tasks/{self.task()}/annotations")
        with self._page.expect_response(lambda answer: answer.request.method == "POST" and path.search(answer.url)):
            act()

    def wait_for_other_task(self, task: int) -> None:
        wait_for(lambda: self.task() != task, name="the next task")
        self._wait_for_editor()


def seen_mask(shown: Picture, bare: Picture, colours: Mapping[int, tuple[int, int, int]]) -> Picture:
    """What somebody sees who looks at both pictures: per pixel the class whose colour was laid over it, or 0.

    A colour laid over a pixel moves it some way towards that colour; the class is the one whose way fits best.
    """
    change = shown.astype(np.float64) - bare
    misfit = np.full((*change.shape[:2], max(colours) + 1), np.inf)
    for index, colour in colours.items():
        way = np.array(colour) - bare.astype(np.float64)
        share = (change * way).sum(axis=-1) / np.maximum((way * way).sum(axis=-1), 1.0)
        misfit[..., index] = np.square(change - share.clip(0, 1)[..., None] * way).sum(axis=-1)
    seen = misfit.argmin(axis=-1).astype(np.uint8)
    seen[np.abs(change).max(axis=-1) <= _FAINT] = 0
    return seen
