"""What an argument `target` stands for."""

from typing import Any

import keras

from kmix import _checks
from kmix.targets.base import Function, Keep, Target
from kmix.targets.labels import Labels, LabelUnion
from kmix.targets.segmentation_masks import SegmentationMasks

tree = keras.tree

# Those that need no settings.
NAMED = {"labels": Labels, "union": LabelUnion, "keep": Keep, "segmentation_masks": SegmentationMasks}


def to_target(given: Any, inner: bool = False) -> Any:
    """The `Target` that an argument `target` stands for, None, or a structure of these; or raise.

    `inner`: whether it is a part of a structure, which must name each.
    """
    if (given is None and not inner) or isinstance(given, Target):
        return given
    if isinstance(given, dict):
        return {key: to_target(part, inner=True) for key, part in given.items()}
    if isinstance(given, (list, tuple)) and given:
        return [to_target(part, inner=True) for part in given]
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]()
    if isinstance(given, type):
        _checks.fail(
            "`target` must be an object.", f"the class {given.__name__}", f"Write `{given.__name__}(...)`.", TypeError
        )
    if callable(given):
        return Function(given)
    if isinstance(given, str) and given == "bounding_boxes":
        _checks.fail(
            "To mix bounding boxes, their format must be known.",
            'target="bounding_boxes"',
            'For example, write `target=kmix.targets.BoundingBoxes("xyxy")`.',
        )
    return _checks.fail(
        "`target` must be an object of `kmix.targets`, a callable `(y, plan) -> y`, or a structure of these that "
        "matches the labels.",
        f"target={given!r}",
        f"Known names: {', '.join(map(repr, NAMED))}.",
        ValueError if isinstance(given, (str, list, tuple)) else TypeError,
    )


def check_target(target: Any, num_classes: int | None, partners: int, mixer: str) -> Any:
    """Return a `Target`, or a structure of targets that a mixer can use, or raise."""
    if num_classes is not None and target is not None and not (isinstance(target, dict) and "labels" not in target):
        _checks.fail(
            "`num_classes=n` stands for `target=Labels(n)`, so one of them is enough.",
            f"num_classes={num_classes} and a target",
            "Write `target=kmix.targets.Labels(n)`, or leave out `target`.",
        )
    for each in tree.flatten(target):
        if each is not None and each.max_partners is not None and each.max_partners < partners:
            _checks.fail(
                f"{mixer} mixes each sample with {partners} partners.",
                f"a target {type(each).__name__}, which has room for {each.max_partners + 1} samples",
                "Use `CutMix` or `MixUp`, or another target.",
            )
    return Labels(num_classes) if target is None else target


def plain(target: Any) -> Any:
    """A structure of targets in plain lists and dictionaries."""
    if isinstance(target, dict):
        return {key: plain(part) for key, part in target.items()}
    return [plain(part) for part in target] if isinstance(target, (list, tuple)) else target
