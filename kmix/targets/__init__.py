"""Every kind of data that follows a plan, with one file for each."""

from kmix.targets import keep, labels, union  # noqa: F401, the import registers them
from kmix.targets.bounding_boxes import BoundingBoxes
from kmix.targets.inputs import Blended, Embeddings, Inputs
from kmix.targets.pasted import Pasted
from kmix.targets.segmentation_masks import SegmentationMasks
from kmix.targets.target import Target, names, register

__all__ = [
    "Blended",
    "BoundingBoxes",
    "Embeddings",
    "Inputs",
    "Pasted",
    "SegmentationMasks",
    "Target",
    "names",
    "register",
]
