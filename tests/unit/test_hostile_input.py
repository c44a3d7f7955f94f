"""What fuzzing found, each once: input from outside that raised an error of another kind, or one without end."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fuzz.seeds import nested, region, regions
from fuzz.targets import TARGETS
from memory_studio import MemoryStudio
from PIL import Image
from wiring import PROJECT, look_at, make_services, make_settings

from ml_backend.annotations import masks
from ml_backend.annotations.config_edits import labels_without_colours, with_palette
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.errors import CheckpointError, ConfigurationError, ImageError, LabelConfigError, MaskError, shown
from ml_backend.images.decoding import load_image
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.settings import load_settings, params_text
from ml_backend.worker.sync import sync

LONG = "x" * 100_000
DEEP = json.loads(nested(900))


# -- messages --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [LONG, DEEP, 10**4000, [LONG] * 1000, {LONG: LONG}, "\ud800", None], ids=type)
def test_values_are_shown_short(value: object) -> None:
    assert len(shown(value)) <= 100
    shown(value).encode()


@pytest.mark.parametrize("odd", [LONG, DEEP, 10**4000, [LONG] * 1000], ids=["long", "deep", "huge", "many"])
def test_problems_of_regions_are_told_in_few_words(odd: Any) -> None:
    broken = [{**region("polygonlabels", points=odd), "id": odd}, {**region("brushlabels", rle=[]), "from_name": odd}]
    broken += [region("rectanglelabels", x=odd, y=1, width=1, height=1), region("brushlabels", format=odd, rle=[])]
    broken.append({**region("polygonlabels", points=[]), "value": {"polygonlabels": [odd], "points": []}})
    reading = masks.read_result([*regions()[:1], *broken], parse_label_config(_all_controls()))
    assert len(reading.problems) == len(broken)
    assert max(map(len, reading.problems)) < 600


def test_sizes_that_disagree_are_not_all_told() -> None:
    many = [{**region("brushlabels", rle=[]), "original_width": width} for width in range(1, 5000)]
    with pytest.raises(MaskError, match="and 4994 more") as caught:
        masks.read_result(many, parse_label_config(_all_controls()))
    assert len(str(caught.value)) < 1000


def test_a_configuration_with_many_unusable_tags_is_told_in_few_words() -> None:
    tags = "".join(f'<Choices name="{LONG}{number}" toName="image"/>' for number in range(20))
    with pytest.raises(LabelConfigError) as caught:
        parse_label_config(f"<View>{tags}</View>")
    assert len(str(caught.value)) < 2000


@pytest.mark.timeout(120)
def test_configurations_of_thousands_of_tags_are_read_to_the_end() -> None:
    labels = "".join(f'<Label value="label {number}"/>' for number in range(6000))
    text = f'<View><Text name="text" value="$text"/><Labels name="l" toName="text">{labels}</Labels></View>'
    assert not labels_without_colours(with_palette(text))  # there are fewer distinct colours than that
    image = '<Image name="image" value="$image"/>'
    tools = "".join(f'<Brush name="b{number}" toName="x,y"/>' for number in range(20_000))
    controls = "".join(
        f'<Labels name="l{number}" toName="image"><Label value="a"/></Labels>' for number in range(20_000)
    )
    with pytest.raises(LabelConfigError):  # each control looked at each tool: hours
        parse_label_config(f"<View>{image}{tools}{controls}</View>")


def _all_controls() -> str:
    from fuzz.targets import ALL_CONTROLS

    return ALL_CONTROLS


# -- tasks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields",
    [
        {"result": 1e308},
        {"result": {"a": 1}},
        {"result": "text"},
        {"lead_time": 10**400},
        {"lead_time": float("nan")},
        {"lead_time": "long"},
        {"data": {"image": "\ud800"}},
        {"data": {"image": "a\0b"}},
        {"data": {"image": DEEP}},
    ],
    ids=str,
)
def test_one_odd_task_fails_no_sync(tmp_path: Path, fields: dict[str, Any]) -> None:
    studio = MemoryStudio()
    good, odd = studio.add_task(0), studio.add_task(1)
    studio.label(good)
    studio.label(odd)
    if "data" in fields:
        studio.items[odd]["data"] = fields["data"]
    else:
        studio.items[odd]["annotations"][0].update(fields)
    services = make_services(tmp_path, studio)
    services.store.wake(PROJECT)
    sync(look_at(services))
    statuses = {task.task_id: task.status for task in services.store.tasks(PROJECT)}
    assert statuses.keys() == {good, odd}
    assert statuses[good] == "labelled"
    services.store.close()


# -- settings ---------------------------------------------------------------------------------------------------------
def test_settings_that_are_nested_without_end_are_no_settings(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    for text in (nested(), f'{{"strategy_options": "{nested()}"}}'):
        with pytest.raises(ConfigurationError):
            settings.for_project(text)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigurationError, match="nested too deep"):
        params_text({"strategy_options": deep})


def test_an_environment_file_that_is_no_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"NEXTMASK_SEED=\xff\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_settings()


# -- files ------------------------------------------------------------------------------------------------------------
def test_a_webp_that_claims_to_be_huge_is_an_image_error(tmp_path: Path) -> None:
    # found by atheris; Pillow's WebP reader knows a limit of its own, and an error that is no OSError
    data = base64.b64decode("UklGRsQAAABXRUJQVlA4IL0AAAAwBACdASr/////") + b"\xff" * 160
    file = tmp_path / "bomb.webp"
    file.write_bytes(data)
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_image(file)
    with pytest.raises(Image.DecompressionBombError):  # otherwise this tests nothing
        Image.open(file)


@pytest.mark.parametrize("weights", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}junk"])
def test_weights_that_are_none_are_damaged(tmp_path: Path, weights: bytes) -> None:
    import hashlib

    about = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    record = {"classes": ["a"], "label_map_digest": "a", "data_digest": "b", "number": 1}
    folder = tmp_path / "versions" / "1"
    folder.mkdir(parents=True)
    (folder / "version.json").write_text(json.dumps({"format": 1, "record": record, "weights": about}))
    (folder / "weights.safetensors").write_bytes(weights)
    found = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="damaged"):
        found.load_state(found.get(1))


@pytest.mark.parametrize("record", [nested(), "[1]", '"text"', '{"format": 1, "record": 5, "weights": 5}', "1e400"])
def test_a_record_that_is_none_is_damaged(tmp_path: Path, record: str) -> None:
    folder = tmp_path / "versions" / "1"
    folder.mkdir(parents=True)
    (folder / "version.json").write_text(record)
    assert "cannot be read" in Checkpoints(tmp_path).damaged()[1]


# -- requests ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("levels", [50, 500, 900, 960, 2000])
@pytest.mark.parametrize("route", range(4))
def test_nesting_of_any_depth_is_answered(route: int, levels: int) -> None:
    deep = nested(levels)
    for body in (
        f'{{"project": 65, "extra_params": {deep}, "action": "A", "tasks": [{{"id": {deep}, "data": {deep}}}]}}',
        f'{{"project": {deep}, "action": {deep}, "tasks": [], "label_config": {deep}}}',
    ):
        TARGETS["requests"](bytes([route]) + b"\0" + body.encode())
