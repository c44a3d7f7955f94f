"""Makes the sample data set of `nextmask demo` from the MNI ICBM152 2009a brain template.

The template's T1 image and its grey and white matter maps ship inside the PyPI package nilearn, which
cannot live beside nextmask (label-studio-ml pins an old Jinja2), so run this in a throw-away environment:

    python3.11 -m venv .venv-sample-data
    .venv-sample-data/bin/pip install nilearn==0.14.1 pillow
    .venv-sample-data/bin/python scripts/make_sample_data.py
    rm -r .venv-sample-data

The same versions write the same bytes. The copyright notice of the template is part of the output.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from PIL import Image

SLICES = 48
TEST_EVERY = 6  # every sixth slice is a test slice: 40 train, 8 test, spread over the whole brain
LOWEST, HIGHEST = 24, 144  # voxel planes 1 mm apart, from the cerebellum to the upper cortex; each holds all classes
COLUMNS, ROWS = slice(19, 179), slice(18, 218)  # the brain with a margin: 160 mm wide, 200 mm high
ENLARGE = 2  # 1 mm pixels are too coarse to paint on
JPEG_QUALITY = 90
CLASSES = ("background", "grey matter", "white matter")
PALETTE = ((0, 0, 0), (230, 97, 1), (64, 145, 255))
NOTICE = """\
The images and masks in this folder are made from the MNI ICBM152 non-linear average brain template, release 2009a
(T1, grey matter and white matter), as it ships in the PyPI package nilearn: axial slices, cropped, enlarged twice;
a mask holds for each pixel the likeliest of background, grey matter and white matter. The template's notice:

Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.

References:
VS Fonov, AC Evans, K Botteron, CR Almli, RC McKinstry, DL Collins and BDCG, Unbiased average age-appropriate atlases
for pediatric studies, NeuroImage 54(1), 2011, doi:10.1016/j.neuroimage.2010.07.033
VS Fonov, AC Evans, RC McKinstry, CR Almli and DL Collins, Unbiased nonlinear average age-appropriate brain templates
from birth to adulthood, NeuroImage 47, Supplement 1, 2009, doi:10.1016/S1053-8119(09)70884-5
Template: https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/
nilearn: https://nilearn.github.io (BSD-3-Clause)
"""


def axial(volume: np.ndarray, height: int) -> np.ndarray:
    """Return a slice (rows, columns) with the front of the head up, values in [0, 1]."""
    return np.ascontiguousarray(volume[COLUMNS, ROWS, height].T[::-1], dtype=np.float32)


def enlarged(image: np.ndarray, method: Image.Resampling) -> np.ndarray:
    """Returns the image (H, W) with both sides multiplied."""
    height, width = image.shape
    return np.asarray(Image.fromarray(image).resize((width * ENLARGE, height * ENLARGE), method))


def draw_image(t1: np.ndarray, height: int) -> Image.Image:
    """Return the grey image of a slice."""
    intensity = enlarged(axial(t1, height), Image.Resampling.BICUBIC)
    return Image.fromarray(np.rint(intensity.clip(0, 1) * 255).astype(np.uint8))


def draw_mask(grey: np.ndarray, white: np.ndarray, height: int) -> Image.Image:
    """Return the class indices of a slice: the likeliest of the rest, grey matter and white matter."""
    grey_map = enlarged(axial(grey, height), Image.Resampling.BILINEAR)
    white_map = enlarged(axial(white, height), Image.Resampling.BILINEAR)
    probabilities = np.stack([1 - grey_map - white_map, grey_map, white_map])  # (C, H, W)
    return Image.fromarray(probabilities.argmax(axis=0).astype(np.uint8))


def write(folder: Path) -> None:
    """Writes images, masks, dataset.json and NOTICE, in place of what the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    t1, grey, white = (
        load(resolution=1).get_fdata(dtype=np.float32)
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    for number, height in enumerate(np.linspace(LOWEST, HIGHEST, SLICES).round().astype(int)):
        split = "test" if number % TEST_EVERY == TEST_EVERY // 2 else "train"
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        draw_image(t1, height).save(folder / "images" / split / f"axial_{number:02d}.jpg", quality=JPEG_QUALITY)
        draw_mask(grey, white, height).save(folder / "masks" / split / f"axial_{number:02d}.png", optimize=True)
    description = {"name": "icbm152", "classes": CLASSES, "ignore_index": 255, "palette": PALETTE}
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")


def main() -> None:
    """Writes the data set and prints its size."""
    default = Path(__file__).parents[1] / "ml_backend" / "datasets" / "data" / "icbm152"
    parser = argparse.ArgumentParser(description="Make the sample data set of `nextmask demo`.")
    parser.add_argument("--output", type=Path, default=default)
    output: Path = parser.parse_args().output
    write(output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{SLICES} slices, {size / 1e6:.2f} MB in {output}")


if __name__ == "__main__":
    main()
