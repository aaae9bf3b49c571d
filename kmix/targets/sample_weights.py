"""Sample weights: mixed so that a loss linear in the labels is the weighted pair of losses."""

import keras

from kmix import _backend, _checks
from kmix.mixing import combine
from kmix.targets.spread import outline

tree = keras.tree


def mix_weights(xp, weights, plan):
    """Mix sample weights: `lam * w + (1 - lam) * w[permutation]`, float32 of the same shape."""
    views = views_of(xp, plan)
    if views:
        return _total(xp, views, [view.share for view in views], xp.cast(weights, "float32"))
    lam = _lam(plan)
    return combine(xp, lam == 1.0, lam, 1.0 - lam, xp.cast(weights, "float32"), plan.permutation)


def _lam(plan):
    """The lam of a plan, in the framework in which it was drawn."""
    return _backend.namespace(plan.lam).cast(plan.lam, "float32")


def label_shares(xp, y, plan, weight=None):
    """The shares of the partners in the labels `y`: `lam` and `1 - lam`, weighted by the sample weights.

    Returns:
        `(keep, a, b)`: whether a sample is kept unchanged, the share of the sample, and the share of its partner. With
        sample weights, `a = lam * w_i / w'` and `b = (1 - lam) * w_j / w'` for `w' = lam * w_i + (1 - lam) * w_j`.
    """
    lam = _lam(plan)
    keep, a, b = lam == 1.0, lam, 1.0 - lam
    if weight is None:
        return keep, a, b
    lam, permutation, w = xp.asarray(lam), xp.asarray(plan.permutation), xp.cast(weight, "float32")
    if len(w.shape) == len(y.shape) + 1:
        w = xp.reshape(w, (-1,))
    lam = xp.along(lam, w)
    a, b = lam * w, (1.0 - lam) * xp.take(w, permutation)
    # Divide the shares, not the labels: w * y / w may differ from y. If both weights are 0, lam alone counts.
    weightless = a + b == 0
    total = xp.where(weightless, xp.cast(1.0, "float32"), a + b)
    return keep, xp.where(weightless, lam, a / total), xp.where(weightless, 1.0 - lam, b / total)


def views_of(xp, plan):
    """The `View`s of a plan with several partners, as arrays of `xp`; an empty list if it has one."""
    if not hasattr(plan.region, "views"):
        return []
    views = plan.region.views(_backend.namespace(*tree.flatten(plan.region)))
    return [type(view)(*map(xp.asarray, view)) for view in views]


def mix_views(xp, y, views, weight=None):
    """The labels `y` of several partners, weighted by their shares and their sample weights, in float32."""
    shares = [view.share for view in views]
    if weight is not None:
        w = xp.cast(weight, "float32")
        w = xp.reshape(w, (-1,)) if len(w.shape) == len(y.shape) + 1 else w
        total = _total(xp, views, shares, w)
        weighted = [xp.along(view.share, w) * xp.take(w, view.source) for view in views]
        # If all weights are 0, the shares alone count.
        shares = [
            xp.where(total == 0, xp.along(view.share, w), each / xp.where(total == 0, 1.0, total))
            for view, each in zip(views, weighted, strict=True)
        ]
    return _total(xp, views, shares, xp.cast(y, "float32"))


def _total(xp, views, shares, y):
    total = 0.0
    for view, share in zip(views, shares, strict=True):
        share = xp.along(share, y)
        # An image without a share adds nothing, even where it is NaN.
        total = total + xp.where(share > 0, share * xp.take(y, view.source), 0.0)
    return total


def match(y, sample_weight):
    """For each array of `y`, the index of its sample weights in the flattened sample weights, or None.

    Raises:
        ValueError: unless the sample weights are one array, or one for each array of `y` in the same structure.
    """
    numbers = list(range(len(tree.flatten(sample_weight))))
    numbered = tree.pack_sequence_as(sample_weight, numbers) if tree.is_nested(sample_weight) else 0

    def each(y, numbered):
        if not isinstance(numbered, (dict, list, tuple)):
            return tree.map_structure(lambda _: numbered, y)
        if isinstance(y, dict) and isinstance(numbered, dict) and set(numbered) <= set(y):
            return type(y)({key: each(part, numbered.get(key)) for key, part in y.items()})
        if isinstance(y, (list, tuple)) and isinstance(numbered, (list, tuple)) and len(y) == len(numbered):
            return getattr(type(y), "_make", type(y))(list(map(each, y, numbered)))
        return _checks.fail(
            "Sample weights must be one tensor, or one for each tensor of the labels in the same structure.",
            f"{outline(sample_weight)} for labels {outline(labels)}",
        )

    labels = y
    return each(y, numbered)


def check_shape(weight, label):
    """Raise unless sample weights of static shape `weight` match labels of static shape `label`."""
    if weight is None:
        _checks.fail(
            "The rank of sample weights must be known.", "sample_weight of unknown rank", "Call `w.set_shape([None])`."
        )
    if label is None:
        _checks.fail(
            "With sample weights, the rank of the labels must be known.",
            "labels of unknown rank",
            "Call `y.set_shape`.",
        )
    column = len(weight) == len(label) + 1 and weight[-1] == 1
    if column or (
        len(weight) <= len(label)
        and all(w in (1, None) or size in (w, None) for w, size in zip(weight, label, strict=False))
    ):
        return
    _checks.fail(
        "Sample weights must have the shape (B,), or the leading axes of the labels.",
        f"sample_weight of shape {tuple(weight)} with labels of shape {tuple(label)}",
    )


def spec(sample_weight):
    """The mixed sample weights as `KerasTensor`s."""
    return tree.map_structure(
        lambda leaf: None if leaf is None else keras.KerasTensor(leaf.shape, dtype="float32"), sample_weight
    )


def check_class_weight(class_weight):
    """Return `class_weight` as `{class number: weight >= 0}`, or None, or raise. JSON turns numbers into strings."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, dict):
        _checks.fail(
            "`class_weight` must be a dictionary from class numbers to weights.",
            f"class_weight={class_weight!r}",
            "For example `class_weight={0: 1.0, 1: 3.0}`.",
            TypeError,
        )

    def number(key):
        return _checks.integer(int(key) if isinstance(key, str) and key.isdigit() else key, "class_weight")

    return {number(key): _checks.real(value, "class_weight") for key, value in class_weight.items()}


def multiply(xp, sample_weight, factor):
    """Sample weights `(B, ...)` times a weight `(B,)` of each sample."""
    if sample_weight is None:
        return factor
    w = xp.cast(sample_weight, "float32")
    return w * xp.along(factor, w)
