"""What labels are: one class for each kind of data that follows a plan."""

from kmix.targets.base import BatchInfo, Keep, Target
from kmix.targets.bounding_boxes import BoundingBoxes
from kmix.targets.instance_masks import InstanceMasks
from kmix.targets.keypoints import Keypoints
from kmix.targets.labels import LabelPairs, Labels, LabelUnion
from kmix.targets.segmentation_masks import SegmentationMasks

__all__ = [
    "BatchInfo",
    "BoundingBoxes",
    "InstanceMasks",
    "Keep",
    "Keypoints",
    "LabelPairs",
    "LabelUnion",
    "Labels",
    "SegmentationMasks",
    "Target",
]
