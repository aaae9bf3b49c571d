"""Paste boxes of the partners into the samples."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from kmix import _backend

# XLA unrolls loops over fewer values than this into scalar code.
_UNROLLED = 30
# NumPy takes longer to slice a sample of fewer values than to copy it under a mask.
_SMALL = 2**11
# Number of values that NumPy copies under masks at a time: few enough to stay in the cache of a core.
_BLOCK = 2**16


def spatial_axes(rank: int, data_format: str) -> range:
    """The spatial axes of a tensor: all but the batch and the channels."""
    return range(2, rank) if data_format == "channels_first" else range(1, rank - 1)


@_backend.kernel
def paste(xp: _backend.Namespace, x: Any, permutation: Any, box: Any, *, axes: Sequence[int]) -> Any:
    """The partner inside the box, the sample outside.

    Args:
        xp: Array namespace.
        x: Tensor `(B, ...)`.
        permutation: Partners, `(B,)` or by shard.
        box: int `(B, 2 * k)`, half open.
        axes: The `k` spatial axes of `x`, a range.

    Works line by line, along the last spatial axis. A line outside the box is its own partner, so that its memory is
    read only once. Where XLA would unroll short lines, the whole sample is one line.
    """
    if xp is _backend.NUMPY:
        return _windows(x, permutation, box, axes)
    sizes = [xp.size(x, axis) for axis in range(len(x.shape))]
    length = math.prod(sizes[axes[-1] :])
    unrolled = _backend.is_symbolic(x) and isinstance(length, int) and length < _UNROLLED
    first = 1 if unrolled else axes[-1]
    lines, length = math.prod(sizes[1:first]), math.prod(sizes[first:])

    def inside(axis, value):
        """Whether values of a sample, numbered from its first, lie inside the box along an axis."""
        position, i = value // math.prod(sizes[axis + 1 :]) % sizes[axis], axis - axes[0]
        start, stop = (xp.reshape(box[:, edge], (-1, 1)) for edge in (i, i + len(axes)))
        return (position >= start) & (position < stop)

    own = xp.reshape(xp.arange(xp.size(permutation, -1)) + 0 * permutation, (-1, 1))
    partner, line = xp.reshape(permutation, (-1, 1)), xp.arange(lines)
    for axis in () if unrolled else axes[:-1]:
        partner = xp.where(inside(axis, line * length), partner, own)
    source = xp.reshape(partner * lines + line, (*permutation.shape[:-1], -1))
    partners = xp.take(xp.reshape(x, (-1, length)), source)
    within = [inside(axis, xp.arange(length)) for axis in (axes if unrolled else axes[-1:])]
    window, shape = functools.reduce(operator.and_, within)[:, None], (-1, lines, length)
    return xp.reshape(xp.where(window, xp.reshape(partners, shape), xp.reshape(x, shape)), sizes)


def _windows(x, permutation, box, axes):
    """`paste` for NumPy: copy the samples, then the boxes."""
    mixed, permutation, k = np.empty_like(x), _backend.NUMPY.rows(permutation), len(axes)
    # A slice would count negative edges from the end.
    box = np.maximum(box, 0)
    if x.flags.c_contiguous and 0 < x[:1].size < _SMALL:
        _small_windows(x, permutation, box, axes, mixed)
        return mixed
    edges = box.tolist()

    def copy(samples):
        for i in range(samples.start, samples.stop):
            mixed[i] = x[i]
            window = (*[slice(None)] * (axes.start - 1), *map(slice, edges[i][:k], edges[i][k:]))
            mixed[i, *window] = x[permutation[i], *window]

    _backend.over_rows(copy, len(x), x.size)
    return mixed


def _small_windows(x, permutation, box, axes, mixed):
    """Copy the samples, then the boxes, by masks for blocks of samples: slices would take longer than their copies."""
    # The axes from the first spatial one on are one, so that loops are long.
    planes = (math.prod(x.shape[1 : axes.start]), math.prod(x.shape[axes.start :]))
    own, into = x.reshape(len(x), *planes), mixed.reshape(len(x), *planes)
    rows = max(1, _BLOCK // max(1, math.prod(planes)))
    for first in range(0, len(x), rows):
        part = slice(first, first + rows)
        for i, axis in reversed(list(enumerate(axes))):
            position, start, stop = np.arange(x.shape[axis]), box[part, i, None], box[part, i + len(axes), None]
            along = (position >= start) & (position < stop)
            if axis == axes[-1]:
                inside = np.repeat(along, math.prod(x.shape[axes.stop :]), axis=1)
            else:
                inside = (along[:, :, None] & inside[:, None]).reshape(len(along), -1)
        into[part] = own[part]
        np.copyto(into[part], own[permutation[part]], where=inside[:, None])
