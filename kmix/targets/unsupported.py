"""Targets that are known by name and cannot be mixed yet: refused, since to blend them would be wrong in silence."""

from kmix import _checks
from kmix.targets.target import Target, register


class Unsupported(Target):
    """A target that has no rules yet."""

    what = ""

    def __init__(self, y, *, pasted=None):
        self.check_support()

    @classmethod
    def check_support(cls):
        _checks.fail(
            f"{cls.what} are not mixed yet.",
            "a target of that kind",
            'Leave it out of the batch, or write `target="keep"` to leave it as it is (it will not match the mixed '
            "inputs), or a callable `(y, plan) -> y` that mixes it.",
        )


@register("segmentation_masks")
class SegmentationMasks(Unsupported):
    """Class ids or probabilities of each pixel."""

    what = "Segmentation masks"


@register("bounding_boxes")
class BoundingBoxes(Unsupported):
    """Boxes around objects, and their labels."""

    what = "Bounding boxes"
