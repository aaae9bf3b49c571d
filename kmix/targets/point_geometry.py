"""Points of images `(B, N, K, C)`: the pixels that they belong to, how they move, and which of them show.

`C` is 2, the coordinates, or 3, with COCO's visibility `v` behind them: 0 is a point that nobody labelled, which has no
place and stays as it came. Rows of padding hold -1, and 0 for `v`.
"""

from typing import Any

from kmix import _backend

FORMATS = ("xy", "yx", "rel_xy", "rel_yx")
# A point that was written as k / H belongs to pixel k, whatever float32 made of it.
_ROUNDING = 1 + 2**-22


def pixels(xp: _backend.Namespace, points: Any, name: str, spatial_shape: Any) -> tuple[Any, Any]:
    """The row and the column of the pixel that each point belongs to, float32 `(B, N, K)` each.

    Args:
        xp: Array namespace.
        points: `(B, N, K, C)`.
        name: One of `FORMATS`.
        spatial_shape: Height and width of the images.
    """
    # Coordinates of float64 might be rounded into the next pixel.
    dtype = "float64" if _backend.dtype(points) == "float64" else "float32"
    y, x = (xp.cast(points[..., i], dtype) for i in ((0, 1) if name.endswith("yx") else (1, 0)))
    if name.startswith("rel_"):
        y, x = (edge * (xp.cast(size, dtype) * _ROUNDING) for edge, size in zip((y, x), spatial_shape, strict=True))
    return xp.cast(xp.math.floor(y), "float32"), xp.cast(xp.math.floor(x), "float32")


def shifted(xp: _backend.Namespace, points: Any, shift: Any, name: str, spatial_shape: Any) -> Any:
    """The points `(B, N, K, 3)`, moved by `shift`, `(dy, dx)` in pixels, an int `(B, 2)`. Those with `v = 0` stay."""
    dtype = _backend.dtype(points)
    moves = [xp.cast(shift[:, i], dtype) for i in range(2)]
    if name.startswith("rel_"):
        moves = [move / xp.cast(size, dtype) for move, size in zip(moves, spatial_shape, strict=True)]
    moves = moves if name.endswith("yx") else moves[::-1]
    moved = points + xp.reshape(xp.stack([*moves, 0 * moves[0]], axis=-1), (-1, 1, 1, 3))
    return xp.where(points[..., 2:] > 0, moved, points)


def inside(xp: _backend.Namespace, pixel: Any, window: Any) -> Any:
    """Whether pixels lie in windows `(B, 4)`, half open: all starts, then all stops. Bool `(B, N, K)`."""
    row, column = pixel
    top, left, bottom, right = (xp.along(xp.cast(window[:, i], "float32"), row) for i in range(4))
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def in_view(xp: _backend.Namespace, pixel: Any, spatial_shape: Any) -> Any:
    """Whether pixels lie in images of this height and width. Bool `(B, N, K)`."""
    (row, column), (height, width) = pixel, (xp.cast(size, "float32") for size in spatial_shape)
    return (row >= 0) & (row < height) & (column >= 0) & (column < width)


def under(xp: _backend.Namespace, pixel: Any, mask: Any) -> Any:
    """Whether a mask `(B, H, W)` holds at pixels; outside of the image, it does not. Bool `(B, N, K)`."""
    height, width = xp.size(mask, 1), xp.size(mask, 2)
    within = in_view(xp, pixel, (height, width))
    row, column = (xp.cast(xp.where(within, edge, xp.cast(0, "float32")), "int32") for edge in pixel)
    index = row * width + column
    batch, rows, points = (xp.size(index, axis) for axis in range(3))
    flat = xp.cast(xp.reshape(mask, (batch, height * width)), "int32")
    found = xp.pick(flat, xp.reshape(index, (batch, rows * points)))
    return within & (xp.reshape(found, (batch, rows, points)) > 0)


def marked(xp: _backend.Namespace, points: Any, condition: Any, visibility: int) -> Any:
    """The points with this `v` where a condition `(B, N, K)` holds. Those with `v = 0` keep it.

    So do those that are NaN: a loss must show the error.
    """
    y, x, v = points[..., 0], points[..., 1], points[..., 2]
    changes = condition & (v > 0) & (y == y) & (x == x)
    return xp.stack([y, x, xp.where(changes, xp.cast(visibility, _backend.dtype(points)), v)], axis=-1)


def padding(xp: _backend.Namespace, points: Any) -> Any:
    """One point of padding, `(C,)`: -1 for coordinates, 0 for `v`."""
    return xp.cast(xp.where(xp.arange(points.shape[-1]) == 2, 0, -1), _backend.dtype(points))


def only(xp: _backend.Namespace, points: Any, rows: Any) -> Any:
    """The points of the rows where a condition `(B, N)` holds, and padding in the others."""
    return xp.where(xp.along(rows, points), points, padding(xp, points))


def taken(xp: _backend.Namespace, points: Any, order: Any) -> Any:
    """The rows of each image at indices `(B, M)`, as `(B, M, K, C)`."""
    batch, total, count, size = (xp.size(points, axis) for axis in range(4))
    first = total * xp.reshape(xp.arange(batch), (-1, 1))
    rows = xp.reshape(xp.cast(order, "int32") + xp.cast(first, "int32"), (-1,))
    found = xp.take(xp.reshape(points, (batch * total, count, size)), rows)
    return xp.reshape(found, (batch, xp.size(order, 1), count, size))


def lengthened(xp: _backend.Namespace, points: Any, more: Any) -> Any:
    """The points with so many rows of padding behind them."""
    batch, count = xp.size(points, 0), xp.size(points, 2)
    zeros = xp.reshape(0 * xp.arange(batch * more * count), (batch, more, count, 1))
    return xp.concat([points, xp.cast(zeros, _backend.dtype(points)) + padding(xp, points)], axis=1)
