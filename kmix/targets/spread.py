"""Settings: one value for all, or a structure that matches the labels."""

import keras

from kmix import _checks

tree = keras.tree


def spread(setting, structure, name):
    """The value of a setting for each array of a structure.

    Args:
        setting: A value, or a structure of values that matches the upper levels of `structure`. A key that a dictionary
            lacks has the value None.
        structure: A structure of arrays.
        name: Name of the setting, for errors.

    Returns:
        A list of values, in the order of `keras.tree.flatten(structure)`.

    Raises:
        ValueError: if the setting has parts that the structure lacks.

    Example:
    >>> from kmix.targets.spread import spread
    >>> spread({"a": 3}, {"a": (0, 0), "b": 0}, "num_classes")
    [3, 3, None]
    """
    return tree.flatten(_spread(setting, structure, name))


def _spread(setting, structure, name):
    # In the containers of `structure`, so that both are flattened in the same order on every backend.
    if not isinstance(setting, (dict, list, tuple)):
        return tree.map_structure(lambda _: setting, structure)
    check_match(setting, structure, name)
    if isinstance(setting, dict):
        return type(structure)({key: _spread(setting.get(key), part, name) for key, part in structure.items()})
    parts = [_spread(*pair, name) for pair in zip(setting, structure, strict=True)]
    return getattr(type(structure), "_make", type(structure))(parts)


def check_match(setting, structure, name, complete=False):
    """Raise unless the first level of a setting matches a structure."""
    if isinstance(setting, dict):
        keys = sorted(map(str, structure)) if isinstance(structure, dict) else None
        wanted = sorted(map(str, setting))
        matches = keys is not None and (wanted == keys if complete else set(wanted) <= set(keys))
    else:
        matches = isinstance(structure, (list, tuple)) and len(structure) == len(setting)
    if not matches:
        _checks.fail(
            f"`{name}` must be one value, or match the structure of the labels.",
            f"{name}={setting!r} for labels {outline(structure)}",
            "Use the same keys." if isinstance(setting, dict) else "",
        )


def outline(structure):
    """A structure in words, with dots for its arrays."""
    return str(tree.map_structure(lambda _: ..., structure)).replace("Ellipsis", "...")


def check_num_classes(num_classes):
    """Return `num_classes`, an int >= 1 or None or a structure of these, or raise."""
    if isinstance(num_classes, dict):
        return {key: check_num_classes(part) for key, part in num_classes.items()}
    if isinstance(num_classes, (list, tuple)):
        return [check_num_classes(part) for part in num_classes]
    return None if num_classes is None else _checks.integer(num_classes, "num_classes", 1)
