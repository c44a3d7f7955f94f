"""Small pictures of tasks for people to look at: the image, what is predicted, how unsure the network is of it.

All pictures of one image have one size, so that they can be laid over each other. They are made one at a time, after
which the files that they are drawn from stay on disk: annotators' predictions never wait for more than one of them.
"""

from ml_backend.dashboard.pictures.cache import PictureCache
from ml_backend.dashboard.pictures.colours import Colour, class_colours, hex_colour
from ml_backend.dashboard.pictures.comparisons import Basis, Compared, Comparisons, Result, same_labels
from ml_backend.dashboard.pictures.drawing import SIDE, Picture, placeholder
from ml_backend.dashboard.pictures.pictures import Drawing, Pictures
from ml_backend.dashboard.pictures.subjects import NoPicture, Subject, Subjects

__all__ = [
    "SIDE",
    "Basis",
    "Colour",
    "Compared",
    "Comparisons",
    "Drawing",
    "NoPicture",
    "Picture",
    "PictureCache",
    "Pictures",
    "Result",
    "Subject",
    "Subjects",
    "class_colours",
    "hex_colour",
    "placeholder",
    "same_labels",
]
