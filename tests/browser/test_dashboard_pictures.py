"""The queue and the comparison in a real browser, with real versions: what is seen, with and without scripts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from dashboard_data import VERSION, fill
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from processes import wait_for
from servers import serving
from shapes import make_shapes
from wiring import PROJECT, make_services

from ml_backend.annotations import masks
from ml_backend.projects.services import Services
from ml_backend.server.app import create_app

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

QUEUE, COMPARE = f"/projects/{PROJECT}/queue", f"/projects/{PROJECT}/compare?a=1&b=2"
NARROW = {"width": 360, "height": 740}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder: Path = tmp_path_factory.mktemp("dashboard")
    services = make_services(folder / "state", strategy="entropy", label_studio_public_url="https://labels.example")
    fill(services, make_shapes(folder / "shapes", 24), regions=True)
    yield services
    services.store.close()


@pytest.fixture(scope="module")
def url(services: Services) -> Iterator[str]:
    with serving(create_app(services.settings)) as address:
        yield address


@pytest.fixture
def opened(offline_chromium: Browser, url: str) -> Open:
    """Open a page; it must neither fail nor be refused anything by the policy."""

    @contextmanager
    def visit(path: str, **options: Any) -> Iterator[Page]:
        context = offline_chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        page, problems = context.new_page(), list[str]()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in {"error", "warning"} else None
        )
        page.goto(f"{url}{path}")
        yield page
        assert problems == []
        context.close()

    return visit


def loaded(page: Page) -> None:
    """Bring every picture that can be seen into sight, and wait for it."""
    for image in page.locator("img[loading=lazy]").all():
        if image.is_visible():
            image.scroll_into_view_if_needed()
    visible = "[...document.images].filter(image => image.checkVisibility())"
    script = f"{visible}.every(image => image.complete && image.naturalWidth)"
    wait_for(lambda: page.evaluate(script), name="all pictures")


def seen(picture: Locator) -> np.ndarray:
    """What is on the screen: (H,W,3)."""
    return np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB")).astype(int)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_pages_pass_axe_and_fit_on_a_phone(opened: Open, scheme: str) -> None:
    for path in (QUEUE, f"{QUEUE}?layer=uncertainty", COMPARE):
        with opened(path, color_scheme=scheme) as page:
            loaded(page)
            results = Axe().run(page)
            assert results.violations_count == 0, f"{path} {results.generate_report()}"
            page.set_viewport_size(NARROW)
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], path


def test_the_keyboard_chooses_what_lies_over_the_image_and_nothing_is_predicted_before(
    opened: Open, services: Services
) -> None:
    asked: list[str] = []
    first = services.store.ranked(PROJECT)[0][0].task_id
    # The controls need no script: there is none here.
    with opened(QUEUE, java_script_enabled=False) as page:
        page.on("request", lambda sent: asked.append(sent.url))
        card = page.locator(f"#task-{first}")
        expect(card.locator("img.mask")).to_be_visible()
        expect(card.locator("img.uncertainty")).to_be_hidden()
        wait_for(
            lambda: card.locator("img.mask").evaluate("image => image.complete && image.naturalWidth"), name="the mask"
        )
        with_mask = seen(card.locator(".layers"))
        assert not any("uncertainty" in address for address in asked)
        page.locator("#layer-mask").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#layer-uncertainty")).to_be_checked()
        expect(card.locator("img.uncertainty")).to_be_visible()
        expect(card.locator("img.mask")).to_be_hidden()
        expect(page.locator(".heat-scale")).to_be_visible()
        heat = card.locator("img.uncertainty")
        wait_for(lambda: heat.evaluate("image => image.complete && image.naturalWidth"), name="the heat map")
        assert np.abs(seen(card.locator(".layers")) - with_mask).max() > 60
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#layer-uncertainty")).to_be_checked()
        expect(page.get_by_text("Page 2 of 2")).to_be_visible()


def test_the_mask_on_the_screen_is_the_published_one_in_the_colours_of_the_labels(
    opened: Open, services: Services
) -> None:
    first = services.store.ranked(PROJECT)[0][0].task_id
    png = services.store.published_mask(PROJECT, VERSION, first)
    assert png
    mask = masks.mask_from_png(png)
    with opened(f"{QUEUE}?strength=100") as page:
        page.locator("#regions-shown").uncheck()
        loaded(page)
        stack = page.locator(f"#task-{first} .layers")
        fill_of = page.locator(".of-mask .legend rect")
        colours = [fill_of.nth(at).get_attribute("fill") for at in range(fill_of.count())]
        shown = seen(stack)
        height, width = shown.shape[:2]
        rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
        at = ((rows + 0.5) * height / mask.shape[0]).astype(int), ((columns + 0.5) * width / mask.shape[1]).astype(int)
        agrees = 0.0
        for index, colour in enumerate(colours, start=1):
            expected = [int(str(colour)[place : place + 2], 16) for place in (1, 3, 5)]
            inside = np.abs(shown[at] - expected).max(axis=-1) < 40
            agrees += float((inside & (mask == index)).sum())
        assert agrees / float((mask > 0).sum()) > 0.85  # the browser smooths borders
        link = page.locator(f"#task-{first}").get_by_role("link", name="Open in Label Studio")
        assert link.get_attribute("href") == f"https://labels.example/projects/{PROJECT}/data?task={first}"


def test_two_versions_are_measured_while_the_page_looks_on(opened: Open) -> None:
    with opened(COMPARE) as page:
        expect(page.get_by_text("measured on different labels")).to_be_visible()
        page.get_by_role("button", name="Measure both on these labels").click()
        expect(page.get_by_text("Both versions on the same 3 labels")).to_be_visible()  # by htmx, without a click
        loaded(page)
        assert page.locator(".comparisons figure").count() == 3 * 4
        differs = [float(text.split(" %")[0].split()[-1]) for text in page.locator(".comparisons h3").all_inner_texts()]
        assert differs == sorted(differs, reverse=True)
        page.get_by_label("loss of version 2").check()
        page.get_by_role("button", name="Sort").click()
        expect(page.get_by_label("loss of version 2")).to_be_checked()
