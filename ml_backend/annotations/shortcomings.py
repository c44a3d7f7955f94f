"""What a labelling configuration leaves out, in sentences: what is not pre-filled, and what is not read.

`parse_label_config` refuses those that cannot be read at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ml_backend.annotations.config_edits import with_palette
from ml_backend.annotations.config_xml import Element, folded, label_tags, mask_control, read_elements
from ml_backend.annotations.label_map import READABLE, LabelMap, is_points_control
from ml_backend.errors import first_few


class Shortcoming(NamedTuple):
    """What is left out, and what mends that; a sentence each."""

    cause: str
    remedy: str

    def __str__(self) -> str:
        """Both sentences."""
        return f"{self.cause} {self.remedy}"


def shortcomings(xml: str, label_map: LabelMap) -> list[Shortcoming]:
    """Return what is to be told of a configuration; nothing where every class can be read and pre-filled.

    Args:
        xml: the configuration that the label map was read from.
    """
    elements = read_elements(xml)
    return [
        *_not_prefilled(xml, label_map),
        *_not_read(elements, label_map),
        *_not_answered(elements, label_map),
        *_merged(label_map),
    ]


def _not_prefilled(xml: str, label_map: LabelMap) -> Iterator[Shortcoming]:
    classes = range(len(label_map.classes))
    lacking = [index for index in classes if index != label_map.unpainted_index and label_map.writer_of(index) is None]
    if not lacking:
        return
    elements, names = read_elements(with_palette(xml)), {control.name: control for control in label_map.controls}
    labels = {
        index: label
        for element in reversed(elements)
        if element.name in names
        for label in reversed(element.labels)
        if (index := label_map.index_of(label.result_name)) in lacking
    }
    control = mask_control([labels[index] for index in sorted(labels)], label_map.image_name, elements)
    if len(lacking) == len(classes) - (label_map.unpainted_index in classes):
        there = ", ".join(f"<{control.tag}> {control.name!r}" for control in names.values())
        cause = f"No mask can be pre-filled: the labelling configuration has {there} alone, and predicted masks need "
    else:
        listed = ", ".join(first_few([repr(label_map.classes[index]) for index in lacking]))
        cause = f"{listed} cannot be pre-filled: predicted masks need "
    yield Shortcoming(f"{cause}BrushLabels, BitmaskLabels or PolygonLabels.", f"Add before the last </View>: {control}")


def _not_read(elements: Sequence[Element], label_map: LabelMap) -> Iterator[Shortcoming]:
    """Yield controls whose regions are left out: of other images, and with labels that come from each task."""
    read = {control.name for control in label_map.controls} | {label_map.query_control}
    images = {element.name for element in elements if element.tag == "image"}
    for element in elements:
        if not element.is_control or element.tag not in READABLE or element.tag == "labels":
            continue
        if element.is_dynamic:
            yield Shortcoming(
                f"The labels of {element.name!r} come from each task ({element.attributes['value'].strip()}): what is "
                "drawn with them is not read.",
                'Write them into the labelling configuration: <Label value="…"/> inside the control.',
            )
        elif element.name not in read and element.labels and images & {*element.targets} - {label_map.image_name}:
            yield Shortcoming(
                f"What is drawn with {element.name!r} is not read: it is for "
                f"{', '.join(element.targets)}, and nextmask looks at one image per task, {label_map.image_name}.",
                "Import each image as a task of its own.",
            )


def _not_answered(elements: Sequence[Element], label_map: LabelMap) -> Iterator[Shortcoming]:
    """Yield labels of the points control that are no class, and classes that no point can have."""
    control = next((element for element in elements if is_points_control(element, label_map.image_name)), None)
    if control is None:
        return
    labels = {label.result_name: label_map.index_of(label.result_name) for label in control.labels}
    strange = [repr(label) for label, index in labels.items() if index is None]
    if strange:
        yield Shortcoming(
            f"{', '.join(first_few(strange))} of the points control {control.name!r} is no class: points with such a "
            "label are not read.",
            f"Give it a label of the same name in {label_map.controls[0].name!r}, or call the control something else.",
        )
    names = {control.name for control in label_map.controls}
    lacking = {
        index: label
        for element in reversed(elements)
        if element.name in names
        for label in reversed(element.labels)
        if (index := label_map.index_of(label.result_name)) is not None and index not in labels.values()
    }
    if label_map.points_control is not None and lacking:
        listed = ", ".join(first_few([repr(label_map.classes[index]) for index in sorted(lacking)]))
        yield Shortcoming(
            f"No point can say {listed}: {control.name!r} has no such label.",
            f"Add inside {control.name!r}: {label_tags(lacking[index] for index in sorted(lacking))}",
        )


def _merged(label_map: LabelMap) -> Iterator[Shortcoming]:
    """Yield labels of one control that are one class, since case and surrounding space do not count."""
    for control in label_map.controls:
        spellings = defaultdict(list)
        for label in control.labels:
            spellings[folded(label)].append(label)
        for same in spellings.values():
            if len(same) > 1:
                yield Shortcoming(
                    f"The labels {' and '.join(map(repr, same))} of {control.name!r} are one class.",
                    "Rename all but one of them, or remove them; case and spaces around a label do not count.",
                )
