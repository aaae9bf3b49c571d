"""Masks of objects `(B, N, H, W)`, not 0 inside: which of their pixels show in a mixed batch, and where."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kmix import _backend

# In place of the number of a part: all of an object shows, or nothing.
WHOLE, NOTHING = -1, -2


class Objects(NamedTuple):
    """The region of a plan that pastes objects, as the masks of a batch tell it.

    Attributes:
        mask: bool `(B, H, W)`: where one of the pasted objects lies.
        pasted: bool `(B, N)`: which objects of the partner are pasted.
        area: int32 `(B, N)`: the `areas` of the objects of the batch.
    """

    mask: Any
    pasted: Any
    area: Any

    def paste(self, xp: _backend.Namespace, x: Any, permutation: Any, axes: Sequence[int]) -> Any:
        """`x` with the pixels of the pasted objects of the partners."""
        return _paste(xp, x, permutation, self.mask, axes=axes)


@_backend.kernel
def _paste(xp, x, permutation, mask, *, axes):
    if xp is not _backend.NUMPY:
        inside = mask[:, None] if axes.start == 2 else mask[..., None]
        return xp.where(inside, xp.take(x, permutation), x)
    mixed, permutation = np.empty_like(x), _backend.NUMPY.rows(permutation)

    def copy(samples):
        for i in range(samples.start, samples.stop):
            mixed[i] = x[i]
            rows, columns = np.nonzero(mask[i])
            where = (rows, columns) if axes.start == 1 else (slice(None), rows, columns)
            mixed[i][where] = x[permutation[i]][where]

    _backend.over_rows(copy, len(x), x.size)
    return mixed


@_backend.kernel
def union(xp: _backend.Namespace, masks: Any, sources: Any, pasted: Any) -> Any:
    """Where one of the objects of the samples `sources` `(B,)` lies that are `pasted` `(B, N)`: bool `(B, H, W)`."""
    if xp is not _backend.NUMPY:
        return xp.any(xp.cast(xp.take(masks, sources), "bool") & pasted[..., None, None], 1)
    united = np.zeros((len(masks), *masks.shape[2:]), bool)

    def unite(samples):
        for i in range(samples.start, samples.stop):
            for n in np.flatnonzero(pasted[i]):
                united[i] |= _inside(masks[sources[i], n])

    _backend.over_rows(unite, len(masks), masks.size)
    return united


@_backend.kernel
def areas(xp: _backend.Namespace, masks: Any, wanted: Any) -> Any:
    """The number of pixels of each object, int32 `(B, N)`; 0 for those that are not `wanted` `(B, N)`."""
    if xp is not _backend.NUMPY:
        return xp.where(wanted, _pixels(xp, xp.cast(masks, "bool")), 0)
    return _counted(masks, wanted, lambda i, n: masks[i, n])


@_backend.kernel
def visible_areas(xp: _backend.Namespace, masks: Any, shown: Any, wanted: Any, *rows: Any) -> Any:
    """As `areas`, where `shown` `(B, H, W)` holds: of the objects of the samples `rows` `(B,)`, if they are given."""
    if xp is not _backend.NUMPY:
        taken = xp.take(masks, *rows) if rows else masks
        return xp.where(wanted, _pixels(xp, xp.cast(taken, "bool") & shown[:, None]), 0)
    (rows,) = rows or (np.arange(len(masks)),)
    return _counted(masks, wanted, lambda i, n: _inside(masks[rows[i], n]) & shown[i])


def _pixels(xp, inside):
    """The number of true values of each `(H, W)`."""
    counts = xp.cast(inside, "uint8")
    # Halves are added as bytes, at most 128 in all, since to add words takes XLA twenty times as long.
    for _ in range(7):
        half, odd = divmod(_backend.static_shape(counts)[2] or 1, 2)
        if odd or not half:
            break
        counts = counts[:, :, :half] + counts[:, :, half:]
    return xp.sum(xp.sum(xp.cast(counts, "int32"), 2), 2)


def _inside(mask):
    """A NumPy mask as booleans."""
    return mask if mask.dtype == bool else mask != 0


def _counted(masks, wanted, pixels):
    counts = np.zeros(wanted.shape, "int32")

    def count(samples):
        for i in range(samples.start, samples.stop):
            for n in np.flatnonzero(wanted[i]):
                counts[i, n] = np.count_nonzero(pixels(i, n))

    _backend.over_rows(count, len(masks), masks.size)
    return counts


@_backend.kernel
def gather(xp: _backend.Namespace, masks: Any, index: Any, view: Any, parts: Any) -> Any:
    """Masks of objects, with what shows of each.

    Args:
        xp: Array namespace.
        masks: `(B, N, H, W)`.
        index: int `(B, K)`: the numbers of objects, counted over the batch.
        view: int `(B, K)`: the number of the part in which an object shows, `WHOLE` or `NOTHING`.
        parts: int `(B, H, W)`: the number of the part that each pixel shows; any if nothing is hidden.

    Returns:
        `(B, K, H, W)` in the dtype of the masks.
    """
    if xp is _backend.NUMPY:
        return _gathered(masks, index, view, parts)
    height, width = xp.size(masks, 2), xp.size(masks, 3)
    taken = xp.take(xp.reshape(masks, (-1, height, width)), xp.reshape(index, (-1,)))
    taken = xp.reshape(taken, (xp.size(index, 0), xp.size(index, 1), height, width))
    view = view[..., None, None]
    return xp.where((view == WHOLE) | (view == parts[:, None]), taken, xp.cast(0, _backend.dtype(masks)))


def _gathered(masks, index, view, parts):
    found, masks = np.empty((*index.shape, *masks.shape[2:]), masks.dtype), masks.reshape(-1, *masks.shape[2:])

    def copy(samples):
        for i in range(samples.start, samples.stop):
            shown = {part: parts[i] == part for part in np.unique(view[i]) if part >= 0}
            for k, (number, part) in enumerate(zip(index[i], view[i], strict=True)):
                if part == NOTHING:
                    found[i, k] = 0
                elif part == WHOLE:
                    found[i, k] = masks[number]
                else:
                    np.multiply(masks[number], shown[part], out=found[i, k])

    _backend.over_rows(copy, len(found), found.size)
    return found


@_backend.kernel
def corners(xp: _backend.Namespace, masks: Any, wanted: Any) -> Any:
    """The bounding box of each object, int32 `(B, N, 4)`: `(top, left, bottom, right)`, half open.

    Any of those that are not `wanted` `(B, N)`.
    """
    if xp is _backend.NUMPY:
        found = np.zeros((*wanted.shape, 4), "int32")
        for i, n in np.argwhere(wanted):
            edges = [np.flatnonzero(masks[i, n].any(axis)) for axis in (1, 0)]
            found[i, n] = [*(edge[0] for edge in edges), *(edge[-1] + 1 for edge in edges)]
        return found
    starts, stops = [], []
    for axis in (2, 3):
        along = xp.any(xp.cast(masks, "bool"), 5 - axis)
        position = xp.cast(xp.arange(xp.size(masks, axis)), "int32")
        starts.append(xp.argmax(xp.cast(along, "int32")))
        stops.append(xp.argmax(xp.where(along, position, -1)) + 1)
    return xp.stack(starts + stops, axis=2)
