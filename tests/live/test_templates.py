"""The labelling configurations that Label Studio offers: each is read, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.shortcomings import shortcomings
from ml_backend.errors import LabelConfigError

pytestmark = pytest.mark.live

PREFILLED = {"semantic-segmentation-with-masks", "semantic-segmentation-with-polygons"}
BOXES = {
    "medical-image-classification-with-bboxes",
    "object-detection-with-bounding-boxes",
    "optical-character-recognition",
    "ocr-invoices-pre-ner-bio-format",
}


@pytest.fixture(scope="module")
def templates(label_studio_command: Path) -> dict[str, str]:
    """Folder of a template -> its configuration."""
    package = "lib/python*/site-packages/label_studio"
    found = label_studio_command.parents[1].glob(f"{package}/annotation_templates/**/config.yml")
    return {path.parent.name: str(yaml.safe_load(path.read_text())["config"]) for path in found}


def read_or_refused(xml: str) -> LabelMap | LabelConfigError:
    try:
        return parse_label_config(xml)
    except LabelConfigError as error:
        return error


def pasted(xml: str, text: str) -> LabelMap:
    """The configuration after its reader has done as told."""
    end = xml.rindex("</View>")
    return parse_label_config(f"{xml[:end]}{text.partition('</View>: ')[2]}{xml[end:]}")


def test_each_template_is_read_or_refused_with_what_to_do(templates: dict[str, str]) -> None:
    assert len(templates) >= 69
    read = set()
    for name, xml in templates.items():
        label_map = read_or_refused(xml)
        if isinstance(label_map, LabelConfigError):
            assert label_map.remedy, name
            if "no control that holds" in label_map.cause:
                assert not_prefilled(pasted(xml, label_map.remedy)) == set(), name
            continue
        read.add(name)
        told = shortcomings(xml, label_map)
        if name in PREFILLED:
            assert told == [], name
        else:
            (one,) = told
            assert one.cause.startswith("No mask can be pre-filled"), name
            assert not_prefilled(pasted(xml, one.remedy)) == set(), name
    assert read == PREFILLED | BOXES


def not_prefilled(label_map: LabelMap) -> set[str]:
    """Classes that cannot be pre-filled."""
    lacking = (index for index in range(len(label_map.classes)) if label_map.writer_of(index) is None)
    return {label_map.classes[index] for index in lacking if index != label_map.unpainted_index}
