"""Refinement: prompts of a person and what a network made of an image in, the mask of one class out.

prompts       clicks and boxes
refiner       what every refiner does, and what it keeps of images
features      the refiner on the project's own network, or on its pretrained encoder alone
looks         what a network makes of an image
paths         how far it is from clicks, along paths that cross few edges
likeness      how alike places are to those that were clicked on
edges         maps smoothed along the edges of an image, and connected parts
agreement     all of it together: the mask that agrees with prompts
sam           the refiner on SAM 2
sam_network   SAM 2 itself, and the reading of its weights
sam_files     which files of SAM 2 there are, told without PyTorch
"""
