"""Refinement: prompts of a person and what a network made of an image in, the mask of one class out.

prompts     clicks and boxes
refiner     what every refiner does, and the images it keeps
looks       what a network makes of an image, for clicks
agreement   the mask that agrees with prompts
features    the refiner on the project's own network, or on its pretrained encoder alone
"""

from ml_backend.learning.refinement.features import FeatureRefiner
from ml_backend.learning.refinement.prompts import Prompt
from ml_backend.learning.refinement.refiner import Refiner

__all__ = ["FeatureRefiner", "Prompt", "Refiner"]
