"""Weighted sums of the samples and their partners."""

import math
from typing import Any

import numpy as np

from kmix import _backend, _checks

# Number of values that NumPy mixes at a time: few enough to stay in the cache of a core, and enough that threads seldom
# wait for each other, since each operation of NumPy takes Python's lock at its end.
_BLOCK = 2**17


def check_blendable(dtype: str) -> None:
    """Raise unless values of `dtype` can be interpolated."""
    if dtype == "bool":
        _checks.fail(
            "x must be float, or uint8 images.",
            "dtype bool",
            "Pass a padding mask with its float sequences to `EmbeddingMixup`, which unites the masks of partners.",
        )
    if not (dtype == "uint8" or "float" in dtype):
        _checks.fail(
            "x must be float, or uint8 images.",
            f"dtype {dtype}",
            "Ids cannot be interpolated: mix after the Embedding layer, one-hot encode them, or cast to float if these "
            "are measurements. Turn sequence lengths into a boolean mask for `EmbeddingMixup`: "
            "`np.arange(T) < lengths[:, None]`.",
        )


@_backend.kernel
def blend(xp: _backend.Namespace, x: Any, permutation: Any, lam: Any, *, dtype: str, bijective: bool = False) -> Any:
    """The convex combination of each sample and its partner.

    A value that both share, such as padding, comes back exactly.

    Args:
        xp: Array namespace.
        x: Tensor `(B, ...)`, float or uint8.
        permutation: Partners, `(B,)` or by shard.
        lam: float `(B,)`. A sample with `lam = 1` comes back exactly.
        dtype: Name of the dtype of the result.
        bijective: Whether `permutation` holds each index once. The gradient can then gather, by the inverse
            permutation, instead of scatter, which is slower.

    Returns:
        Tensor of the shape of `x`.
    """
    # Wide enough to round only once: half precision would round the coefficients too.
    given = _backend.dtype(x)
    wide = "float64" if dtype == "float64" or (given == "float64" and dtype != "float32") else "float32"
    if xp is _backend.NUMPY:
        return _blended(x, permutation, lam, dtype, wide)
    lam = xp.cast(lam, "float32")

    def mixed(x, lam, permutation):
        # A sample that is kept is its own partner, so that nothing of the other can enter.
        own = xp.cast(xp.arange(xp.size(permutation, -1)), _backend.dtype(permutation)) + 0 * permutation
        partners = xp.where(xp.reshape(lam, (*permutation.shape[:-1], -1)) == 1.0, own, permutation)
        own, partner = xp.cast(x, wide), xp.cast(xp.take(x, partners), wide)
        weight = xp.along(xp.cast(lam, wide), x)
        if bijective is True:
            return xp.cast(xp.interpolate(own, partner, weight), dtype)
        # The gradient of `interpolate` would pass by partners that are equal.
        return xp.cast(xp.where(weight == 1.0, own, partner + weight * (own - partner)), dtype)

    def gradient(upstream, lam, permutation):
        inverse = xp.argsort(permutation)
        back = _sum(xp, lam, xp.take(1.0 - lam, inverse), upstream, inverse, wide)
        return xp.cast(back, given)

    function = xp.custom_gradient(mixed, gradient) if bijective is True else mixed
    return xp.by_rows(lambda x: function(x, lam, permutation), x)


@_backend.kernel
def combine(xp: _backend.Namespace, keep: Any, a: Any, b: Any, y: Any, permutation: Any) -> Any:
    """`a * y + b * y[permutation]` in float32, and `y` where `keep` holds, since `0 * nan` and `0 * inf` are not 0."""
    if xp is _backend.NUMPY:
        return _combined(keep, a, b, y, permutation)
    mixed = _sum(xp, a, b, y, permutation, "float32")
    return xp.where(xp.along(keep, y), xp.cast(y, "float32"), mixed)


def _sum(xp, a, b, x, permutation, dtype):
    partner = xp.cast(xp.take(x, permutation), dtype)
    x, a, b = (xp.cast(array, dtype) for array in (x, a, b))
    return xp.along(a, x) * x + xp.along(b, x) * partner


# With NumPy, block by block, since every operation passes over the memory. Several threads share the samples.


def _blended(x, permutation, lam, dtype, wide):
    mixed, lam = np.empty_like(x, dtype=dtype), np.asarray(lam, "float32")
    partners = np.where(lam == 1.0, np.arange(len(lam)), _backend.NUMPY.rows(permutation))
    # Samples as rows `(B, n)`, whatever the order of their axes in memory.
    size, lam = math.prod(x.shape[1:]), lam[:, None]
    own = _backend.in_memory_order(x).reshape(len(x), size)
    into = _backend.in_memory_order(mixed).reshape(len(x), size)
    # Blocks of several samples, or equal parts of one.
    rows, width = max(1, _BLOCK // max(1, size)), -(-size // max(1, round(size / _BLOCK)))
    held = 1 if mixed.dtype == wide else 2

    def mix(samples):
        # The same memory for each block: the system hands out large pieces of new memory slowly.
        scratch = np.empty((held, rows * width), wide)
        for start in range(samples.start, samples.stop, rows):
            if rows == 1:
                partner = partners[start]
                for first in range(0, size, width):
                    part = slice(first, first + width)
                    _blend_block(own[start, part], own[partner, part], lam[start, 0], into[start, part], scratch)
            else:
                part = slice(start, min(start + rows, samples.stop))
                _blend_block(own[part], own[partners[part]], lam[part], into[part], scratch)

    if len(x) <= rows:
        _blend_block(own, own[partners], lam, into, np.empty((held, x.size), wide))
    else:
        _backend.over_rows(mix, len(x), x.size)
    return mixed


def _blend_block(own, partner, lam, into, scratch):
    difference = scratch[0, : own.size].reshape(own.shape)
    block = into if len(scratch) == 1 else scratch[1, : own.size].reshape(own.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(own, partner, out=difference, dtype=scratch.dtype)
        # NumPy copies where it broadcasts in place.
        product = np.multiply(difference, lam, out=block if lam.ndim else difference)
        np.add(product, partner, out=block)
        # The sum is not finite where a value is not; it may also overflow, which only takes time.
        if not np.isfinite(np.einsum("i->", block.reshape(-1))):
            # The difference of infinities is NaN. Shared values come back; an infinity of one partner alone stays.
            shares = lam * own + (1 - lam) * partner
            np.copyto(block, np.where(own == partner, own, shares), where=~np.isfinite(block))
        if block is not into:
            into[...] = block


def _combined(keep, a, b, y, permutation):
    mixed, permutation = np.empty(y.shape, "float32"), _backend.NUMPY.rows(permutation)
    keep, a, b = [array.reshape(array.shape + (1,) * (y.ndim - array.ndim)) for array in (keep, a, b)]
    rows = max(1, _BLOCK // max(1, y[:1].size))

    def mix(samples):
        for start in range(samples.start, samples.stop, rows):
            part = slice(start, min(start + rows, samples.stop))
            _combine_block(keep[part], a[part], b[part], y[part], y[permutation[part]], mixed[part])

    if len(y) <= rows:
        _combine_block(keep, a, b, y, y[permutation], mixed)
    else:
        _backend.over_rows(mix, len(y), y.size)
    return mixed


def _combine_block(keep, a, b, own, partner, into):
    with np.errstate(invalid="ignore", over="ignore"):
        np.multiply(a, own, out=into, dtype="float32")
        into += np.multiply(b, partner, dtype="float32")
        if keep.any():
            np.copyto(into, own, where=keep)
