"""Looks at a large project: they read what changed, and what they show, however many tasks there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from database_work import watched
from memory_studio import MemoryStudio
from wiring import PROJECT, disc, look_at, nothing, open_installation, png, project_of, region, serve_model

from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.system.clock import boot_seconds
from ml_backend.worker.publish import publish
from ml_backend.worker.reconcile import reconcile

SIZES = (400, 3000)
SETTINGS = {"input_size": 32, "batch_size": 4, "train_after": 999, "queue_window": 20, "pool_sample": 20}

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class LargeStudio(MemoryStudio):
    """A Label Studio whose clock goes on, and which can be given many tasks at once."""

    def settled(self) -> str:
        now = datetime(2100, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=boot_seconds())
        return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def add_tasks(self, count: int) -> None:
        """Upload the same four images over and over."""
        pictures = [png(disc(index)[0]) for index in range(4)]
        for number in range(1 + len(self.items), 1 + len(self.items) + count):
            reference = f"/data/upload/{number}.png"
            self.files[reference] = pictures[number % 4]
            self.items[number] = {
                "id": number,
                "data": {"image": reference},
                "annotations": [],
                "updated_at": self.now(),
            }

    def label_first(self) -> None:
        """Label the task that is served first."""
        self.annotate(self.queue()[0], [region(disc(0)[1])], lead_time=2.0)


@dataclass(frozen=True)
class Measured:
    """Rows fetched, and the steps of the database, by what was done; of a ranking also the rows written."""

    idle: tuple[int, int]
    label: tuple[int, int]
    after: tuple[int, int]
    publish: tuple[int, int]
    rank: tuple[int, int]
    written: int


def measured(folder: Path, size: int, **settings: object) -> Measured:
    studio = LargeStudio.with_images(connected=True)
    studio.add_tasks(size)
    with open_installation(folder, studio, **{**SETTINGS, **settings}) as services:
        services.store.wake(PROJECT)
        serve_model(services)
        look = partial(reconcile, services, PROJECT, nothing)
        look()
        for _ in range(2):
            studio.label_first()
            look()
        with watched(services.store) as work:
            look()
            idle = work.of(look)
            studio.label_first()
            label = work.of(look)
            after = work.of(look)
            published = work.of(lambda: publish(look_at(services)))
            ranked: list[tuple[int, int]] = []
            services.store.update_project(PROJECT, ranking_key="")
            written = work.written_by(lambda: ranked.append(work.of(look)))
        assert project_of(services).error == ""
        assert services.store.count_tasks(PROJECT) == {"labelled": 3, "unlabelled": size - 3}
        return Measured(idle, label, after, published, *ranked, written)


@pytest.mark.parametrize("audit_share", [0.0, 0.125])
def test_a_look_costs_the_same_in_a_project_twenty_times_as_large(audit_share: float, tmp_path: Path) -> None:
    small, large = (measured(tmp_path / str(size), size, audit_share=audit_share) for size in SIZES)
    for what in ("idle", "label", "after", "publish", "rank"):
        rows, steps = getattr(small, what)
        assert 0 < getattr(large, what)[0] <= rows + 4, what  # a page more or less of the audit set
        if what in ("idle", "publish"):
            assert getattr(large, what)[1] <= 1.5 * steps, what
    assert abs(large.written - small.written) <= 4, "rows that a ranking writes"


def test_what_a_label_changes_is_counted_anew_in_the_index_alone(tmp_path: Path) -> None:
    """The one thing that grows with the project: about one instruction per task and count."""
    small, large = (measured(tmp_path / str(size), size) for size in SIZES)
    more = (large.label[1] - small.label[1]) * 100 / (SIZES[1] - SIZES[0])
    assert more < 60, f"{more:.0f} instructions per task"


def test_new_tasks_are_seen_and_ranked_in_a_large_project(services: Services, studio: MemoryStudio) -> None:
    store = services.store
    store.wake(PROJECT)
    store.put_tasks(Task(PROJECT, number, f"{number}.png") for number in range(1, 501))
    store.put_ranking(PROJECT, {number: 1 / number for number in range(1, 501)})
    known = store.changes(PROJECT)
    assert store.count_new(PROJECT, after=known) == 0
    store.put_tasks(
        [Task(PROJECT, 501, "501.png"), Task(PROJECT, 502, "502.png", error="gone"), Task(PROJECT, 7, "7.png")]
    )
    assert store.count_new(PROJECT, after=known) == 1, "one has an error, and the other its place"
    store.set_task_error(PROJECT, 502, "")
    assert store.count_new(PROJECT, after=known) == 2
    assert store.count_new(PROJECT, after=known, among=[501]) == 1
