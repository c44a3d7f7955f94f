"""The page of one version, and the version as an archive that needs no nextmask."""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from small_training import disc_job
from wiring import PROJECT, XML, task_of

from ml_backend.dashboard.rendering import NOTHING
from ml_backend.images.decoding import load_image
from ml_backend.learning.checkpoints import Version, archive
from ml_backend.learning.measuring.words import measured_text, recorded
from ml_backend.learning.networks.architectures import ARCHITECTURES
from ml_backend.learning.training import Job, train
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.services import Services
from ml_backend.server.app import create_app

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = f"/projects/{PROJECT}/versions"


def page(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return " ".join(answer.text.split())


def trained(services: Services, folder: Path, **changes: object) -> tuple[Job, Version]:
    services.store.wake(PROJECT, label_config=XML, title="Discs")
    checkpoints = services.checkpoints(PROJECT)
    job = replace(disc_job(folder, **changes), folder=checkpoints.folder, trigger="The first 9 labels were there.")
    version = train(job, None)
    checkpoints.publish(version.number)
    return job, version


def test_a_version_tells_how_it_was_trained_and_on_what(client: TestClient, services: Services, tmp_path: Path) -> None:
    _, version = trained(services, tmp_path / "discs")
    record = version.record
    text = page(client, f"{PAGE}/1")
    facts = dict(re.findall(r"<dt>([^<]*)</dt><dd[^>]*>([^<]*)</dd>", text))
    assert (facts["Labels that trained"], facts["Held-out labels"], facts["Pseudo-labels"]) == ("6", "3", "0")
    assert facts["Held-out mIoU"] == measured_text(recorded(record, "miou"))
    assert facts["Weights"].endswith(" MB")
    assert "The first 9 labels were there." in text
    assert "It is the first of its line." in text
    course = json.loads(html.unescape(re.findall(r"data-course='([^']*)'", text)[0]))
    assert [step for step, _ in course["loss"]] == list(range(1, 21))
    assert course["loss"][0][1] > course["loss"][-1][1] > 0
    final = {"step": 20, "value": record.measures["miou"], "text": facts["Held-out mIoU"]}
    assert course["miou"][-1] == final | dict(zip(("low", "high"), record.measures["intervals"]["miou"], strict=True))
    assert re.search(r'<th scope="row">disc</th><td class="number">6</td><td class="number">[01]\.\d\d \(', text)
    assert '<th scope="row"><code>iterations</code></th><td>20</td>' in text
    assert f'href="{PAGE}/1/archive"' in text
    assert f'href="{PAGE}/1"' in page(client, PAGE)


def test_versions_name_the_one_before_and_those_after(client: TestClient, services: Services, tmp_path: Path) -> None:
    job, _ = trained(services, tmp_path / "discs", iterations=2)
    child = train(replace(job, parent=1, data_digest="more"), None).record
    text = page(client, f"{PAGE}/2")
    assert f'Version <a href="{PAGE}/1">1</a> served when it was trained.' in text
    assert f"version 1{' yet' if child.reason.startswith('cannot') else ''}: " in child.reason
    assert html.escape(child.reason) in text
    assert "By what was measured since" not in text  # nothing was
    assert f'. Trained while it served: version <a href="{PAGE}/2">2</a>' in page(client, f"{PAGE}/1")
    assert "there is no such version" in page(client, f"{PAGE}/3", 404)


def test_a_version_of_an_earlier_release_says_what_is_not_known(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    _, version = trained(services, tmp_path / "discs", iterations=2)
    file = version.weights.parent / "version.json"
    content = json.loads(file.read_text())
    for name in ("course", "class_labels", "trigger"):
        del content["record"][name]
    file.write_text(json.dumps(content))
    text = page(client, f"{PAGE}/1")
    assert "Its loss was not recorded" in text
    assert "data-course" not in text
    assert "Why it was trained" not in text


def test_a_version_whose_weights_were_removed_has_a_page_and_no_archive(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    job, _ = trained(services, tmp_path / "discs", iterations=1)
    for _ in range(3):
        train(replace(job, parent=1), None)
    services.checkpoints(PROJECT).publish(4)
    (removed, *_) = services.checkpoints(PROJECT).remove_old(1)
    text = page(client, f"{PAGE}/{removed}")
    assert "were removed to save space" in text
    assert "/archive" not in text
    page(client, f"{PAGE}/{removed}/archive", 404)
    page(client, f"{PAGE}/99/archive", 404)


def archived(client: TestClient, folder: Path) -> Path:
    """The archive of version 1, unpacked."""
    answer = client.get(f"{PAGE}/1/archive")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert f'filename="nextmask-project-{PROJECT}-version-1.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as members:
        assert members.testzip() is None
        members.extractall(folder)
    return folder / "nextmask-version-1"


def test_the_archive_predicts_what_nextmask_predicts_without_nextmask(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    job, version = trained(services, tmp_path / "discs", input_size=40)
    folder = archived(client, tmp_path)
    assert (folder / "weights.safetensors").read_bytes() == version.weights.read_bytes()
    image = job.items[0].image
    for name in ("whole", "turned"):
        given = tmp_path / f"{name}.png"
        pixels = np.tile(load_image(image), (2, 2, 1))[:61, :93]
        Image.fromarray(pixels if name == "whole" else pixels.transpose(1, 0, 2)).save(given)
        command = [sys.executable, "-P", str(folder / "predict.py"), str(given), str(tmp_path / "mask.png")]
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True)
        assert "0 = background, 1 = disc" in done.stdout
        expected = services.predictor(PROJECT, 1).predict([load_image(given)])[0].mask
        mask = np.asarray(Image.open(tmp_path / "mask.png"))
        assert mask.shape == expected.shape
        assert (mask != expected).mean() < 0.002  # sums are rounded in another order where rows are taken in strips
        assert 0 < (expected == 1).mean() < 1
    assert "ml_backend" not in (folder / "predict.py").read_text()
    readme = (folder / "README.txt").read_text()
    assert "0 background, 1 disc" in readme
    assert "'fpn'" in readme


def test_an_architecture_of_our_own_is_told_and_loads_as_the_readme_says(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    changes = {"architecture": "fcn8s", "encoder": "mobilenet_v2", "encoder_weights": "none", "iterations": 1}
    trained(services, tmp_path / "discs", **changes)
    folder = archived(client, tmp_path)
    readme = (folder / "README.txt").read_text()
    code = "\n".join(line[7:] for line in readme.splitlines() if line.startswith("       "))
    done = subprocess.run([sys.executable, "-c", f"{code}\nprint(network.stride)"], cwd=folder, capture_output=True)
    assert done.stdout.strip() == b"32", done.stderr
    refused = subprocess.run([sys.executable, "predict.py", "a", "b"], cwd=folder, capture_output=True, text=True)
    assert "README.txt says how to load it" in refused.stderr
    assert set(ARCHITECTURES) == archive.OUR_ARCHITECTURES


def test_an_archive_needs_the_password_and_comes_in_pieces(services: Services, tmp_path: Path) -> None:
    _, version = trained(services, tmp_path / "discs", iterations=1)
    pieces = list(archive.archive(version))
    assert max(map(len, pieces)) < 2 << 20
    assert len(pieces) > version.size >> 20
    settings = services.settings.model_copy(update={"basic_auth_user": "team"})
    with TestClient(create_app(settings)) as opened:
        assert opened.get(f"{PAGE}/1/archive").status_code == 401


# -- the curve of a project whose version was not measured -------------------------------------------------------------
@pytest.mark.settings(audit_share=0.2)
def test_a_version_without_a_measure_is_shown_and_says_when_there_will_be_one(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    trained(services, tmp_path / "discs", iterations=2, held_out=0)
    store = services.store
    store.put_tasks(task_of(task, status="labelled", annotation_id=task) for task in range(1, 7))
    waiting = [task_of(task, group_key=key) for task, key in enumerate(_groups(), start=11)]
    store.put_tasks(waiting)
    store.put_ranking(
        PROJECT, {task.task_id: 1 - task.task_id / 100 for task in waiting}, ranking_version="nextmask-1.1"
    )
    text = page(client, f"/projects/{PROJECT}")
    assert "No version has a held-out measure yet: of the 6 labels of version 1, none was held out." in text
    assert "The image at place 3 of the queue is the first that measures: after 3 more labels in this order" in text
    assert "data-curve" not in text
    row = text[text.index("Learning curve as a table") :]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row)[:4] == ["6", NOTHING, NOTHING, NOTHING]
    store.put_tasks([replace(waiting[2], status="labelled", held_out=True)])
    assert "Now 1 is: the next version is measured on it." in page(client, f"/projects/{PROJECT}")


def _groups() -> list[str]:
    """Keys of four images, of which only the third will be held out."""
    trains = [f"{number}.png" for number in range(50) if not AuditSet(0.2, 0).has(f"{number}.png")]
    measures = next(f"{number}.png" for number in range(50) if AuditSet(0.2, 0).has(f"{number}.png"))
    return [*trains[:2], measures, trains[2]]
