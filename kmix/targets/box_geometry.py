"""Boxes and windows as corners in pixels: `(top, left, bottom, right)`, each float32 `(B, N)` or `(B, 1)`."""

from collections.abc import Sequence
from typing import Any

from kmix._backend import Namespace

# Pixels by which a box may stick out of what covers it.
TOLERANCE = 1e-3


def columns(xp: Namespace, array: Any, indices: Sequence[int]) -> tuple[Any, ...]:
    """Columns of an int array `(B, n)` as float32 `(B, 1)`."""
    return tuple(xp.reshape(xp.cast(array[:, i], "float32"), (-1, 1)) for i in indices)


def shows(corners: Sequence[Any]) -> Any:
    """Whether boxes have a height and a width."""
    top, left, bottom, right = corners
    return (bottom - top > TOLERANCE) & (right - left > TOLERANCE)


def area(xp: Namespace, corners: Sequence[Any]) -> Any:
    """The area in pixels."""
    top, left, bottom, right = corners
    return xp.math.maximum(bottom - top, 0.0) * xp.math.maximum(right - left, 0.0)


def ratio(xp: Namespace, part: Sequence[Any], whole: Sequence[Any]) -> Any:
    """The area of a part as a share of the whole; 0 of nothing."""
    total = area(xp, whole)
    return xp.where(total > 0, area(xp, part) / xp.where(total > 0, total, xp.cast(1.0, "float32")), 0.0)


def intersection(xp: Namespace, corners: Sequence[Any], window: Any) -> tuple[Any, Any, Any, Any]:
    """What shows of boxes in a window."""
    low, high = xp.math.maximum, xp.math.minimum
    return (
        low(corners[0], window[0]),
        low(corners[1], window[1]),
        high(corners[2], window[2]),
        high(corners[3], window[3]),
    )


def outside(xp: Namespace, corners: Sequence[Any], window: Any) -> tuple[Any, Any, Any, Any]:
    """The bounding box of what a window leaves of boxes: shorter where it covers a whole side."""
    top, left, bottom, right = corners
    first, start, last, stop = window
    covers_rows = (first <= top + TOLERANCE) & (last >= bottom - TOLERANCE)
    covers_columns = (start <= left + TOLERANCE) & (stop >= right - TOLERANCE)
    return (
        xp.where(covers_columns & (first <= top + TOLERANCE), xp.math.maximum(top, last), top),
        xp.where(covers_rows & (start <= left + TOLERANCE), xp.math.maximum(left, stop), left),
        xp.where(covers_columns & (last >= bottom - TOLERANCE), xp.math.minimum(bottom, first), bottom),
        xp.where(covers_rows & (stop >= right - TOLERANCE), xp.math.minimum(right, start), right),
    )
