"""The labelling configuration of a project for a data set."""

from __future__ import annotations

from xml.etree import ElementTree

from ml_backend.annotations.config_edits import with_palette
from ml_backend.datasets.dataset import Dataset


def label_config(dataset: Dataset, control: str = "BrushLabels") -> str:
    """Return the labelling configuration (XML) of a project for this data set.

    Args:
        dataset: gives labels and colours; a first class "background" is left out: unpainted pixels are it.
        control: the tag of the region control, for example "BrushLabels", "BitmaskLabels", "PolygonLabels".
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    labels = ElementTree.SubElement(view, control, name="mask", toName="image")
    for index, name in enumerate(dataset.classes):
        if index > 0 or dataset.unpainted == "ignore":
            label = ElementTree.SubElement(labels, "Label", value=name)
            if dataset.palette is not None:
                label.set("background", "#" + bytes(dataset.palette[index]).hex())
    ElementTree.indent(view)
    return with_palette(ElementTree.tostring(view, encoding="unicode"))
