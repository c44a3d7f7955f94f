"""Turns to train: one training on each device at a time, in all processes, in the order of asking; nobody waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from trainings import Run, Trainings, label
from wiring import PROJECT, Clock, look_at, project_of

from ml_backend.errors import ConfigurationError, TrainingError, TrainingWaits
from ml_backend.learning.networks import Device, discover
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_state
from ml_backend.projects.training_turns import TrainingTurns, held_words
from ml_backend.server.app import create_app
from ml_backend.settings import ALL_DEVICES
from ml_backend.store import Store
from ml_backend.store.devices import HEAD_START_SECONDS, PATIENCE_SECONDS
from ml_backend.worker.worker import THREADS, Worker

ROOT = Path(__file__).parents[3]
TWO = (Device("cpu", "the first"), Device("cpu", "the second"))
"""Two devices of a machine without CUDA: what discovers those of a machine answers with the same type."""

MakeTurns = Callable[..., TrainingTurns]


@pytest.fixture
def make_turns(services: Services) -> Iterator[MakeTurns]:
    """Turns of processes, each with connections of its own to the same database."""
    with ExitStack() as stack:

        def make(devices: tuple[Device, ...] = TWO[:1], **changes: object) -> TrainingTurns:
            store = stack.enter_context(closing(Store(services.settings.effective_database_url)))
            usual = {"device": ALL_DEVICES, "lease_seconds": 600.0}  # longer than a slow machine stands still
            settings = services.settings.model_copy(update={**usual, **changes})
            return TrainingTurns(store, settings, lambda _: devices)

        yield make


def is_refused(turns: TrainingTurns, project: int) -> bool:
    try:
        with turns.take(project):
            return False
    except TrainingWaits:
        return True


def until_lost(check: Callable[[], None]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        check()
        threading.Event().wait(0.02)


def woken(store: Store) -> list[int]:
    """The projects that were woken since this was asked last."""
    projects = [project for project in store.projects() if project.wakes > project.wakes_handled]
    for project in projects:
        store.update_project(project.id, wakes_handled=project.wakes)
    return [project.id for project in projects]


@pytest.fixture
def store(services: Services) -> Store:
    for project in range(1, 6):
        services.store.wake(project)
    woken(services.store)
    return services.store


def test_one_trains_at_a_time_and_whoever_asked_first_is_next(
    make_turns: MakeTurns, store: Store, clock: Clock
) -> None:
    here, there = make_turns(), make_turns()
    with here.take(1):
        assert is_refused(there, 2)
        assert is_refused(here, 3)
        assert is_refused(here, 2), "asking again neither helps nor harms"
        assert woken(store) == []
        assert here.is_awaited
    assert woken(store) == [2]
    clock.now += 1.0
    assert is_refused(there, 1), "new labels already, but others were earlier"
    assert woken(store) == [2], "which may have been woken when it was not first yet"
    assert is_refused(here, 3)
    woken(store)
    for turns, project, following in ((here, 2, [3]), (there, 3, [1]), (here, 1, [])):
        with turns.take(project):
            pass
        assert woken(store) == following
    assert not here.is_awaited


def test_a_training_that_fails_gives_its_turn_back(make_turns: MakeTurns, store: Store) -> None:
    turns = make_turns()
    with pytest.raises(ValueError, match="it failed"), turns.take(1):
        raise ValueError("it failed")
    assert not is_refused(turns, 2)


def test_who_has_no_reason_any_more_holds_up_nobody(make_turns: MakeTurns, store: Store, clock: Clock) -> None:
    turns = make_turns()
    with turns.take(1):
        assert [is_refused(turns, project) for project in (2, 3, 4)] == [True] * 3
        turns.leave(5)
        assert woken(store) == [], "nobody can train while another does"
    assert woken(store) == [2]
    turns.leave(2)
    assert woken(store) == [3]
    assert is_refused(turns, 4)
    clock.now += PATIENCE_SECONDS + 1  # 3 was disconnected, and does not come back
    assert not is_refused(turns, 4)


@pytest.mark.usefixtures("clock")
def test_each_device_trains_one_project_whichever_process_asks(make_turns: MakeTurns, store: Store) -> None:
    here, there = make_turns(TWO), make_turns(TWO)
    with here.take(1), there.take(2):
        assert {lease.key for lease in store.held_devices()} == {"the first", "the second"}
        assert is_refused(here, 3)
        assert is_refused(there, 4)
    assert woken(store) == [3, 4], "one for each device that became free"
    with here.take(4):
        assert is_refused(there, 5), "one device is left, and 3 was earlier"
        with there.take(3):
            assert is_refused(there, 5)


def test_a_device_waits_a_moment_for_whoever_asked_first(make_turns: MakeTurns, store: Store, clock: Clock) -> None:
    """That project may be looked at on another machine, whose device trains."""
    here, there = make_turns(), make_turns(TWO[1:])
    with there.take(1):
        with here.take(2):
            assert is_refused(there, 3)
        assert is_refused(here, 4), "3 was earlier"
        clock.now += HEAD_START_SECONDS + 1
        assert is_refused(there, 3)
        assert not is_refused(here, 4), "nobody came for it"


def test_one_device_of_several_stays_one(make_turns: MakeTurns, store: Store) -> None:
    one, both = make_turns(TWO[1:]), make_turns(TWO)
    with one.take(1):
        assert is_refused(one, 2)
        one.leave(2)
        with both.take(3):
            assert sorted(lease.key for lease in store.held_devices()) == ["the first", "the second"]


def test_a_device_that_went_to_another_ends_the_training(make_turns: MakeTurns, store: Store, clock: Clock) -> None:
    """A process that stood still for longer than its lease."""
    here, there = make_turns(lease_seconds=2.0), make_turns()
    with here.take(1) as turn:
        turn.check()
        clock.now += 3.0
        lost = pytest.raises(TrainingWaits, match="cpu went to another worker: project 1 trains later")
        with there.take(2), lost:
            until_lost(turn.check)
        assert store.held_devices() == []


KILLED = """
import sys, time
from pathlib import Path
from ml_backend.learning.networks.devices import Device
from ml_backend.projects.training_turns import TrainingTurns
from ml_backend.settings import Settings
from ml_backend.store import Store
settings = Settings(device="cuda:all", lease_seconds=2.0)
with TrainingTurns(Store(sys.argv[1]), settings, lambda _: [Device("cpu", "the first")]).take(1):
    print("trains", flush=True)
    time.sleep(60)
"""


def test_a_worker_that_is_killed_frees_its_device_when_its_lease_ends(
    make_turns: MakeTurns, store: Store, services: Services
) -> None:
    command = [sys.executable, "-c", KILLED, services.settings.effective_database_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "trains\n"
        assert is_refused(make_turns(), 2)
        (lease,) = store.held_devices()
        assert (lease.project_id, lease.worker.endswith(f":{killed.pid}")) == (1, True)
        killed.send_signal(signal.SIGKILL)
    assert is_refused(make_turns(), 2), "nobody can tell yet"
    while store.held_devices():
        threading.Event().wait(0.05)
    assert store.time() >= lease.since + 2.0
    assert not is_refused(make_turns(), 2)


def test_devices_are_told_in_the_order_of_their_names(make_turns: MakeTurns, store: Store) -> None:
    turns = make_turns([Device(f"cuda:{number}", f"GPU {number}") for number in range(6)])
    with ExitStack() as held:
        for project in range(6):
            held.enter_context(turns.take(project))
        assert [lease.name for lease in store.held_devices()] == [f"cuda:{number}" for number in range(6)]


def test_predictions_are_spread_over_the_devices_that_do_not_train(make_turns: MakeTurns, store: Store) -> None:
    devices = tuple(Device(f"cuda:{number}", f"GPU {number}") for number in range(3))
    turns = make_turns(devices)
    assert [turns.device_for(project) for project in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    with turns.take(1) as turn:
        assert turn.device == "cuda:0"
        free = {turns.device_for(project, avoid_trainings=True) for project in range(4)}
        assert free == {"cuda:1", "cuda:2"}
    assert make_turns(devices, device="cuda:1").device_for(0) == "cuda:1"


def test_a_lease_from_before_the_clock_was_set_back_has_ended(
    make_turns: MakeTurns, store: Store, clock: Clock
) -> None:
    here, there = make_turns(), make_turns()
    with here.take(1):
        clock.now -= 7200.0
        assert store.held_devices() == []
        with there.take(2):
            assert [lease.project_id for lease in store.held_devices()] == [2]


# -- in the product --------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("known_project")
@pytest.mark.studio(8)
@pytest.mark.settings(train_after=4, device=ALL_DEVICES)
def test_a_project_trains_on_the_device_that_is_free_and_people_see_which(
    services: Services, run: Run, trainings: Trainings, make_turns: MakeTurns
) -> None:
    turns, others = make_turns(), make_turns((Device("cuda:1", "the second"),))
    object.__setattr__(services, "turns", turns)
    seen: list[str] = []

    def look() -> None:
        seen.append(project_state(services.settings, services.store, PROJECT).device)
        seen.extend(held_words(services.store))
        page = TestClient(create_app(services.settings)).get("/").text
        seen.extend(line for line in page.splitlines() if "cuda:1" in line)

    trainings.meanwhile = look
    label(services, range(1, 5))
    with others.take(PROJECT + 1):
        assert run()
    assert trainings.jobs[0].device == "cpu"
    assert seen[0].startswith("cpu of ")
    assert any(f"trains project {PROJECT}, since" in line for line in seen)
    assert any("<th" in line and "cuda:1" in line for line in seen)
    assert project_state(services.settings, services.store, PROJECT).device == ""
    assert project_of(services).train_error == ""


@pytest.mark.settings(device=ALL_DEVICES)
def test_a_worker_looks_after_a_project_for_each_device_and_one_more(services: Services, make_turns: MakeTurns) -> None:
    object.__setattr__(services, "turns", make_turns((*TWO, Device("cpu", "the third"))))
    assert Worker(services).threads == 1 + 3
    object.__setattr__(services, "turns", make_turns(TWO[:1]))
    assert Worker(services).threads == THREADS


def test_a_machine_without_cuda_says_so(services: Services) -> None:
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_DEVICE = 'cuda:all' is not available here\. Set auto or"):
        discover(ALL_DEVICES)
    (device,) = discover("auto")
    assert (device.name, device.key.endswith(" cpu")) == ("cpu", True)
    assert look_at(services).device == "cpu"


@pytest.mark.settings(device=ALL_DEVICES)
def test_without_cuda_a_worker_runs_and_says_so(services: Services) -> None:
    assert Worker(services).threads == THREADS
    with pytest.raises(TrainingError, match="'cuda:all' is not available here"), services.turns.take(PROJECT):
        pass
