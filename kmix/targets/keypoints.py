"""Keypoints: both partners' under a blend; moved with the pixels under a paste, and marked where they do not show."""

from typing import Any

import keras

from kmix import _backend, _checks
from kmix.mixing import mix_inputs
from kmix.plan import MixPlan, Tiles
from kmix.targets import point_geometry as geometry
from kmix.targets.base import ROWS, BatchInfo, Target


@keras.saving.register_keras_serializable(package="kmix")
class Keypoints(Target):
    """Points on objects, `(B, N, K, 3)`: `K` points on each of `N` objects, with their visibility `v`, as in COCO.

    `v` is 0 for a point that is not labelled, 1 for one that is hidden, and 2 for one that shows. A point belongs to
    the pixel `(floor(x), floor(y))`, and follows it. Coordinates are moved, never clipped. What a paste leaves outside
    of the view gets `v = 0`, and what it covers `v = hidden`. Points that came with `v = 0` stay as they are, and so
    do those of a sample that is not mixed.

    The rows of the sample come first, then those of its partner: `(B, 2 N, K, 3)`, or `(B, 4 N, K, 3)` in a Mosaic.
    None is dropped. Where a partner has no share, its rows are padding: -1, with a `v` of 0.

    Points without visibility, `(B, N, K, 2)`, can be blended, and not pasted.

    Where objects have boxes, points are an entry of these, `BoundingBoxes("xyxy", keypoints=Keypoints())`: a target of
    their own would lose the order of the boxes.

    Args:
        format: What the coordinates are: `"xy"` or `"yx"` in pixels, `"rel_xy"` or `"rel_yx"` as parts of the width
            and height.
        hidden: The `v` of a point that another image covers: 0, 1 or 2.

    Raises:
        ValueError: if an argument is unknown; in a batch, if points have another shape or no signed dtype, if relative
            ones are integers, a `v` is none, or a point with `v > 0` is NaN; if points without `v` may be covered.

    Reference:
        T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, https://arxiv.org/abs/1405.0312; the
        format of its keypoints: https://cocodataset.org/#format-data

    Example:
        Two images with one object of two points each.

        >>> cutmix = kmix.CutMix(1.0, target=kmix.targets.Keypoints(), data_format="channels_last", seed=5)
        >>> points = np.array([[[[1, 1, 2], [6, 6, 2]]], [[[3, 2, 2], [0, 7, 1]]]], "float32")
        >>> _, mixed = cutmix(np.zeros((2, 8, 8, 3), "float32"), points)
        >>> mixed.shape
        (2, 2, 2, 3)
    """

    max_partners: int | None = None

    def __init__(self, format: str = "xy", *, hidden: int = 0) -> None:
        self.format: str = _checks.one_of(format, "format", geometry.FORMATS)
        self.hidden: int = _checks.integer(hidden, "hidden", 0, 3)

    def check(self, y: Any, info: BatchInfo) -> None:
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        received = f"keypoints of shape {shape} and dtype {dtype}"
        if shape is None or len(shape) != 4 or shape[-1] not in (2, 3):
            _checks.fail(
                "Keypoints have the shape (B, N, K, 3): the coordinates and the visibility of K points on N objects.",
                received,
                "Add an axis for one object, `y[:, None]`." if shape is not None and len(shape) == 3 else "",
            )
        if not ("float" in dtype or ("int" in dtype and "uint" not in dtype)):
            _checks.fail("Keypoints are signed: they may leave their image.", received, "Cast them to int32.")
        if self.format.startswith("rel_") and "float" not in dtype:
            _checks.fail(
                "Relative keypoints are floats.", received, f'If they are pixels, write `"{self.format[4:]}"`.'
            )
        if not info.pastes:
            return
        if shape[-1] == 2:
            _checks.fail(
                "A mixer that pastes hides points, which their visibility says.",
                received,
                "Add a column of visibility: `np.concatenate([y, np.full_like(y[..., :1], 2)], axis=-1)`.",
            )
        if info.spatial_shape is not None and len(info.spatial_shape) != 2:
            _checks.fail("Keypoints lie in images (B, H, W, C).", f"inputs with {len(info.spatial_shape)} spatial axes")

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        xp.require(
            _valid(y),
            "Keypoints are numbers, and their visibility is 0, 1 or 2, or -1 for padding. Received: NaN, or another "
            "visibility. Write a visibility of 0 where a point is not labelled.",
        )

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        dtype = _backend.dtype(y)
        if "float" not in dtype or xp is _backend.NUMPY or _backend.on_host(y):
            return y, weight
        # A compiled step cannot raise, so the loss must show the error.
        return xp.where(_valid(y)[..., None], y, xp.cast(float("nan"), dtype)), weight

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        parts = self._follow(xp, y, plan, info)
        more = (info.partners + 1 - len(parts)) * xp.size(y, 1)
        mixed = xp.concat(parts, axis=1)
        return (mixed if isinstance(more, int) and not more else geometry.lengthened(xp, mixed, more)), weight

    def _follow(self, xp, points, plan, info):
        """The points of the sample and of each partner, `(B, N, K, C)` each: moved, and marked where they do not show.

        Args:
            xp: Array namespace.
            points: What `encode` returned.
            plan: The `MixPlan` of the batch.
            info: The `BatchInfo`.
        """
        parts = plan.parts()
        found = [xp.take(points, part.source) for part in parts]
        if isinstance(plan.region, Tiles):
            found = [self._tiled(xp, own, part, info) for own, part in zip(found, parts, strict=True)]
        elif plan.pastes:
            found = self._pasted(xp, found, plan, info)
        if plan.pastes:
            found[0] = xp.where(xp.along(plan.lam == 1, points), points, found[0])
        for i in range(int(plan.pastes), len(parts)):
            found[i] = geometry.only(xp, found[i], ~(parts[i].share <= 0))
        if "float" not in _backend.dtype(points):
            return found
        # NaN stands for an error, and must not look like points.
        nan, lost = xp.cast(float("nan"), _backend.dtype(points)), xp.along(plan.lam != plan.lam, points)
        return [xp.where(lost, nan, part) for part in found]

    def _pasted(self, xp, taken, plan, info):
        own, partner = taken
        pixel, of_partner = (geometry.pixels(xp, points, self.format, info.spatial_shape) for points in taken)
        if plan.region is None:
            covered, shows = (geometry.inside(xp, each, plan.box) for each in (pixel, of_partner))
        else:
            mask = _region(xp, plan, info.spatial_shape)
            covered, shows = (geometry.under(xp, each, mask) for each in (pixel, of_partner))
        lost = covered | ~geometry.in_view(xp, pixel, info.spatial_shape)
        own = geometry.marked(xp, own, lost, xp.where(covered, self.hidden, 0))
        return [own, geometry.marked(xp, partner, ~shows, 0)]

    def _tiled(self, xp, points, part, info):
        pixel = geometry.pixels(xp, points, self.format, info.spatial_shape)
        moved = [edge + xp.along(xp.cast(part.shift[:, i], "float32"), edge) for i, edge in enumerate(pixel)]
        shows = geometry.inside(xp, moved, part.window)
        points = geometry.shifted(xp, points, part.shift, self.format, info.spatial_shape)
        return geometry.marked(xp, points, ~shows, 0)

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        batch, rows, *rest = y.shape
        rows = None if rows is None else (info.partners + 1) * rows
        return keras.KerasTensor((batch, rows, *rest), dtype=y.dtype), weight

    def _weight_shape(self, y, info):
        # Sample weights belong to images.
        return _backend.static_shape(y)[:1]

    def _pad(self, xp, y):
        known = _backend.static_shape(y)[1] is not None
        return y if known else geometry.lengthened(xp, y, -xp.size(y, 1) % ROWS)

    def _crop(self, xp, mixed, y, info):
        if _backend.static_shape(y)[1] is not None:
            return mixed
        # Each partner brought its own padding.
        rows, width = xp.size(y, 1), xp.size(mixed, 1) // (info.partners + 1)
        return xp.concat([mixed[:, i * width : i * width + rows] for i in range(info.partners + 1)], axis=1)


def _valid(points):
    """Whether points are numbers, and their visibility is one, `(B, N, K)`. Those with `v = 0` may be NaN."""
    known = (points[..., 0] == points[..., 0]) & (points[..., 1] == points[..., 1])
    if points.shape[-1] == 2:
        return known
    v = points[..., 2]
    return (v == 0) | (v == -1) | (known & ((v == 1) | (v == 2)))


def _region(xp, plan, spatial_shape):
    """Where a plan pastes its region, `(B, H, W)`: the pixels that show another sample when each has its number."""
    height, width = spatial_shape
    own = xp.reshape(xp.arange(xp.size(plan.lam, 0)), (-1, 1, 1, 1))
    own = own + xp.reshape(0 * xp.arange(height * width), (1, height, width, 1))
    return (mix_inputs(own, plan) != own)[..., 0]
