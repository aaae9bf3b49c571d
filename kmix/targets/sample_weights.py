"""Sample weights, and the shares that they give to the partners in the labels."""

from typing import Any

from kmix import _backend, _checks
from kmix.mixing.blend import combine
from kmix.plan import MixPlan


def check_weights(given: list[Any], arrays: list[Any]) -> None:
    """Raise unless there are sample weights, and all are real numbers. `given` may have gaps, `arrays` has none."""
    if not given:
        _checks.fail("Sample weights must be arrays.", "an empty structure", "Leave out `sample_weight`, or pass None.")
    for array in arrays:
        dtype = _backend.dtype(array) if hasattr(array, "dtype") else type(array).__name__
        if not any(kind in dtype for kind in ("float", "int", "bool")):
            _checks.fail("Sample weights must be real numbers.", f"sample weights of dtype {dtype}")


def mix_weight(xp: _backend.Namespace, weight: Any, plan: MixPlan) -> Any:
    """Mix sample weights: `lam * w + (1 - lam) * w[permutation]`, float32 of the same shape."""
    weight = xp.cast(weight, "float32")
    if plan.partners is not None:
        return _total(xp, weight, *_sources_and_shares(xp, plan))
    lam = _lam(plan)
    return combine(xp, lam == 1.0, lam, 1.0 - lam, weight, plan.permutation)


def mix_labels(xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan) -> Any:
    """Mix labels `(B, ...)` by the shares of the partners, weighted by their sample weights, in float32.

    `y' = (lam * w_i * y_i + (1 - lam) * w_j * y_j) / w'` with `w' = lam * w_i + (1 - lam) * w_j`, so that a loss linear
    in `y` is the weighted pair of losses. Where `w'` is below the normal range of float32, the shares alone
    count.
    """
    if plan.partners is None:
        keep, own, partner = pair_shares(xp, y, weight, plan)
        return combine(xp, keep, own, partner, y, plan.permutation)
    sources, shares = _sources_and_shares(xp, plan)
    if weight is not None:
        w = _aligned(xp, weight, y)
        total = _total(xp, w, sources, shares)
        weightless = abs(total) < _backend.SMALLEST_NORMAL
        weighted = [xp.along(share, w) * xp.take(w, source) for source, share in zip(sources, shares, strict=True)]
        shares = [
            xp.where(weightless, xp.along(share, w), each / xp.where(weightless, 1.0, total))
            for share, each in zip(shares, weighted, strict=True)
        ]
    return _total(xp, xp.cast(y, "float32"), sources, shares)


def pair_shares(xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan) -> tuple[Any, Any, Any]:
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
    # Divide the shares, not the labels: w * y / w may differ from y. If they vanish, lam alone counts.
    weightless = abs(a + b) < _backend.SMALLEST_NORMAL
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
    return list(map(xp.asarray, plan._sources())), [xp.asarray(part.share) for part in plan.parts()]


def _total(xp, y, sources, shares):
    total = 0.0
    for source, share in zip(sources, shares, strict=True):
        share = xp.along(share, y)
        # A sample without a share adds nothing, even where it is NaN. A share that is NaN stands for an error.
        total = total + xp.where(share <= 0, 0.0, share * xp.take(y, source))
    return total
