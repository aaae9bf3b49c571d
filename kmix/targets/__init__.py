"""Every kind of data that follows a plan, with one file for each."""

from kmix.targets import bounding_boxes, keep, labels, segmentation_masks, union  # noqa: F401, the import registers them
from kmix.targets.inputs import Blended, Embeddings, Inputs, Pasted
from kmix.targets.target import Target, names, register

__all__ = ["Blended", "Embeddings", "Inputs", "Pasted", "Target", "names", "register"]
