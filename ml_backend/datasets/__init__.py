"""Data sets: images with true masks, checked when they are opened, never written to.

dataset     the Dataset, its samples and splits, and the checks that every layout shares
truth       the true mask of an image, looked up by the image's file name
layouts     which layout a folder has
folders     our own layout, and the sample data
cityscapes, bdd100k, glas, isic2017     the layouts of public data sets; pairs is what they share
labelling   the labelling configuration of a project for a data set

Images are left to the caller to decode (`ml_backend.images.decoding.load_image`).
"""

from ml_backend.datasets.dataset import Dataset, Sample
from ml_backend.datasets.folders import SAMPLE_FOLDER, open_folders, open_truth, sample_dataset
from ml_backend.datasets.labelling import label_config
from ml_backend.datasets.layouts import open_dataset
from ml_backend.datasets.truth import Mask, Truth, read_mask

__all__ = [
    "SAMPLE_FOLDER",
    "Dataset",
    "Mask",
    "Sample",
    "Truth",
    "label_config",
    "open_dataset",
    "open_folders",
    "open_truth",
    "read_mask",
    "sample_dataset",
]
