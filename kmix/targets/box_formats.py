"""The formats of bounding boxes: to corners in pixels, and back."""

from collections.abc import Sequence
from typing import Any

from kmix._backend import Namespace

FORMATS = (
    "xyxy",
    "yxyx",
    "xywh",
    "center_xywh",
    "center_yxhw",
    "rel_xyxy",
    "rel_yxyx",
    "rel_xywh",
    "rel_center_xywh",
)
_ROWS_FIRST = ("yxyx", "center_yxhw")


def _scales(xp, name, spatial_shape):
    """The unit of heights and of widths in pixels."""
    if not name.startswith("rel_"):
        return 1.0, 1.0
    return tuple(xp.cast(size, "float32") for size in spatial_shape)


def to_corners(xp: Namespace, boxes: Any, name: str, spatial_shape: Any) -> tuple[Any, Any, Any, Any]:
    """The corners `(y0, x0, y1, x1)` in pixels, float32 `(B, N)` each.

    Args:
        xp: Array namespace.
        boxes: `(B, N, 4)`.
        name: One of `FORMATS`.
        spatial_shape: Height and width of the images.
    """
    high, wide = _scales(xp, name, spatial_shape)
    name, boxes = name.removeprefix("rel_"), xp.cast(boxes, "float32")
    first, second, third, fourth = (boxes[..., i] for i in range(4))
    if name in _ROWS_FIRST:
        first, second, third, fourth = second, first, fourth, third
    if name.startswith("center"):
        first, second = first - third / 2, second - fourth / 2
    if name.endswith(("wh", "hw")):
        third, fourth = first + third, second + fourth
    return second * high, first * wide, fourth * high, third * wide


def from_corners(xp: Namespace, corners: Sequence[Any], name: Any, spatial_shape: Any) -> Any:
    """Boxes `(B, N, 4)` float32 in a format, the inverse of `to_corners`."""
    high, wide = _scales(xp, name, spatial_shape)
    name, (top, left, bottom, right) = name.removeprefix("rel_"), corners
    first, second, third, fourth = left / wide, top / high, right / wide, bottom / high
    if name.endswith(("wh", "hw")):
        third, fourth = third - first, fourth - second
    if name.startswith("center"):
        first, second = first + third / 2, second + fourth / 2
    if name in _ROWS_FIRST:
        first, second, third, fourth = second, first, fourth, third
    return xp.stack([first, second, third, fourth], axis=-1)
