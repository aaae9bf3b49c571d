"""Sample weights, and the shares that they give to the partners in the labels."""

import keras

from kmix import _backend, _checks
from kmix.mixing import combine

tree = keras.tree


def mix_weight(xp, weight, plan):
    """Mix sample weights: `lam * w + (1 - lam) * w[permutation]`, float32 of the same shape."""
    weight = xp.cast(weight, "float32")
    if plan.partners is not None:
        return _total(xp, weight, *_sources_and_shares(xp, plan))
    lam = _lam(plan)
    return combine(xp, lam == 1.0, lam, 1.0 - lam, weight, plan.permutation)


def mix_labels(xp, y, weight, plan):
    """Mix labels `(B, ...)` by the shares of the partners, weighted by their sample weights, in float32.

    `y' = (lam * w_i * y_i + (1 - lam) * w_j * y_j) / w'` with `w' = lam * w_i + (1 - lam) * w_j`, so that a loss linear
    in `y` is the weighted pair of losses. Where `w'` is 0, the shares alone count.
    """
    if plan.partners is None:
        keep, own, partner = pair_shares(xp, y, weight, plan)
        return combine(xp, keep, own, partner, y, plan.permutation)
    sources, shares = _sources_and_shares(xp, plan)
    if weight is not None:
        w = _aligned(xp, weight, y)
        total = _total(xp, w, sources, shares)
        weighted = [xp.along(share, w) * xp.take(w, source) for source, share in zip(sources, shares, strict=True)]
        shares = [
            xp.where(total == 0, xp.along(share, w), each / xp.where(total == 0, 1.0, total))
            for share, each in zip(shares, weighted, strict=True)
        ]
    return _total(xp, xp.cast(y, "float32"), sources, shares)


def pair_shares(xp, y, weight, plan):
    """The shares of a sample and its partner in the labels `y`: `lam` and `1 - lam`, weighted by the sample weights.

    Returns:
        `(keep, a, b)`: whether a sample is kept unchanged, the share of the sample, and the share of its partner.
    """
    lam = _lam(plan)
    keep, a, b = lam == 1.0, lam, 1.0 - lam
    if weight is None:
        return keep, a, b
    lam, permutation, w = xp.asarray(lam), xp.asarray(plan.permutation), _aligned(xp, weight, y)
    lam = xp.along(lam, w)
    a, b = lam * w, (1.0 - lam) * xp.take(w, permutation)
    # Divide the shares, not the labels: w * y / w may differ from y. If both weights are 0, lam alone counts.
    weightless = a + b == 0
    total = xp.where(weightless, xp.cast(1.0, "float32"), a + b)
    return keep, xp.where(weightless, lam, a / total), xp.where(weightless, 1.0 - lam, b / total)


def _lam(plan):
    """The lam of a plan, in the framework in which it was drawn."""
    return _backend.namespace(plan.lam).cast(plan.lam, "float32")


def _aligned(xp, weight, y):
    """Sample weights `(B, ...)`, or in a column `(B, 1)` for labels `(B,)`, with the leading axes of the labels."""
    w = xp.cast(weight, "float32")
    return xp.reshape(w, (-1,)) if len(w.shape) == len(y.shape) + 1 else w


def _sources_and_shares(xp, plan):
    parts = plan.parts()
    return [xp.asarray(part.source) for part in parts], [xp.asarray(part.share) for part in parts]


def _total(xp, y, sources, shares):
    total = 0.0
    for source, share in zip(sources, shares, strict=True):
        share = xp.along(share, y)
        # A sample without a share adds nothing, even where it is NaN.
        total = total + xp.where(share > 0, share * xp.take(y, source), 0.0)
    return total


def match(targets, sample_weight):
    """For each array of a structure of targets, the index of its sample weights in the flattened sample weights.

    Returns:
        A structure like `targets` of indices, with None where there are no sample weights.

    Raises:
        ValueError: unless the sample weights are one array, or one for each array of the targets in their structure.
    """
    flat = tree.flatten(sample_weight)
    numbered = tree.pack_sequence_as(sample_weight, list(range(len(flat)))) if tree.is_nested(sample_weight) else 0

    def each(target, numbered):
        if not isinstance(numbered, (dict, list, tuple)):
            index = None if numbered is None or flat[numbered] is None else numbered
            return tree.map_structure(lambda _: index, target)
        if isinstance(target, dict) and isinstance(numbered, dict) and set(numbered) <= set(target):
            return {key: each(part, numbered.get(key)) for key, part in target.items()}
        if isinstance(target, (list, tuple)) and isinstance(numbered, (list, tuple)) and len(target) == len(numbered):
            return list(map(each, target, numbered))
        return _checks.fail(
            "Sample weights must be one tensor, or one for each tensor of the labels in the same structure.",
            f"{outline(sample_weight)} for labels {outline(targets)}",
        )

    return each(targets, numbered)


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


def outline(structure):
    """A structure in words, with dots for its arrays."""
    return str(tree.map_structure(lambda _: ..., structure)).replace("Ellipsis", "...")
