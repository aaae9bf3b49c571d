"""Padding masks: a position counts if it counts for one of the partners."""

from typing import Any

from kmix import _backend
from kmix.plan import MixPlan


def mix_masks(mask: Any, plan: MixPlan) -> Any:
    """Unite the padding masks of mixed sequences.

    Args:
        mask: Tensor `(B, ...)`, true (or not 0) where a position counts. For float masks, which may be added to
            scores, the larger value is taken.
        plan: A `MixPlan` for a batch of `B`.

    Returns:
        Tensor of the same shape and dtype, `mask | mask[permutation]`; a sample with `lam = 1` keeps its own.

    Example:
        >>> from kmix.mixing.padding_masks import mix_masks
        >>> plan = kmix.MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
        >>> mix_masks(np.array([[True, False], [True, True]]), plan)
        array([[ True,  True],
               [ True,  True]])
    """
    xp = _backend.namespace(mask, plan.lam)
    mask, lam, dtype = xp.asarray(mask), xp.asarray(plan.lam), _backend.dtype(mask)
    if "float" in dtype:
        partner = xp.take(mask, xp.asarray(plan.permutation))
        return xp.where((partner > mask) & xp.along(lam < 1.0, mask), partner, mask)
    counts = mask if dtype == "bool" else mask != 0
    united = counts | (xp.take(counts, xp.asarray(plan.permutation)) & xp.along(lam < 1.0, counts))
    return united if dtype == "bool" else xp.cast(united, dtype)
