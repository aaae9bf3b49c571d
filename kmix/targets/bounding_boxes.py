"""Bounding boxes: both partners' under a blend; cut, clipped and dropped under a paste."""

from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks
from kmix.targets import box_geometry as geometry
from kmix.targets.box_formats import FORMATS, from_corners, to_corners
from kmix.targets.target import Target, register

tree = keras.tree

_OTHERWISE = 'If it holds no boxes, say what it is: `target="labels"`, `target="keep"` or a callable.'
# A number of boxes that is not known is padded to a multiple of this.
_STEP = 16


class _Part(NamedTuple):
    """The boxes that one image of the batch adds to a mixed one, and which of them show."""

    boxes: Any
    labels: Any
    shows: Any
    weight: Any


@register("bounding_boxes")
class BoundingBoxes(Target):
    """Boxes around objects: `{"boxes": (B, N, 4), "labels": (B, N)}`, or `"classes"` for `"labels"`.

    A box is real if its label is 0 or more; the other boxes are padding. A blend keeps the boxes of both partners. A
    paste cuts off what is covered, clips what is pasted, and drops boxes of which too little shows. The mixed boxes
    are padded with -1 at the end, in boxes and labels.

    Args:
        y: The dictionary of boxes and labels. Their dtypes are kept.
        bounding_box_format: The format of the boxes, one of Keras' names, such as `"xyxy"` or `"rel_xyxy"`.
        max_boxes: Number of boxes to return, the first real ones. By default as many as there may be: twice as many as
            a batch has, and four times as many in a Mosaic.
        min_visibility: The share of its area that must show for a box that is cut or clipped to stay, in [0, 1].
        bounding_box_weights: Whether to add `"weights"` `(B, N)`: the share of its image in a blend for each box, 1 for
            a box that is pasted or kept, and 0 for padding.
        images_shown: How many images may show in a mixed one.
        passthrough: Other keys of the dictionary, which stay unchanged.
        pasted: As for `Target`.

    Raises:
        ValueError: if there is no format, if the shapes of boxes and labels do not match, or if the dictionary has
            other keys.

    Example: two images, and the box of each.

    >>> mixup = kmix.MixUp(1.0, bounding_box_format="xyxy", seed=6)
    >>> boxes = {"boxes": np.array([[[0, 0, 4, 4]], [[2, 2, 8, 8]]], "float32"), "labels": np.array([[3.0], [5.0]])}
    >>> _, mixed = mixup(np.zeros((2, 8, 8, 3), "float32"), boxes)
    >>> mixed["labels"]
    array([[3., 5.],
           [5., 3.]])
    """

    arguments = {"bounding_box_format": None, "max_boxes": None, "min_visibility": 0.1, "bounding_box_weights": False}
    settings = ("images_shown", "passthrough")
    mixes_views = True
    # The number of boxes before `pad`.
    _number: Any = None

    def __init__(
        self,
        y,
        *,
        bounding_box_format,
        max_boxes,
        min_visibility,
        bounding_box_weights,
        images_shown,
        passthrough,
        pasted=None,
    ):
        super().__init__(y, pasted=pasted)
        self.format, self.max_boxes, self.min_visibility = bounding_box_format, max_boxes, min_visibility
        self.weights, self.images_shown = bounding_box_weights, images_shown
        self.key = _check_form(y, passthrough)
        if bounding_box_format is None:
            _checks.fail(
                "To mix bounding boxes, their format must be known.",
                "boxes without `bounding_box_format`",
                f"Write `bounding_box_format=` with one of {', '.join(map(repr, FORMATS))}. {_OTHERWISE}",
            )
        if pasted is not None and len(pasted) != 2:
            _checks.fail("Bounding boxes lie in images (B, H, W, C).", f"inputs with {len(pasted)} spatial axes")

    @classmethod
    def check_arguments(cls, given):
        name, number = given["bounding_box_format"], given["max_boxes"]
        if name is not None:
            _checks.one_of(name, "bounding_box_format", FORMATS)
        return {
            "bounding_box_format": name,
            "max_boxes": None if number is None else _checks.integer(number, "max_boxes", 1),
            "min_visibility": _checks.real(given["min_visibility"], "min_visibility", 0.0, 1.0),
            "bounding_box_weights": bool(given["bounding_box_weights"]),
        }

    def pad(self, xp, y):
        boxes, labels = y["boxes"], y[self.key]
        if _backend.static_shape(labels)[1] is not None:
            return y
        self._number = xp.size(labels, 1)
        more = -self._number % _STEP
        columns = [_lengthened(xp, boxes[..., i], more, -1.0) for i in range(4)]
        return {**y, "boxes": xp.stack(columns, axis=-1), self.key: _lengthened(xp, labels, more, -1.0)}

    def crop(self, xp, y):
        if self._number is None or self.max_boxes:
            return y
        keys = ("boxes", self.key, *(["weights"] if self.weights else []))
        return {**y, **{key: y[key][:, : self.images_shown * self._number] for key in keys}}

    def mix(self, xp, y, plan, weights):
        boxes, labels = y["boxes"], y[self.key]
        if plan.box is None and plan.region is None:
            parts = self._blended(xp, boxes, labels, plan)
        elif plan.region is None:
            parts = self._pasted(xp, boxes, labels, plan)
        elif hasattr(plan.region, "views"):
            parts = self._viewed(xp, boxes, labels, plan.region.views(xp))
        else:
            _checks.fail(
                "A region must have `views`, see `kmix.plan.View`, to move bounding boxes with what it pastes.",
                f"a {type(plan.region).__name__}",
                "Add that method, or write a callable target.",
            )
        joined = _Part(*(xp.concat(list(leaves), axis=1) for leaves in zip(*parts, strict=True)))
        return {**y, **self._packed(xp, joined, xp.size(labels, 1))}

    def _blended(self, xp, boxes, labels, plan):
        real, lam = labels >= 0, xp.along(xp.cast(plan.lam, "float32"), labels)
        share, taken = lam + xp.cast(0 * labels, "float32"), plan.permutation
        return [
            _Part(boxes, labels, real & (lam > 0), share),
            _Part(xp.take(boxes, taken), xp.take(labels, taken), xp.take(real, taken) & (lam < 1), 1.0 - share),
        ]

    def _pasted(self, xp, boxes, labels, plan):
        corners, window = self._corners(xp, boxes), geometry.columns(xp, plan.box, range(4))
        lam = xp.along(xp.cast(plan.lam, "float32"), labels)
        kept, hidden = geometry.outside(xp, corners, window), geometry.intersection(xp, corners, window)
        share = 1.0 - geometry.ratio(xp, hidden, corners)
        # A box outside of its image shows nothing, but stays where nothing is mixed.
        enters = (lam == 1) | ((lam > 0) & geometry.shows(corners))
        own = self._part(xp, boxes, labels, kept, share, geometry.area(xp, hidden) <= 0, enters)
        boxes, labels = xp.take(boxes, plan.permutation), xp.take(labels, plan.permutation)
        corners = tuple(xp.take(edge, plan.permutation) for edge in corners)
        shown = geometry.intersection(xp, corners, window)
        partner = self._part(
            xp, boxes, labels, shown, geometry.ratio(xp, shown, corners), self._alike(xp, boxes, shown), lam < 1
        )
        return [own, partner]

    def _viewed(self, xp, boxes, labels, views):
        corners = self._corners(xp, boxes)
        parts = []
        for view in views:
            moved, window = geometry.columns(xp, view.shift, (0, 1, 0, 1)), geometry.columns(xp, view.window, range(4))
            taken = tuple(xp.take(edge, view.source) + moved[i] for i, edge in enumerate(corners))
            shown, share = geometry.intersection(xp, taken, window), xp.along(view.share, labels)
            own = xp.take(boxes, view.source), xp.take(labels, view.source)
            # A sample that is not mixed shows all of its image.
            parts.append(self._part(xp, *own, shown, geometry.ratio(xp, shown, taken), share == 1, share > 0))
        return parts

    def _corners(self, xp, boxes):
        """The corners in pixels, clipped to the image."""
        height, width = (xp.cast(size, "float32") for size in self.spatial_shape)
        top, left, bottom, right = to_corners(xp, boxes, self.format, self.spatial_shape)

        def clip(edge, size):
            return xp.math.minimum(xp.math.maximum(edge, xp.cast(0.0, "float32")), size)

        return clip(top, height), clip(left, width), clip(bottom, height), clip(right, width)

    def _alike(self, xp, boxes, corners):
        """Whether boxes are the same as their visible part."""
        edges = to_corners(xp, boxes, self.format, self.spatial_shape)
        close = [xp.math.maximum(a - b, b - a) <= geometry.TOLERANCE for a, b in zip(edges, corners, strict=True)]
        # The tolerance would keep a box of a thousandth of a pixel, of which nothing shows.
        return close[0] & close[1] & close[2] & close[3] & (geometry.area(xp, corners) > 0)

    def _part(self, xp, boxes, labels, corners, share, untouched, enters):
        """Boxes with their visible corners, or as they are where they are `untouched`."""
        new = from_corners(xp, corners, self.format, self.spatial_shape)
        dtype = _backend.dtype(boxes)
        if "int" in dtype:
            new = xp.math.floor(new + 0.5)
        boxes = xp.where(untouched[..., None], boxes, xp.cast(new, dtype))
        remains = geometry.shows(corners) & (share >= self.min_visibility - 1e-6)
        shows = (labels >= 0) & (untouched | remains) & enters
        return _Part(boxes, labels, shows, xp.cast(0 * labels, "float32") + 1.0)

    def _packed(self, xp, part, n):
        """The real boxes first, in their order, then padding."""
        total, wanted = xp.size(part.labels, 1), self.max_boxes or self.images_shown * n
        position = xp.cast(xp.arange(total), "int32")
        order = xp.argsort(xp.where(part.shows, position, position + total))[:, :wanted]
        shows = xp.pick(xp.cast(part.shows, "int32"), order) > 0
        known = isinstance(wanted, int) and isinstance(total, int)
        lacking = max(0, wanted - total) if known else xp.math.maximum(wanted - xp.size(order, 1), 0)

        def packed(leaf, value):
            leaf = xp.where(shows, xp.pick(leaf, order), xp.cast(value, _backend.dtype(leaf)))
            return leaf if known and not lacking else _lengthened(xp, leaf, lacking, value)

        columns = [packed(part.boxes[..., i], -1.0) for i in range(4)]
        found = {"boxes": xp.stack(columns, axis=-1), self.key: packed(part.labels, -1.0)}
        return {**found, "weights": packed(part.weight, 0.0)} if self.weights else found

    def spec(self, y):
        width = self.max_boxes or (None if y["boxes"].shape[1] is None else self.images_shown * y["boxes"].shape[1])
        batch = y["boxes"].shape[0]
        spec = {name: keras.KerasTensor(leaf.shape, dtype=leaf.dtype) for name, leaf in y.items()}
        spec["boxes"] = keras.KerasTensor((batch, width, 4), dtype=y["boxes"].dtype)
        spec[self.key] = keras.KerasTensor((batch, width), dtype=y[self.key].dtype)
        if self.weights:
            spec["weights"] = keras.KerasTensor((batch, width), dtype="float32")
        return spec

    def shapes(self, y):
        # Sample weights belong to images.
        return [(_backend.static_shape(y["boxes"])[0],) for _ in tree.flatten(y)]


def _check_form(y, passthrough):
    """The key of the labels in a dictionary of boxes, or raise if it does not hold boxes and labels that match."""
    hint = f'Write `{{"boxes": (B, N, 4), "labels": (B, N)}}`, padded with labels of -1. {_OTHERWISE}'
    keys = [name for name in ("labels", "classes") if isinstance(y, dict) and name in y]
    if len(keys) != 1 or "boxes" not in y:
        found = f"keys {sorted(map(str, y))}" if isinstance(y, dict) else f"a {type(y).__name__}"
        _checks.fail("Bounding boxes are a dictionary of boxes and their labels.", found, hint)
    others = [name for name in y if name not in ("boxes", *keys, *passthrough)]
    if others:
        _checks.fail(
            "A dictionary of bounding boxes holds boxes and labels.",
            f"other keys {others}",
            f"Name them to pass them through unmixed: `passthrough={others!r}`.",
        )
    boxes, labels = (_backend.static_shape(y[name]) for name in ("boxes", keys[0]))
    received = f"boxes of shape {boxes} and {keys[0]} of shape {labels}"
    if boxes is None or labels is None or len(boxes) != 3 or boxes[-1] not in (4, None) or len(labels) != 2:
        _checks.fail("Boxes have the shape (B, N, 4), and their labels (B, N).", received, hint)
    if None not in (boxes[1], labels[1]) and boxes[1] != labels[1]:
        _checks.fail("Each box needs one label.", received, hint)
    dtype = _backend.dtype(y[keys[0]])
    if not ("float" in dtype or ("int" in dtype and "uint" not in dtype)):
        _checks.fail("Labels of boxes may be -1, for padding.", f"{keys[0]} of dtype {dtype}", "Cast them to int32.")
    return keys[0]


def _lengthened(xp, leaf, count, value):
    """An array `(B, N)` with `count` more columns of a value."""
    dtype = _backend.dtype(leaf)
    rows = xp.reshape(0 * xp.sum(xp.cast(leaf >= 0, "int32"), axis=1), (-1, 1))
    zeros = rows + xp.reshape(0 * xp.cast(xp.arange(count), "int32"), (1, -1))
    return xp.concat([leaf, xp.cast(zeros, dtype) + xp.cast(value, dtype)], axis=1)
