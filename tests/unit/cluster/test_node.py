"""What a node does with rows: it observes what the worker would, and what is wrong comes back in a sentence.

Nodes are this process here; `test_ray` has real ones.
"""

from __future__ import annotations

import importlib.util
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wiring import LABEL_MAP, PROJECT, SHAPE, XML, data_uri, disc, look_at, nothing, task_of

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_to_text, covered_pixels
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.cluster import process
from ml_backend.cluster.node import WholeStage, node_settings
from ml_backend.cluster.process import Work
from ml_backend.cluster.rows import Row, Scored
from ml_backend.cluster.versions import difference, versions
from ml_backend.errors import CheckpointError, ClusterError, ConfigurationError, ImageError, TrainingWaits
from ml_backend.images.cache import ImageCache
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.ranking import PoolRanking, make_strategy
from ml_backend.projects.services import Services
from ml_backend.projects.training_turns import Turn
from ml_backend.store import Task
from ml_backend.worker import ray_scorer
from ml_backend.worker.pool import Waiting
from ml_backend.worker.score_pool import PoolRanker
from ml_backend.worker.training_run import TrainingRun

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.settings(batch_size=1)]
"""Of one image a batch: the last digits of what is computed depend on its size."""


def on_node(work: Work, parts: Iterable[list[Row]], **_: Any) -> Iterator[Scored]:
    """Hand rows to a node, and take what it returns."""
    stage = WholeStage(work.detail)
    for rows in parts:
        yield stage(pickle.loads(pickle.dumps(rows)))


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "node"))
    monkeypatch.setattr(ray_scorer, "LEAST_IMAGES", 2)
    monkeypatch.setattr(ray_scorer, "_PART", 4)
    monkeypatch.setattr(ray_scorer, "messages", on_node)


@pytest.fixture
def pool(services: Services, tmp_path: Path) -> list[Task]:
    """Twelve images, one labelled as a whole, one in part, and one that cannot be read."""
    mask = disc(20)[1]
    half = np.where(covered_pixels([Box(0, 0, 20, 32)], SHAPE), disc(21)[1], IGNORE_INDEX).astype(np.uint8)
    tasks = [task_of(number, image=data_uri(number)) for number in range(1, 13)]
    for number, label, boxes in ((20, mask, ""), (21, half, boxes_to_text([Box(0, 0, 20, 32)]))):
        file, effort = tmp_path / f"{number}.png", tmp_path / f"{number}.npy"
        file.write_bytes(masks.png_bytes(label))
        np.save(effort, np.array([[3, 3, 2.5]], np.float32))
        fields = {"mask_file": str(file), "effort_file": str(effort), "effort": 2.5, "boxes": boxes}
        tasks.append(task_of(number, image=data_uri(number), status="labelled", **fields))
    tasks += [task_of(22, image=data_uri(21)), task_of(30, image="data:image/png;base64,AAAA")]
    services.store.put_tasks(tasks)
    return tasks


def ranked(
    services: Services,
    model: Version,
    tasks: list[Task],
    *,
    address: str = "",
    waiting: Waiting | None = None,
    **settings: Any,
) -> PoolRanking:
    own = services.settings.model_copy(update={"ray_address": address})
    label_map = parse_label_config(with_query_control(XML)) if settings.pop("in_parts", False) else LABEL_MAP
    look = look_at(replace(services, settings=own), label_map=label_map, settings=settings)
    return PoolRanker(look, model).rank(tasks, round_number=1, waiting=waiting)


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "auto"},
        {"strategy": "coreset"},
        {"strategy": "points"},
        {"strategy": "bald", "members": 3},
        {"strategy": "vaal", "strategy_options": {"epochs": 1, "image_size": 16, "width": 4, "latent": 4}},
        {
            "strategy": "cereals",
            "strategy_options": {"window": 16, "stride": 8, "iterations": 3, "cost_width": 4},
            "in_parts": True,
        },
    ],
    ids=lambda settings: settings["strategy"],
)
def test_the_ranking_is_that_of_the_worker(
    settings: dict[str, Any], services: Services, model: Version, pool: list[Task]
) -> None:
    here = ranked(services, model, pool, **settings)
    there = ranked(services, model, pool, address="auto", **settings)
    assert dict(there.priorities) == dict(here.priorities)
    assert dict(there.information) == dict(here.information)
    assert dict(there.queries) == dict(here.queries)
    assert "is not a PNG" in services.store.tasks_by_id(PROJECT, [30])[30].error
    assert services.store.events(PROJECT) == []


def test_tasks_that_are_not_in_memory_are_ranked_alike(services: Services, model: Version, pool: list[Task]) -> None:
    """A large pool is read from the store while it is scored, or handed to the cluster."""
    services.store.draw_tasks(PROJECT, services.settings.seed)
    own = [task for task in pool if task.task_id in {20, 21, 22}]
    waiting = Waiting(services.store, PROJECT, newest=30, count=len(pool) - len(own), without={22})
    expected = ranked(services, model, pool)
    for address in ("", "auto"):
        found = ranked(services, model, own, address=address, waiting=waiting)
        assert dict(found.priorities) == dict(expected.priorities)
        assert dict(found.information) == dict(expected.information)
        assert found.scored == 13


@pytest.mark.parametrize("failure", ["images", "token"])
def test_what_is_wrong_with_a_node_is_not_held_against_images_and_labels(
    services: Services, model: Version, pool: list[Task], monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """It reaches no host of images, or has a token that is none: both may be otherwise here."""

    def no_image(_: ImageCache, references: Iterable[str]) -> list[ImageError]:
        if failure == "token":
            raise ConfigurationError("LABEL_STUDIO_API_KEY holds a placeholder.")
        return [ImageError("the connection was refused") for _ in references]

    def at_fault(work: Work, parts: Iterable[list[Row]], **_: Any) -> Iterator[Scored]:
        with monkeypatch.context() as patch:
            patch.setattr(ImageCache, "arrays", no_image)
            found = list(on_node(work, [[row for part in parts for row in part]]))
        for scored in found:
            if scored.failure is not None:
                raise scored.failure
            yield scored

    here = ranked(services, model, pool)
    monkeypatch.setattr(ray_scorer, "messages", at_fault)
    there = ranked(services, model, pool, address="auto")
    assert dict(there.priorities) == dict(here.priorities)
    assert {task.status for task in services.store.tasks(PROJECT) if task.mask_file} == {"labelled"}
    (event,) = services.store.events(PROJECT)
    assert ("could have none of" if failure == "images" else "holds a placeholder") in event.text
    assert "Ray cluster" in event.text


def test_what_the_cluster_did_not_score_is_scored_here_and_that_is_said_once(
    services: Services, model: Version, pool: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*arguments: Any, **options: Any) -> Iterator[Scored]:
        yield next(on_node(*arguments, **options))
        raise ClusterError("The cluster was switched off.", "Start it.")

    here = ranked(services, model, pool)
    monkeypatch.setattr(ray_scorer, "messages", lost)
    for _ in range(2):
        assert dict(ranked(services, model, pool, address="auto").priorities) == dict(here.priorities)
    monkeypatch.setattr(ray_scorer, "messages", on_node)
    ranked(services, model, pool, address="auto")
    assert [event.text for event in services.store.events(PROJECT)][::-1] == [
        "The cluster was switched off. Start it. The pool is scored here meanwhile.",
        "The Ray cluster can be used again.",
    ]


def test_a_small_pool_is_scored_here(
    services: Services, model: Version, pool: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: Any, **_options: Any) -> Iterator[Scored]:
        raise AssertionError("the cluster was asked")

    monkeypatch.setattr(ray_scorer, "LEAST_IMAGES", len(pool))
    monkeypatch.setattr(ray_scorer, "messages", never)
    assert ranked(services, model, pool, address="auto").scored == 13


def test_no_secret_is_handed_over(
    services: Services, model: Version, pool: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Work] = []

    def kept(work: Work, *arguments: Any, **options: Any) -> Iterator[Scored]:
        works.append(work)
        return on_node(work, *arguments, **options)

    monkeypatch.setattr(ray_scorer, "messages", kept)
    ranked(services, model, pool, address="auto")
    token = services.settings.label_studio_api_key.get_secret_value()
    assert token
    assert token.encode() not in pickle.dumps(works)


# -- what is wrong ---------------------------------------------------------------------------------------------------
def scoring_of(services: Services, model: Version, **changes: Any) -> Any:
    look = look_at(services)
    scorer = ray_scorer.RayScorer(look, None, model, (), {})  # type: ignore[arg-type]
    return replace(scorer._scoring(make_strategy("entropy", {})), **changes)


def failure(scoring: Any) -> str:
    work = Work("auto", "cpu", "score", scoring)
    (scored,) = on_node(work, [[Row(1, data_uri(1))]])
    assert scored.observation is None
    return str(scored.failure)


def test_a_node_of_another_version_says_so(services: Services, model: Version) -> None:
    text = failure(scoring_of(services, model, versions={**versions(), "torch": "1.0"}))
    assert "of the Ray cluster has torch" in text
    assert "where the worker has 1.0. Install the same versions on all machines." in text
    assert difference(versions(), versions()) == ""


def test_a_node_without_room_says_so(services: Services, model: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ml_backend.cluster.node.unpacked", full)
    assert "has no room for temporary files: free some under" in failure(scoring_of(services, model))


def test_a_setting_that_is_wrong_on_a_node_is_told(
    services: Services, model: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXTMASK_SCORING_MEMORY", "much")
    assert "NEXTMASK_SCORING_MEMORY = 'much'" in failure(scoring_of(services, model))


def test_without_ray_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(ClusterError) as failed:
        list(process.messages(Work("auto", "cpu", "score", None), (), heartbeat=nothing))
    assert str(failed.value) == (
        "NEXTMASK_RAY_ADDRESS = 'auto', but Ray is not installed here. Install it: pip install 'nextmask[ray]'."
    )


def test_what_a_node_refuses_ends_the_ranking(
    services: Services, model: Version, pool: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: Any, **_options: Any) -> Iterator[Scored]:
        raise ConfigurationError("NEXTMASK_DROPOUT = 0")
        yield

    monkeypatch.setattr(ray_scorer, "messages", refused)
    with pytest.raises(ConfigurationError, match="NEXTMASK_DROPOUT"):
        ranked(services, model, pool, address="auto")


# -- beside files and devices ----------------------------------------------------------------------------------------
def test_a_node_whose_model_dir_is_a_bucket_caches_images_on_its_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DIR", "s3://bucket/nextmask")
    settings = node_settings({"label_studio_url": "http://label-studio.example.org"})
    assert settings.local_folder == Path(tempfile.gettempdir()) / "nextmask"


def test_files_of_a_version_that_is_gone_are_not_handed_over(services: Services, model: Version) -> None:
    checkpoints = services.checkpoints(PROJECT)
    assert checkpoints.files_of(model.number).keys() == {"versions/1/version.json", "versions/1/weights.safetensors"}
    for number, committee in ((9, False), (model.number, True)):
        with pytest.raises(CheckpointError, match="is gone"):
            checkpoints.files_of(number, committee=committee)


def test_a_training_on_the_cluster_waits_for_no_device_here(services: Services) -> None:
    own = services.settings.model_copy(update={"ray_address": "auto", "device": "cuda:all"})
    training = TrainingRun(look_at(replace(services, settings=own)), [], LABEL_MAP, "")
    with services.turns.take(PROJECT + 1):
        with pytest.raises(TrainingWaits), services.turns.take(PROJECT):
            pass
        assert services.store.waiting_to_train() == [PROJECT]
        devices = list[str]()

        def train(turn: Turn) -> int:
            turn.check()
            devices.append(turn.device)
            return 1

        assert training._somewhere(train) == 1
        assert devices == ["cuda:all"]
        assert services.store.waiting_to_train() == []


def test_without_the_cluster_a_training_takes_its_turn_here(services: Services) -> None:
    own = services.settings.model_copy(update={"ray_address": "auto"})
    training = TrainingRun(look_at(replace(services, settings=own)), [], LABEL_MAP, "")

    def train(turn: Turn) -> int:
        if not services.store.held_devices():
            raise ClusterError("The cluster was switched off.", "Start it.")
        assert [lease.name for lease in services.store.held_devices()] == [turn.device]
        return 1

    assert training._somewhere(train) == 1
    assert services.store.held_devices() == []
    (event,) = services.store.events(PROJECT)
    assert event.text == "The cluster was switched off. Start it. The project trains here meanwhile."
