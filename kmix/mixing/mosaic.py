"""Four images around a centre."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kmix import _backend


@_backend.kernel
def mosaic(xp: _backend.Namespace, x: Any, centre: Any, sources: Any, *, axes: Sequence[int]) -> Any:
    """Four images around a centre.

    Args:
        xp: Array namespace.
        x: Tensor `(B, ...)` with two spatial axes.
        centre: int `(B, 2)`.
        sources: int `(4, B)`: the images at the top left, top right, bottom left, bottom right; or counted within
            groups, `(4, groups, n)`.
        axes: The spatial axes of `x`, a range.

    Works line by line. A line begins with one of an image on the left, and goes on with one of an image on the right:
    two stretches of memory.
    """
    if xp is _backend.NUMPY:
        return _windows(x, centre, sources, axes)
    sizes = [xp.size(x, axis) for axis in range(len(x.shape))]
    sizes = [size if isinstance(size, int) else xp.cast(size, xp.integer) for size in sizes]
    height, width = sizes[axes[0]], sizes[axes[1]]
    planes, pixel = math.prod(sizes[1 : axes[0]]), math.prod(sizes[axes[1] + 1 :])
    # A compiler looks up single numbers faster than pixels; elsewhere, each look-up costs an index in memory.
    compiled = _backend.is_symbolic(x) and all(isinstance(size, int) for size in sizes[1:])
    unit, pixel = (1, pixel) if compiled else (pixel, 1)
    row, column = (xp.reshape(xp.cast(centre[:, axis], xp.integer), (-1, 1)) for axis in range(2))
    row = xp.cast(xp.arange(height), xp.integer) - row
    above = row < 0
    row = xp.where(above, row + height, row)
    plane = xp.reshape(xp.cast(xp.arange(planes), xp.integer), (-1, 1))
    position = xp.cast(xp.arange(width * pixel), xp.integer)
    # Groups of rows, or all rows.
    groups = sources.shape[1] if len(sources.shape) == 3 else 1
    units, last = xp.reshape(x, (-1, unit)), math.prod(sizes) // unit // groups - 1

    def line(first, second, shift):
        """The lines of two images, the upper and the lower one, moved by so many columns, `(B, planes, H, W * C)`."""
        image = xp.where(above, *(xp.reshape(xp.cast(sources[i], xp.integer), (-1, 1)) for i in (first, second)))
        start = ((image[:, None] * planes + plane) * height + row[:, None]) * width + shift[:, None]
        index = xp.reshape(start, (-1, planes, height, 1)) * pixel + position
        # Beyond the ends lies what the other line covers.
        index = xp.math.minimum(xp.math.maximum(index, 0), last)
        index = xp.reshape(index, (-1,) if groups == 1 else (groups, -1))
        return xp.reshape(xp.take(units, index), (-1, planes, height, width * pixel, unit))

    left = (position < xp.reshape(column, (-1, 1, 1, 1)) * pixel)[..., None]
    return xp.reshape(xp.where(left, line(0, 2, width - column), line(1, 3, -column)), sizes)


def _windows(x, centre, sources, axes):
    """`mosaic` for NumPy: copy the four windows."""
    mixed, centres = np.empty_like(x), centre.tolist()
    sources = [_backend.NUMPY.rows(each).tolist() for each in sources]
    before = (slice(None),) * (axes.start - 1)
    sizes = [x.shape[axis] for axis in axes]

    def copy(samples):
        for i in range(samples.start, samples.stop):
            # Where each half of an axis lies, and where it comes from.
            halves = [
                ((slice(0, at), slice(size - at, size)), (slice(at, size), slice(0, size - at)))
                for at, size in zip(centres[i], sizes, strict=True)
            ]
            for corner, images in enumerate(sources):
                rows, columns = halves[0][corner // 2], halves[1][corner % 2]
                mixed[i, *before, rows[0], columns[0]] = x[images[i], *before, rows[1], columns[1]]

    _backend.over_rows(copy, len(x), x.size)
    return mixed
