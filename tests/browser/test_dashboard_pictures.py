"""The queue and the comparison in a real browser, with real versions: what is seen, with and without scripts."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from dashboard_data import VERSION, fill
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect
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
def test_pages_with_pictures_pass_axe_and_fit_on_a_phone(opened: Open, services: Services, scheme: str) -> None:
    large = f"/projects/{PROJECT}/tasks/{services.store.ranked(PROJECT)[0][0].task_id}?layer=uncertainty"
    for path in (QUEUE, f"{QUEUE}?layer=uncertainty", COMPARE, large, f"/projects/{PROJECT}/versions/2", "/annotating"):
        with opened(path, color_scheme=scheme) as page:
            loaded(page)
            results = Axe().run(page)
            assert results.violations_count == 0, f"{path} {results.generate_report()}"
            page.set_viewport_size(NARROW)
            fits = f"document.documentElement.scrollWidth <= {NARROW['width']}"
            wait_for(lambda fits=fits: page.evaluate(fits), name=f"{path} to fit")  # charts follow in a moment


def test_no_table_of_a_comparison_is_cut_off_on_a_phone(opened: Open) -> None:
    with opened(COMPARE, viewport=NARROW) as page:
        for table in page.locator("table.measures").all():
            assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
        expect(page.locator("td[data-label='Dice, change']").first).to_be_visible()
        chosen = page.locator("select[name=b] option[selected]")
        expect(chosen).to_contain_text("2 (serves): mIoU 0.")
        expect(chosen).to_contain_text("9 labels, 20")


def test_a_picture_opens_large_with_the_keyboard_and_what_lay_over_it(opened: Open, services: Services) -> None:
    order = [task.task_id for task, _ in services.store.ranked(PROJECT)]
    with opened(QUEUE) as page:
        page.locator("#layer-uncertainty").check()
        page.get_by_role("link", name=f"Show task {order[1]} large").focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/tasks/{order[1]}?layer=uncertainty")
        loaded(page)
        heat = page.locator(".layers.large img.uncertainty")
        expect(heat).to_be_visible()
        assert page.locator(".layers.large").evaluate("box => box.clientHeight") > 400
        page.locator("#layer-mask").check()
        page.get_by_role("link", name="Next in the queue").click()
        page.wait_for_url(f"**/tasks/{order[2]}?layer=mask")
        page.get_by_role("link", name="Back to the queue").click()
        expect(page.locator(f"#task-{order[2]}")).to_be_visible()


def test_a_picture_says_that_it_loads_and_that_it_did_not_arrive(
    offline_chromium: Browser, url: str, services: Services
) -> None:
    first = services.store.ranked(PROJECT)[0][0].task_id
    context = offline_chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    waiting: list[Route] = []
    page.route(f"**/tasks/{first}/uncertainty*", lambda route: waiting.append(route))
    page.goto(f"{url}{QUEUE}")
    loaded(page)
    pile = page.locator(f"#task-{first} .layers")
    expect(pile).not_to_have_attribute("data-state", "loading")
    page.locator("#layer-uncertainty").check()
    expect(pile).to_have_attribute("data-state", "loading")
    expect(pile).to_have_attribute("aria-busy", "true")
    said = "pile => getComputedStyle(pile, '::after').content"
    assert "Loading" in pile.evaluate(said)
    wait_for(lambda: page.evaluate("1") and bool(waiting), name="the request")
    waiting.pop().abort()
    expect(pile).to_have_attribute("data-state", "failed")
    assert "did not arrive" in pile.evaluate(said)
    page.locator("#layer-mask").check()
    expect(pile).to_have_attribute("aria-busy", "false")
    assert pile.get_attribute("data-state") is None
    context.close()


def test_the_lines_of_a_training_are_drawn_whole(opened: Open) -> None:
    with opened(f"/projects/{PROJECT}/versions/2") as page:
        wait_for(
            lambda: page.evaluate("Boolean(window.Chart && Chart.getChart(document.querySelector('canvas')))"),
            name="the chart",
        )
        chart = page.evaluate(
            """() => {
                const chart = Chart.getChart(document.querySelector('canvas'));
                return [chart.options.clip, chart.scales.miou.max, chart.scales.x.ticks.map((tick) => tick.label)];
            }"""
        )
        assert chart[0] >= 4  # a line at 1.0 is drawn whole
        assert chart[1] == 1
        assert all("." not in str(label) for label in chart[2])


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
        expect(page.get_by_text(re.compile(r"^Version 2 .* of mIoU on the same 3 images\.$"))).to_be_visible()
        page.get_by_role("button", name="Measure both on these labels").click()
        expect(page.get_by_text("Both versions on the same 3 labels")).to_be_visible()  # by htmx, without a click
        loaded(page)
        assert page.locator(".comparisons figure").count() == 3 * 4
        differs = [float(text.split(" %")[0].split()[-1]) for text in page.locator(".comparisons h3").all_inner_texts()]
        assert differs == sorted(differs, reverse=True)
        page.get_by_label("loss of version 2").check()
        page.get_by_role("button", name="Sort").click()
        expect(page.get_by_label("loss of version 2")).to_be_checked()
