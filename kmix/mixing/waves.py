"""Waves that sound together: their levels, by what each is multiplied, and their sum."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kmix import _backend
from kmix.plan import MixPlan

# Number of values that NumPy adds at a time: few enough to stay in the cache of a core.
_BLOCK = 2**16
# Below this level, float32 loses the squares of the values.
_SILENT = 1e-15
# Number of parts of a wave whose squares are added to each other first: a power of two.
_PARTS = 32


@_backend.kernel
def energy(xp: _backend.Namespace, x: Any) -> Any:
    """For each wave the sum of its squares, and how many of its values are not 0 for any framework, float32 `(2, B)`.

    Args:
        xp: Array namespace.
        x: Float `(B, ...)`.
    """
    if xp is _backend.NUMPY:
        return _energies(x)
    size = math.prod(xp.size(x, axis) for axis in range(1, len(x.shape)))
    rows = xp.reshape(x, (-1, size))
    # XLA adds up a row value by value, but sums of whole parts of it many at a time.
    width = size // _PARTS if isinstance(size, int) and _backend.is_symbolic(x) else 0
    parts = [rows[:, part * width : (part + 1) * width] for part in range(_PARTS if width else 0)]
    found = []
    for group in filter(None, (parts, [rows[:, _PARTS * width :]])):
        values = [xp.cast(part, "float32") for part in group]
        squares = xp.sum(_summed([value * value for value in values]), 1)
        count = xp.sum(_summed([xp.cast(abs(value) >= _backend.SMALLEST_NORMAL, "int32") for value in values]), 1)
        found.append(xp.stack([squares, xp.cast(count, "float32")]))
    return sum(found)


def _summed(arrays):
    """The sum of arrays, of which there are a power of two, in pairs: short chains."""
    while len(arrays) > 1:
        arrays = [first + second for first, second in zip(arrays[::2], arrays[1::2], strict=True)]
    return arrays[0]


def levels(xp: _backend.Namespace, waves: Sequence[Any]) -> Any:
    """The root mean square of each sample, over all waves of a list, time and channels together, float32 `(B,)`.

    Padding does not count: values that are 0. A silent sample, of a level below `_SILENT`, has the level 0, and one
    whose values are not all finite has NaN.
    """
    squares, count = xp.unstack(sum(energy(xp, x) for x in waves))
    level = xp.math.sqrt(squares / xp.math.maximum(count, 1.0))
    level = xp.where(level < _SILENT, 0.0, level)
    return xp.where(level < math.inf, level, math.nan)


def with_levels(xp: _backend.Namespace, plan: MixPlan, level: Any) -> MixPlan:
    """The plan without what is silent: a silent partner gives its share to the sample, a silent sample is not mixed.

    Args:
        xp: Array namespace of the plan and of the levels.
        plan: A `MixPlan`.
        level: What `levels` returned.
    """
    lam, *others = [part.share for part in plan.parts()]
    silent = [(level == 0) | (xp.take(level, part.source) == 0) for part in plan.parts()[1:]]
    shares = [xp.where(none, 0.0, share) for none, share in zip(silent, others, strict=True)]
    given = sum(xp.where(none, share, 0.0) for none, share in zip(silent, others, strict=True))
    # Exactly 1 if nothing is added; NaN where lam is, which stands for an error.
    lam = xp.where(sum(shares) + 0.0 * lam == 0, xp.cast(1.0, "float32"), lam + given)
    return plan._replace(lam=lam, shares=None if plan.shares is None else xp.stack([lam, *shares]))


def with_gains(
    xp: _backend.Namespace, plan: MixPlan, level: Any = None, *, constant_power: bool, to_sample: bool
) -> MixPlan:
    """The plan with the gain of each source.

    Args:
        xp: Array namespace of the plan and of the levels.
        plan: A `MixPlan`.
        level: The level of each sample, to which partners are brought; None to leave all waves at their own.
        constant_power: Whether the squares of the gains sum to 1.
        to_sample: Else, whether the gain of the sample itself is 1.
    """
    parts = plan.parts()
    gains = [xp.cast(part.share, "float32") for part in parts]
    if level is not None:
        for source, part in enumerate(parts[1:], 1):
            partner = xp.take(level, part.source)
            ratio = level / xp.where(partner == 0, 1.0, partner)
            gains[source] = xp.where(gains[source] == 0, 0.0, gains[source] * ratio)
    if constant_power:
        # A square might overflow: a partner may be almost silent.
        largest = functools.reduce(xp.math.maximum, gains)
        gains = [gain / largest for gain in gains]
        total = xp.math.sqrt(sum(gain * gain for gain in gains))
        gains = [gain / total for gain in gains]
    elif to_sample:
        gains = [gain / gains[0] for gain in gains]
    return plan._replace(gains=xp.stack(gains))


@_backend.kernel
def weighted_sum(xp: _backend.Namespace, x: Any, gains: Any, *partners: Any, dtype: str) -> Any:
    """The sum of each wave and its partners, each times its gain.

    Nothing of a source whose gain is 0 enters, whatever its values are; a wave of gain 1 alone comes back exactly.

    Args:
        xp: Array namespace.
        x: Float `(B, ...)`.
        gains: float32 `(k + 1, B)`.
        partners: The `k` partners of each wave, `(B,)` or by shard.
        dtype: Name of the dtype of the result.

    Returns:
        Tensor of the shape of `x`. It is computed in float32, or in float64 if `dtype` is.
    """
    wide = "float64" if dtype == "float64" else "float32"
    if xp is _backend.NUMPY:
        return _added(x, gains, partners, dtype, wide)
    own_gain, *others = [xp.cast(gain, wide) for gain in xp.unstack(gains)]

    def added(x):
        def term(gain, source):
            return xp.where(xp.along(gain == 0, x), 0.0, xp.along(gain, x) * xp.cast(source, wide))

        total = term(own_gain, x)
        for gain, partner in zip(others, partners, strict=True):
            # Memory that is read already.
            own = xp.cast(xp.arange(xp.size(partner, -1)), _backend.dtype(partner)) + 0 * partner
            near = xp.where(xp.reshape(gain, (*partner.shape[:-1], -1)) == 0, own, partner)
            total = total + term(gain, xp.take(x, near))
        return xp.cast(total, dtype)

    return xp.by_rows(added, x)


# With NumPy, block by block, since every operation passes over the memory. Several threads share the samples.


def _energies(x):
    found, rows = np.empty((2, len(x)), "float32"), _backend.in_memory_order(x).reshape(len(x), -1)

    def measure(samples):
        for i in range(samples.start, samples.stop):
            row = rows[i].astype("float32", copy=False)
            with np.errstate(invalid="ignore", over="ignore"):
                found[:, i] = np.dot(row, row), np.count_nonzero(np.abs(row) >= _backend.SMALLEST_NORMAL)

    _backend.over_rows(measure, len(x), x.size)
    return found


def _added(x, gains, partners, dtype, wide):
    mixed, size = np.empty_like(x, dtype=dtype), math.prod(x.shape[1:])
    rows = _backend.in_memory_order(x).reshape(len(x), size)
    into = _backend.in_memory_order(mixed).reshape(len(x), size)
    sources = [np.arange(len(x)), *map(_backend.NUMPY.rows, partners)]

    def add(samples):
        total, scratch = np.empty((2, _BLOCK), wide)
        for i in range(samples.start, samples.stop):
            heard = [(source[i], gain[i]) for source, gain in zip(sources, gains, strict=True) if gain[i] != 0]
            for first in range(0, size, _BLOCK):
                part = slice(first, min(first + _BLOCK, size))
                block, term = total[: part.stop - first], scratch[: part.stop - first]
                block[...] = 0
                with np.errstate(invalid="ignore", over="ignore"):
                    for source, gain in heard:
                        block += np.multiply(rows[source, part], gain, out=term, dtype=wide)
                    into[i, part] = block

    _backend.over_rows(add, len(x), x.size)
    return mixed
