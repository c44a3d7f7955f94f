"""Small pictures of tasks for people to look at: the image, predicted masks, how uncertain the network is.

    pictures     the pictures of a task, and the predictions that they are drawn from
    subjects     what a picture is of: a task with its project, settings and classes
    drawing      pure functions from arrays to picture files
    colours      the colours of classes
    cache        files that pictures are drawn from
    comparisons  two versions measured on the same images, in the background

All pictures of an image have the same size, so that they can be laid over each other. They are made one at a time, and
the files that they are drawn from stay on disk: annotators' predictions never wait for more than one of them.
"""

from ml_backend.dashboard.pictures.cache import PictureCache
from ml_backend.dashboard.pictures.colours import class_colours, hex_colour
from ml_backend.dashboard.pictures.comparisons import ComparedImage, ComparedLabels, Comparison, Comparisons
from ml_backend.dashboard.pictures.drawing import LARGE_SIDE, SIDE, Picture, placeholder
from ml_backend.dashboard.pictures.pictures import Drawing, Pictures
from ml_backend.dashboard.pictures.subjects import NoPicture, Subject, Subjects

__all__ = [
    "LARGE_SIDE",
    "SIDE",
    "ComparedImage",
    "ComparedLabels",
    "Comparison",
    "Comparisons",
    "Drawing",
    "NoPicture",
    "Picture",
    "PictureCache",
    "Pictures",
    "Subject",
    "Subjects",
    "class_colours",
    "hex_colour",
    "placeholder",
]
