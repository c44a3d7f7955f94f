"""MODEL_DIR in a bucket of an S3 server: a project on two machines from labels to queue, and what goes wrong."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import fsspec
import pytest
from faulty_proxy import FaultyProxy, answer, not_answered
from memory_studio import MemoryStudio
from object_store import ObjectStore
from wiring import PROJECT, disc, make_services, make_settings, nothing, project_of, region

from ml_backend.doctor.installation.disk import check_folder
from ml_backend.errors import BackupError, FilesUnavailable, NextmaskError
from ml_backend.projects.services import Services
from ml_backend.projects.serving import serving_predictor
from ml_backend.projects.status import project_status
from ml_backend.store.backup import backup
from ml_backend.system import bucket as buckets
from ml_backend.worker.reconcile import reconcile

QUICK = {"input_size": 32, "iterations": 6, "train_after": 4, "audit_share": 0.0, "batch_size": 4, "queue_window": 4}
Machine = Callable[..., Services]


@pytest.fixture
def studio() -> MemoryStudio:
    studio = MemoryStudio()
    for index in range(12):
        studio.add_task(index)
    return studio


@pytest.fixture
def machine(
    bucket_url: str, studio: MemoryStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    """Opens nextmask on a machine of its own; all share bucket and database."""
    with ExitStack() as opened:

        def go(name: str, url: str = bucket_url) -> Services:
            (tmp_path / name).mkdir(exist_ok=True)
            monkeypatch.chdir(tmp_path / name)
            shared = {"model_dir": url, "database_url": f"sqlite:///{tmp_path / 'shared.sqlite3'}"}
            services = make_services(tmp_path / name, studio, **shared, **QUICK)
            opened.callback(services.store.close)
            return services

        yield go


def forget_connections() -> None:
    """Let the driver look for the address of the server once more."""
    fsspec.filesystem("s3").clear_instance_cache()


def label(studio: MemoryStudio, *tasks: int) -> None:
    for task in tasks:
        studio.label(task)


def test_a_project_lives_in_a_bucket(
    machine: Machine, studio: MemoryStudio, s3: ObjectStore, bucket_url: str, tmp_path: Path
) -> None:
    first = machine("first")
    first.store.wake(PROJECT)
    label(studio, 1, 2, 3, 4)
    reconcile(first, PROJECT, nothing, trial=False)
    assert studio.fields["model_version"] == "nextmask-1.1"
    keys = s3.keys(bucket_url)
    assert {f"projects/{PROJECT}/model/versions/1/{name}" for name in ("version.json", "weights.safetensors")} <= keys
    stored = {file for task in first.store.tasks(PROJECT) for file in (task.mask_file, task.effort_file) if file}
    assert stored
    assert stored == {key for key in keys if "/masks/" in key}
    assert not list((tmp_path / "first" / ".nextmask").glob("projects/*/model")), "no second copy that somebody reads"

    # Another machine goes on where the first one was, and needs nothing of it.
    shutil.rmtree(tmp_path / "first")
    second = machine("second")
    version = second.checkpoints(PROJECT).current()
    assert version is not None
    (predicted,) = serving_predictor(second, PROJECT, version.number).predict([disc(7)[0]])
    assert predicted.mask.shape == disc(7)[0].shape[:2]
    studio.annotate(1, [region(disc(5)[1])])
    label(studio, 5, 6, 7, 8)
    reconcile(second, PROJECT, nothing, trial=False)
    assert studio.fields["model_version"] == "nextmask-2.2"
    record = second.checkpoints(PROJECT).get(2).record
    assert (record.parent, len(record.labels)) == (1, 8)
    (again,) = (task for task in second.store.tasks(PROJECT) if task.task_id == 1)
    assert again.mask_file in s3.keys(bucket_url)
    assert {key for key in s3.keys(bucket_url) if "/masks/1-" in key} == {again.mask_file, again.effort_file}
    assert project_status(second.settings, second.store, PROJECT).errors == {}
    with pytest.raises(BackupError, match=r"is a bucket, .*sqlite3 .*copy s3://\S+/projects with"):
        backup(second.settings, tmp_path / "a.tar.zst", progress=nothing)


def test_a_network_that_goes_in_the_middle_of_a_training(
    machine: Machine, studio: MemoryStudio, s3: ObjectStore, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training ends with a sentence, the version that serves goes on, the queue stays; then all is made up for."""
    with FaultyProxy(s3.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        forget_connections()
        services = machine("only")
        services.store.wake(PROJECT)
        label(studio, 1, 2, 3, 4)
        reconcile(services, PROJECT, nothing, trial=False)
        before, queue = studio.fields["model_version"], studio.queue()

        label(studio, *queue)
        proxy.fault(not_answered, method="PUT", path="/weights.safetensors")
        with pytest.raises(NextmaskError, match="cannot be used now"):
            reconcile(services, PROJECT, nothing, trial=False)
        assert "MODEL_DIR = s3://" in project_of(services).train_error
        assert studio.fields["model_version"].startswith(before.partition(".")[0]), "version 1 goes on"
        assert studio.queue(), "the queue is filled again by the model in memory"

        proxy.fault(not_answered)  # now all of it
        monkeypatch.setattr(buckets, "LISTED_SECONDS", 0.0)  # what was listed is believed for a moment
        assert "cannot be used now" in project_status(services.settings, services.store, PROJECT).errors["model"]
        assert serving_predictor(services, PROJECT, 1).predict([disc(7)[0]])
        label(studio, 12)
        with pytest.raises(FilesUnavailable, match=r"MODEL_DIR = s3://\S+ cannot be used now: .*by itself"):
            reconcile(services, PROJECT, nothing, trial=False)
        assert studio.queue()

        proxy.clear()
        monkeypatch.setattr(buckets, "FAILED_SECONDS", 0.0)
        services.store.wake(PROJECT, train=True)
        reconcile(services, PROJECT, nothing, trial=False)
        # The number that the training had taken, whose weights never arrived, stays taken.
        assert studio.fields["model_version"].startswith("nextmask-3.")
        assert services.checkpoints(PROJECT).damaged() == {}
        project = project_of(services)
        assert (project.error, project.train_error) == ("", "")
    forget_connections()


def test_doctor_says_what_is_wrong_with_a_bucket(
    bucket_url: str, s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = itertools.count()

    def found(url: str) -> tuple[str, str, str]:
        forget_connections()
        (folder := tmp_path / str(next(tried))).mkdir()
        monkeypatch.chdir(folder)  # where nothing is known of the bucket yet
        (finding,) = [one for one in check_folder(make_settings(tmp_path, model_dir=url)) if one.check == "bucket"]
        return finding.level, finding.message, finding.remedy

    assert found(bucket_url) == ("ok", f"MODEL_DIR = {bucket_url} can be written, listed and read", "")
    assert s3.keys(bucket_url) == set(), "what was tried is removed"
    level, message, remedy = found("s3://nobody-made-this/nextmask")
    assert (level, remedy) == ("problem", "Make it, or correct MODEL_DIR.")
    assert message.startswith("The bucket s3://nobody-made-this of MODEL_DIR")
    with FaultyProxy(s3.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        proxy.fault(answer(403, denied), method="PUT")
        level, message, remedy = found(bucket_url)
        assert (level, message) == ("problem", f"MODEL_DIR = {bucket_url} may not be used: Access Denied.")
        assert "credentials" in remedy
    forget_connections()
