"""Weighted sums of the samples and their partners."""

import numpy as np

from kmix import _backend, _checks

# Number of values that NumPy mixes at a time: a block of samples and their partners fit in the cache of a core.
_BLOCK = 2**15


def check_blendable(dtype):
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


def blend(xp, x, permutation, lam, dtype, bijective=False):
    """The convex combination of each sample and its partner.

    Computed as `partner + lam * (x - partner)`, so that a value that both share, such as padding, comes back exactly.

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
    lam = xp.cast(lam, "float32")
    if xp is _backend.NUMPY:
        return _by_blocks(_blended_block, lam == 1.0, (lam,), x, permutation, dtype)
    wide = _wide(dtype)

    def mixed(x):
        own, partner = xp.cast(x, wide), xp.cast(xp.take(x, permutation), wide)
        weight = xp.along(xp.cast(lam, wide), x)
        keep = weight == 1.0
        if bijective is True:
            # Partners may share an infinity, whose difference is none. (The plain gradient would pass by the partner.)
            keep = keep | (own == partner)
        return xp.cast(xp.where(keep, own, partner + weight * (own - partner)), dtype)

    def with_gradient(x):
        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream
            inverse = xp.argsort(permutation)
            back = _sum(xp, lam, xp.take(1.0 - lam, inverse), upstream, inverse, wide)
            return xp.cast(back, _backend.dtype(x))

        return mixed(x), gradient

    return xp.by_rows(xp.custom_gradient(with_gradient) if bijective is True else mixed, x)


def combine(xp, keep, a, b, y, permutation):
    """`a * y + b * y[permutation]` in float32, and `y` where `keep` holds, since `0 * nan` and `0 * inf` are not 0."""
    if xp is _backend.NUMPY:
        return _by_blocks(_combined_block, keep, (a, b), y, permutation, "float32")
    mixed = _sum(xp, a, b, y, permutation, "float32")
    return xp.where(xp.along(keep, y), xp.cast(y, "float32"), mixed)


def _wide(dtype):
    """The dtype to combine in, so as to round only once: half precision would round the coefficients too."""
    return "float64" if dtype == "float64" else "float32"


def _sum(xp, a, b, x, permutation, dtype):
    partner = xp.cast(xp.take(x, permutation), dtype)
    x, a, b = (xp.cast(array, dtype) for array in (x, a, b))
    return xp.along(a, x) * x + xp.along(b, x) * partner


def _blended_block(own, partner, lam, wide):
    block = np.subtract(own, partner, dtype=wide)
    block *= lam
    block += partner
    if not np.isfinite(block.sum()):
        # The difference of infinities is NaN. Shared values come back; an infinity of one partner alone stays.
        shares = lam * own + (1 - lam) * partner
        np.copyto(block, np.where(own == partner, own, shares), where=~np.isfinite(block))
    return block


def _combined_block(own, partner, a, b, wide):
    block = np.multiply(a, own, dtype=wide)
    block += np.multiply(b, partner, dtype=wide)
    return block


def _by_blocks(function, keep, coefficients, x, permutation, dtype):
    """Mix with NumPy, one block of samples at a time, since every NumPy operation passes over the memory."""
    mixed, permutation = np.empty(x.shape, dtype), _backend.NUMPY.rows(permutation)
    samples = max(1, _BLOCK // max(1, x[:1].size))
    keep, *coefficients = (_backend.NUMPY.along(array, x) for array in (keep, *coefficients))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(x), samples):
            rows = slice(start, start + samples)
            block = function(x[rows], x[permutation[rows]], *(array[rows] for array in coefficients), _wide(dtype))
            if keep[rows].any():
                np.copyto(block, x[rows], where=keep[rows])
            mixed[rows] = block
    return mixed
