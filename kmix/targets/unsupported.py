"""Targets that are known by name but cannot be mixed yet: refused, since blending them would be silently wrong."""

from kmix import _checks
from kmix.targets.target import Target, register


class Unsupported(Target):
    """A target that cannot be mixed yet."""

    what = ""

    def __init__(self, y, *, pasted=None):
        self.check_support()

    @classmethod
    def check_support(cls):
        _checks.fail(
            f"{cls.what} are not mixed yet.",
            "a target of that kind",
            'Leave it out of the batch; write `target="keep"` to leave it unchanged (it will not match the mixed '
            "inputs); or pass a callable `(y, plan) -> y` that mixes it.",
        )


@register("bounding_boxes")
class BoundingBoxes(Unsupported):
    """Boxes around objects, and their labels."""

    what = "Bounding boxes"
