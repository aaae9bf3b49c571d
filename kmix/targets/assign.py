"""Which kind of target each part of `y` is, according to `target=`."""

import keras

from kmix import _checks
from kmix.targets import target as kinds
from kmix.targets.custom import Custom
from kmix.targets.spread import check_match

tree = keras.tree


def check_target(target):
    """Return the argument `target` if it is a name, a callable, None, or a structure of these, or raise."""
    if isinstance(target, dict):
        return {key: check_target(part) for key, part in target.items()}
    if isinstance(target, (list, tuple)) and target:
        return [check_target(part) for part in target]
    if target is None or callable(target):
        return target
    if isinstance(target, str) and target in kinds.names():
        return target
    return _checks.fail(
        "`target` must be a kind of target, a callable `(y, plan) -> y`, or a structure of these that matches the "
        "labels.",
        f"target={target!r}",
        f"Known kinds: {', '.join(map(repr, kinds.names()))}.",
        ValueError if isinstance(target, str) else TypeError,
    )


def is_built_in(target):
    """Whether a kind of target, not a structure, is one of kmix: not code of the user."""
    return target is None or (isinstance(target, str) and kinds.kind(target).__module__.startswith("kmix."))


def assign(target, y, settings, pasted=None):
    """Make a `Target` for each part of `y`.

    Args:
        target: A name, a callable, None for labels, or a structure of these that matches `y`.
        y: A target, or a structure of targets.
        settings: The arguments of the layer and facts about the batch by name, see `kmix.targets.Target`.
            `num_classes` may be a structure that matches `y`.
        pasted: As for `kmix.targets.Target`.

    Returns:
        `Target`s in the structure of `target`.

    Raises:
        ValueError: if `target` does not match `y`, or a part of `y` cannot be mixed as its kind of target.
    """
    target = explicit(target, y)
    if isinstance(target, (dict, list, tuple)):
        check_match(target, y, "target", complete=True)

        def part(key):
            classes = settings["num_classes"]
            nested = isinstance(classes, (dict, list, tuple))
            if nested:
                check_match(classes, y, "num_classes")
                classes = classes.get(key) if isinstance(classes, dict) else classes[key]
            return assign(target[key], y[key], {**settings, "num_classes": classes}, pasted)

        return {key: part(key) for key in y} if isinstance(target, dict) else [part(i) for i in range(len(target))]
    if callable(target):
        return Custom(y, target, pasted=pasted)
    kind = kinds.kind(target or "labels")
    given = {name: settings[name] for name in (*kind.settings, *kind.arguments)}
    if kind is kinds.kind("labels"):
        given["guarded"] = target is None
    return kind(y, pasted=pasted, **given)


def explicit(target, y):
    """`target`; where it is None, the kind that `y` shows: a dictionary with "boxes" holds bounding boxes."""
    if target is not None or not _holds_boxes(y):
        return target
    if isinstance(y, dict):
        return "bounding_boxes" if "boxes" in y else {key: explicit(None, part) for key, part in y.items()}
    return [explicit(None, part) for part in y]


def _holds_boxes(y):
    if isinstance(y, dict):
        return "boxes" in y or any(map(_holds_boxes, y.values()))
    return isinstance(y, (list, tuple)) and any(map(_holds_boxes, y))


def map_targets(function, targets, *structures):
    """`function(target, part, ...)` for each `Target` of a structure and the matching parts of the others."""
    first = structures[0]
    if isinstance(targets, dict):
        mapped = {
            key: map_targets(function, targets[key], *(structure[key] for structure in structures)) for key in targets
        }
        return type(first)(mapped) if isinstance(first, dict) else mapped
    if isinstance(targets, list):
        parts = [map_targets(function, *each) for each in zip(targets, *structures, strict=True)]
        return getattr(type(first), "_make", type(first))(parts)
    return function(targets, *structures)
