"""What is said of a changed labelling configuration."""

from __future__ import annotations

from typing import Any

import pytest

from ml_backend.annotations.config_changes import ConfigChange, config_change
from ml_backend.annotations.label_map import LabelMap, parse_label_config


def config(*labels: str, control: str = "tag") -> str:
    inside = "".join(label if label.startswith("<") else f'<Label value="{label}"/>' for label in labels)
    image = '<Image name="image" value="$image"/>'
    return f'<View>{image}<BrushLabels name="{control}" toName="image">{inside}</BrushLabels></View>'


def parsed(*labels: str, control: str = "tag") -> LabelMap:
    return parse_label_config(config(*labels, control=control))


def painted(*labels: str, control: str = "tag") -> dict[str, Any]:
    return {"from_name": control, "type": "brushlabels", "value": {"brushlabels": list(labels)}}


def said(change: ConfigChange, *, trained: bool = True, continues: bool = True) -> str:
    return change.text(trained=trained, continues=continues).removeprefix("The labelling configuration changed: ")


def test_a_class_that_went_and_one_that_came() -> None:
    change = ConfigChange(parsed("cell", "tumour", "stroma"), parsed("cell", "stroma", "vessel"))
    for task in range(8):
        change.count(task, [painted("tumour"), painted("cell"), *([painted("tumour")] if task < 4 else [])])
    assert change.text(trained=True, continues=True) == (
        "The labelling configuration changed: 'tumour' was removed (12 regions in 8 labels are ignored now), 'vessel' "
        "was added; the network keeps what it learned of the other 3 classes."  # cell, stroma and the background
    )
    assert change.dropped == {"tumour": {task: 2 if task < 4 else 1 for task in range(8)}}
    change.count(0, [painted("cell")])  # read again, and changed meanwhile
    assert "(10 regions in 7 labels are ignored now)" in said(change)


def test_one_region_in_one_label() -> None:
    change = ConfigChange(parsed("cell", "tumour"), parsed("cell"))
    change.count(5, [painted("tumour")])
    assert said(change).startswith("'tumour' was removed (1 region in 1 label is ignored now); the network keeps")


def test_a_removed_class_that_nobody_used_and_several_new_ones() -> None:
    change = ConfigChange(parsed("cell", "tumour"), parsed("cell", "a", "b", "c"))
    change.count(1, [painted("cell")])
    assert said(change) == (
        "'tumour' was removed, 'a', 'b' and 'c' were added; the network keeps what it learned of the other 2 classes."
    )


def test_another_name_keeps_the_class_where_the_old_one_is_an_alias() -> None:
    after = parsed("cell", '<Label value="tumor" predicted_values="tumour"/>')
    change = ConfigChange(parsed("cell", "tumour"), after)
    change.count(1, [painted("tumour")])
    assert change.dropped == {}
    assert said(change).startswith("'tumour' is called 'tumor';")


def test_a_control_that_went_takes_its_regions_along() -> None:
    change = ConfigChange(parsed("cell"), parsed("cell", control="other"))
    change.count(1, [painted("cell"), painted("cell")])
    change.count(2, [painted("cell", control="choices"), "no region", painted("cell", control="other")])
    assert said(change, trained=False) == "the control 'tag' was removed (2 regions in 1 label are ignored now)."


def test_the_network_is_not_said_to_keep_what_it_does_not() -> None:
    change = ConfigChange(parsed("cell", "tumour"), parsed("cell"))
    assert said(change, trained=False) == "'tumour' was removed."
    assert said(change, continues=False) == "'tumour' was removed; the next training starts anew."
    nothing_stays = ConfigChange(parsed("background", "cell"), parse_label_config(config("vessel"), unpainted="ignore"))
    assert said(nothing_stays).endswith("the next training starts anew.")


@pytest.mark.parametrize(
    "result", [[{}], [{"from_name": "tag"}], [painted()], [{"from_name": "tag", "value": 5}], [None]]
)
def test_what_is_no_region_is_not_counted(result: list[Any]) -> None:
    change = ConfigChange(parsed("cell", "tumour"), parsed("cell"))
    change.count(1, result)
    assert change.dropped == {}


@pytest.mark.parametrize(
    "before", ["", "<View", config("cell", "tumour"), config("Cell", "tumour"), config("tumour", "cell")]
)
def test_no_change_is_no_text(before: str) -> None:
    assert config_change(before, parsed("cell", "tumour"), parse_label_config) is None


def test_a_change_is_found_from_the_text_of_the_configuration() -> None:
    assert config_change(config("cell"), parsed("cell", "tumour"), parse_label_config)
