"""The dashboard in a real browser: what runs in it, how it is reached, and what it shows while things change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from processes import wait_for
from servers import serving
from wiring import PROJECT, give_project, make_services, task_of

from ml_backend.projects.services import Services
from ml_backend.server.app import create_app
from ml_backend.store import Decision

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

ACCOUNT = {"username": "team", "password": "a pass:word"}
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>\'"></canvas>{{7*7}}'
PAGES = ["/", *(f"/projects/{PROJECT}{path}" for path in ("", "/versions", "/versions/1/serve", "/tasks", "/events"))]
NARROW = {"width": 360, "height": 740}
DRAWN = """(measure) => {
    const chart = Chart.getChart('curve'), ratio = chart.currentDevicePixelRatio, { x, y } = chart.scales;
    const last = x.getPixelForValue(chart.data.datasets[0].data.at(-1).x), height = y.getPixelForValue(measure);
    const at = [last + 3, height - 1].map((place) => Math.round(place * ratio));
    return chart.ctx.getImageData(...at, 1, Math.ceil(2 * ratio)).data.some(Boolean);
}"""
"""Whether something is drawn a little beside the last version, at the height of a measure."""


@dataclass
class Visit:
    """An open page, and what went wrong in it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        answer = self.page.goto(f"{self.url}{path}")
        assert answer is not None
        assert answer.ok, path
        self.page.wait_for_load_state("load")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true. Not `wait_for_function`: the policy refuses what that evaluates."""
        wait_for(lambda: self.page.evaluate(expression), name=expression)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A project with hostile names, three versions of which one is damaged, labels, tasks of each kind, and events."""
    account = {"basic_auth_user": ACCOUNT["username"], "basic_auth_pass": ACCOUNT["password"]}
    services = make_services(tmp_path_factory.mktemp("state"), **account)
    give_project(
        services, title=HOSTILE, state="failed", error=HOSTILE, error_at=1.0, reconciled_at=1.0, notice=HOSTILE
    )
    checkpoints = services.checkpoints(PROJECT)
    first = checkpoints.get(1)
    state, measures = checkpoints.load_state(first), dict(first.record.measures)
    classes = (HOSTILE, *first.record.classes[1:])
    by_class = {name: 0.4 + 0.1 * at for at, name in enumerate(classes)}
    measures |= {"iou": by_class, "dice": by_class, "miou": 0.5, "mean_dice": 0.6}
    measures |= {"intervals": {"miou": [0.43, 0.57], "mean_dice": [0.53, 0.67]}}
    labels = {str(task): "digest" for task in range(1, 9)}
    changes: dict[str, Any] = {"classes": classes, "measures": measures, "labels": labels, "reason": HOSTILE}
    checkpoints.create(replace(first.record, **changes, skipped={"4": HOSTILE}, parent=1), state)
    checkpoints.create(replace(first.record, **changes, accepted=False, parent=2), state)
    checkpoints.create(first.record, state).weights.unlink()
    checkpoints.publish(2)
    store = services.store
    done = {"status": "labelled", "lead_time": 60.0}
    store.put_tasks(task_of(task, annotation_id=task, agreement=task / 10, **done) for task in range(1, 9))
    store.put_tasks([task_of(20, status="broken", error=HOSTILE), task_of(21, status="skipped")])
    store.put_tasks([task_of(22, status="passed"), *(task_of(task, status="skipped") for task in range(100, 170))])
    store.put_decisions(PROJECT, [Decision(22, False, 0.25, 0.5, 1.0)], state=("stream", "{}"))
    for level in ("info", "warning", "error"):
        store.add_event(PROJECT, HOSTILE, HOSTILE, level=level)
    yield services
    store.close()


@pytest.fixture(scope="module")
def url(services: Services) -> Iterator[str]:
    """The dashboard's address, served by a real server."""
    with serving(create_app(services.settings)) as address:
        yield address


@pytest.fixture
def visit(offline_chromium: Browser, url: str) -> Callable[..., Any]:
    """Open a page as a visitor; scripts that fail, refused by the policy or not, are problems, and so are requests."""

    @contextmanager
    def opened(**options: Any) -> Iterator[Visit]:
        context = offline_chromium.new_context(http_credentials=ACCOUNT, **options)
        page = context.new_page()
        page.set_default_timeout(60_000)
        opened = Visit(page, url)
        page.on("pageerror", lambda error: opened.problems.append(f"script: {error}"))
        page.on(
            "console",
            lambda message: opened.problems.append(message.text) if message.type in {"error", "warning"} else None,
        )
        page.on("dialog", lambda dialog: (opened.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda sent: None if sent.url.startswith((url, "data:")) else opened.problems.append(f"asks {sent.url}"),
        )
        yield opened
        context.close()

    return opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_run_nothing_but_their_own_and_are_accessible(visit: Callable[..., Any], scheme: str) -> None:
    """Hostile titles, class names, errors and events are text; every page passes axe, contrast included."""
    axe = Axe()
    with visit(color_scheme=scheme, viewport={"width": 1280, "height": 800}) as visitor:
        for path in PAGES:
            visitor.go(path)
            visitor.page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
            visitor.wait("!document.querySelector('canvas') || Boolean(window.Chart)")
            assert visitor.page.evaluate("window.hacked") is None, path
            assert visitor.page.locator("img[src='x']").count() == 0
            assert HOSTILE.split("</canvas>")[0] in visitor.page.locator("body").inner_text(), path
            results = axe.run(visitor.page)
            assert results.violations_count == 0, f"{path} {results.generate_report()}"
            assert visitor.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert visitor.problems == []


def test_a_phone_needs_no_sideways_scrolling(visit: Callable[..., Any]) -> None:
    with visit(viewport=NARROW) as visitor:
        for path in PAGES:
            visitor.go(path)
            width = visitor.page.evaluate("document.documentElement.scrollWidth")
            assert width <= NARROW["width"], path


def test_pages_are_light_and_do_not_jump(visit: Callable[..., Any]) -> None:
    with visit(viewport={"width": 1280, "height": 800}) as visitor:
        sizes: list[int] = []
        visitor.page.on("requestfinished", lambda sent: sizes.append(sent.sizes()["responseBodySize"]))
        visitor.go(f"/projects/{PROJECT}")
        visitor.wait("Boolean(window.Chart && Chart.getChart('curve'))")
        shifts = visitor.page.evaluate(
            """() => new Promise((answer) => {
                let sum = 0;
                new PerformanceObserver((list) => { for (const shift of list.getEntries()) sum += shift.value; })
                    .observe({ type: "layout-shift", buffered: true });
                setTimeout(() => answer(sum), 500);
            })"""
        )
        assert shifts < 0.05
        assert 50_000 < sum(sizes) < 160_000


def test_everything_is_reached_with_the_keyboard(visit: Callable[..., Any]) -> None:
    with visit() as visitor:
        visitor.go(f"/projects/{PROJECT}/versions")
        page, reached = visitor.page, set()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.locator(".skip").bounding_box()["x"] >= 0
        wanted = page.locator("a:visible, button:visible, summary:visible, select:visible").count()
        for _ in range(wanted + 5):
            reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            shadow = page.evaluate("getComputedStyle(document.activeElement).boxShadow")
            assert outline != "none" or shadow != "none" or page.evaluate("document.activeElement === document.body")
            page.keyboard.press("Tab")
        assert len(reached) >= wanted
        page.goto(f"{visitor.url}/projects/{PROJECT}/versions")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"


def test_times_are_those_of_the_visitor(visit: Callable[..., Any]) -> None:
    with visit(timezone_id="Asia/Tokyo", locale="en-GB") as visitor:
        visitor.go(f"/projects/{PROJECT}")
        expect(visitor.page.locator("#live time").first).to_have_text("1 Jan 1970, 09:00")
        expect(visitor.page.locator(".zone")).to_have_text("Asia/Tokyo")


def test_the_curve_is_drawn_against_labels_or_hours(visit: Callable[..., Any]) -> None:
    shown = """() => {
        const chart = Chart.getChart('curve');
        const numbers = chart.data.datasets[0].data.flatMap((point) => [point.x, point.y]);
        return [chart.options.scales.x.title.text, ...numbers];
    }"""
    with visit() as visitor:
        visitor.go(f"/projects/{PROJECT}")
        visitor.wait("Boolean(window.Chart && Chart.getChart('curve'))")
        title, *numbers = visitor.page.evaluate(shown)
        assert title == "labels"
        ticks = visitor.page.evaluate("Chart.getChart('curve').scales.x.ticks.map((tick) => tick.label)")
        assert all(str(label).isdigit() or label == "" for label in ticks)
        assert visitor.page.evaluate("Chart.getChart('curve').options.clip") >= 4
        assert numbers[-4:] == [8, 0.5, 8, 0.5]
        ends = [visitor.page.evaluate(DRAWN, at) for at in (0.43, 0.46, 0.54, 0.57)]
        assert ends == [True, False, False, True]  # the ends of the bar are wider than the bar
        drawn = visitor.page.evaluate(
            "Object.fromEntries(Chart.getChart('curve').data.datasets.map((line) => [line.label, line.borderColor]))"
        )
        given = json.loads(visitor.page.locator("#curve").get_attribute("data-colours"))
        assert given
        assert all(drawn[name] == colour for name, colour in given.items())
        visitor.page.get_by_label("hours of labelling").check()
        visitor.page.get_by_label("Dice").check()
        title, *numbers = visitor.page.evaluate(shown)
        assert title == "hours of labelling"
        assert numbers[-4:] == pytest.approx([8 / 60, 0.6, 8 / 60, 0.6])
        assert [visitor.page.evaluate(DRAWN, at) for at in (0.53, 0.57, 0.67)] == [True, False, True]
        visitor.page.get_by_role("button", name="Dark").click()
        assert visitor.page.evaluate("document.documentElement.dataset.theme") == "dark"
        visitor.go("/")
        assert visitor.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_state_follows_without_a_reload(visit: Callable[..., Any], services: Services) -> None:
    with visit() as visitor:
        visitor.go(f"/projects/{PROJECT}")
        visitor.page.evaluate("window.stayed = true")
        lease = services.store.acquire("worker", lease_seconds=600, interval=1, only=PROJECT)
        assert lease is not None
        at_work = {
            "state": "training",
            "stage": "training",
            "stage_done": 30,
            "stage_total": 120,
            "stage_since": time.time(),
        }
        services.store.update_project(PROJECT, **at_work)
        try:
            expect(visitor.page.locator("#live progress")).to_have_attribute("value", "0.2500")
            expect(visitor.page.locator("#announcement")).to_have_text("State: training")
            expect(visitor.page.get_by_role("button", name="Training …")).to_be_disabled()
            services.store.update_project(PROJECT, stage_done=60)
            expect(visitor.page.locator("#live progress")).to_have_attribute("value", "0.5000")
        finally:
            services.store.update_project(PROJECT, state="failed", stage="")
            services.store.release(lease, handled=True)
        expect(visitor.page.locator("#live progress")).to_have_count(0)
        expect(visitor.page.get_by_role("button", name="Train now")).to_be_enabled()
        assert visitor.page.evaluate("window.stayed")
        assert visitor.problems == []


def test_without_scripts_pages_are_read_and_a_version_is_rolled_back(
    visit: Callable[..., Any], services: Services
) -> None:
    with visit(java_script_enabled=False) as visitor:
        page: Page = visitor.page
        visitor.go(f"/projects/{PROJECT}")
        page.get_by_text("Show as a table").first.click()
        expect(page.get_by_role("region", name="Learning curve as a table")).to_contain_text(
            "0.50 (0.43 to 0.57) on 2 images"
        )
        expect(page.locator("canvas").first).to_be_hidden()
        page.get_by_role("button", name="Train now").click()
        expect(page.get_by_text("Training requested")).to_be_visible()
        page.get_by_role("link", name="Tasks", exact=True).click()
        page.get_by_role("link", name="Next", exact=True).click()
        expect(page.get_by_text("Page 2 of 2")).to_be_visible()
        page.get_by_role("link", name="Versions").click()
        page.get_by_role("link", name="Roll back to version 1").click()
        page.get_by_role("button", name="Roll back to version 1").click()
        expect(page.get_by_text("Version 1 serves again")).to_be_visible()
    current = services.checkpoints(PROJECT).current()
    assert current is not None
    assert current.number == 1
    services.checkpoints(PROJECT).publish(2)


def test_a_form_on_another_site_changes_nothing(
    offline_chromium: Browser, url: str, services: Services, tmp_path: Path
) -> None:
    """The visitor is signed in, and opens a page elsewhere that posts to nextmask with that password."""
    before = services.store.project(PROJECT)
    context = offline_chromium.new_context(http_credentials=ACCOUNT)
    page = context.new_page()
    page.goto(f"{url}/")
    trap = tmp_path / "trap.html"
    trap.write_text(f'<form method="post" action="{url}/projects/{PROJECT}/train"><button>Win</button></form>')
    for address in (trap.as_uri(), "data:text/html," + trap.read_text()):
        page.goto(address)
        with page.expect_response(f"{url}/projects/{PROJECT}/train") as answer:
            page.get_by_role("button").click()
        assert answer.value.status == 403
    context.close()
    assert services.store.project(PROJECT) == before
