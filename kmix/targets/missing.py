"""Labels that are not known: NaN in a label of several tasks, which counts for nothing."""

import keras

from kmix import _backend, _checks

tree = keras.tree


def check(y, settings):
    """Return the indices of the weights that labels with missing values get, in the structure of `y`, or raise.

    Args:
        y: The targets of a batch by name.
        settings: The `Settings` of the layer.
    """
    kinds = tree.flatten(settings.target)
    if list(y) != ["labels"] or any(kind not in (None, "labels") for kind in kinds):
        _checks.fail(
            '`missing="nan"` is about labels alone.',
            f"targets {list(y)} of kinds {kinds}",
            "Leave it out, and pass sample weights of 0 for what is missing.",
        )
    for leaf in tree.flatten(y):
        dtype, shape = _backend.dtype(leaf), _backend.static_shape(leaf)
        if "float" not in dtype or shape is None or len(shape) > 2:
            _checks.fail(
                '`missing="nan"` reads float labels (B,), (B, 1) or (B, C).',
                f"labels of dtype {dtype} and shape {shape}",
                "One-hot encode class ids as float, with rows of NaN where the class is not known.",
            )
    if settings.class_weight is not None:
        _checks.fail('`missing="nan"` makes weights of its own.', "`class_weight`", "Leave one of them out.")
    return tree.pack_sequence_as(y, list(range(len(tree.flatten(y)))))


def weigh(xp, y, given):
    """Labels with 0 for NaN, and a weight for each entry (or each sample, if it has one entry): 0 where it is missing.

    Args:
        xp: Array namespace.
        y: The encoded targets by name.
        given: For each array of `y`, its sample weights, or None.

    Returns:
        The labels, and the weights in the structure of the labels: `(B, C)` for labels `(B, C)`, else `(B,)`.
    """
    filled, weights = [], []
    for leaf, weight in zip(tree.flatten(y), given, strict=True):
        known = xp.cast(leaf == leaf, "float32")
        filled.append(xp.where(leaf == leaf, leaf, xp.cast(0.0, _backend.dtype(leaf))))
        if len(known.shape) == 2 and known.shape[1] == 1:
            known = xp.reshape(known, (-1,))
        if weight is not None:
            weight = xp.cast(weight, "float32")
            weight = xp.reshape(weight, (-1,)) if len(weight.shape) > len(known.shape) else weight
            known = known * xp.along(weight, known)
        weights.append(known)
    packed = tree.pack_sequence_as(y["labels"], weights) if tree.is_nested(y["labels"]) else weights[0]
    return tree.pack_sequence_as(y, filled), packed


def spec(y):
    """The weights of labels as `KerasTensor`s."""
    return tree.map_structure(
        lambda leaf: keras.KerasTensor(leaf.shape[:1] if leaf.shape[1:] == (1,) else leaf.shape, dtype="float32"), y
    )
