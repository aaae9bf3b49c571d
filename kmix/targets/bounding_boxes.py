"""Bounding boxes: both partners' under a blend; cut, clipped and dropped under a paste."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks
from kmix.plan import MixPlan, Tiles
from kmix.targets import box_geometry as geometry
from kmix.targets import point_geometry
from kmix.targets.base import ROWS, BatchInfo, Target
from kmix.targets.box_formats import FORMATS, from_corners, to_corners
from kmix.targets.keypoints import Keypoints


class _Group(NamedTuple):
    """The boxes that one sample adds to a mixed one: which of them show, their weights, and the other entries."""

    boxes: Any
    labels: Any
    shows: Any
    weight: Any
    kept: tuple[Any, ...] = ()
    keypoints: Any = ()


@keras.saving.register_keras_serializable(package="kmix")
class BoundingBoxes(Target):
    """Boxes around objects: `{"boxes": (B, N, 4), "labels": (B, N)}`, or `"classes"` for `"labels"`.

    A box is real if its label is 0 or more; the other boxes are padding. Pad with -1: `ds.padded_batch(32,
    padding_values=...)`. A blend keeps the boxes of both partners. A paste cuts off what is covered, clips what is
    pasted, and drops boxes of which too little shows. Boxes without area, such as rows of zeros, show nothing, so they
    are dropped from samples that are mixed. The mixed boxes are padded with -1 at the end, in boxes and labels.
    A sample that is not mixed keeps the bits of its boxes.

    Args:
        format: The format of the boxes, one of Keras' names, such as `"xyxy"` or `"rel_xyxy"`.
        max_boxes: Number of boxes to return, the first real ones. By default as many as there may be: twice as many as
            a batch has, and four times as many in a Mosaic.
        min_visibility: The share of its area that must show for a box that is cut or clipped to stay, in [0, 1].
        weights: Whether to add `"weights"` `(B, N)`: the share of its image in a blend for each box, 1 for
            a box that is pasted or kept, and 0 for padding.
        keep: Names of other entries `(B, N, ...)` that move with their box, such as track ids. Padded with -1; booleans
            with False, unsigned integers with 0.
        keypoints: `Keypoints()` if there is an entry `"keypoints"` `(B, N, K, 3)`, the points on the object in each
            box. They move with the pixels, and drop with their box; those of padding are -1, with a visibility of 0.

    Raises:
        ValueError: if `format` is unknown, or `keep` names what is mixed; in a batch, if the shapes of boxes and labels
            do not match, if the dictionary has other keys, or a dtype cannot hold -1.
        TypeError: if an argument has a wrong type.

    Example:
        Two images, and the box of each.

        >>> mixup = kmix.MixUp(1.0, target=kmix.targets.BoundingBoxes("xyxy"), seed=6)
        >>> boxes = {"boxes": np.array([[[0, 0, 4, 4]], [[2, 2, 8, 8]]], "float32"), "labels": np.array([[3.0], [5.0]])}
        >>> _, mixed = mixup(np.zeros((2, 8, 8, 3), "float32"), boxes)
        >>> mixed["labels"]
        array([[3., 5.],
               [5., 3.]])
    """

    max_partners: int | None = None

    def __init__(
        self,
        format: str,
        *,
        max_boxes: int | None = None,
        min_visibility: float = 0.1,
        weights: bool = False,
        keep: Sequence[str] = (),
        keypoints: Keypoints | None = None,
    ) -> None:
        self.format: str = _checks.one_of(format, "format", FORMATS)
        self.max_boxes: int | None = None if max_boxes is None else _checks.integer(max_boxes, "max_boxes", 1)
        self.min_visibility: float = _checks.real(min_visibility, "min_visibility", 0.0, 1.0)
        self.weights: bool = _checks.boolean(weights, "weights")
        self.keep: tuple[str, ...] = _checks.names(keep, "keep")
        if len(set(self.keep)) < len(self.keep) or not {"boxes", "labels", "classes", "weights"}.isdisjoint(self.keep):
            _checks.fail(
                "`keep` names entries besides the boxes, their labels (or classes) and their weights, each once.",
                f"keep={self.keep}",
                'For example `keep=("track_id",)`.',
            )
        if "keypoints" in self.keep or not isinstance(keypoints, Keypoints | None):
            _checks.fail(
                "Keypoints move with the pixels, as their format says.",
                'keep=("keypoints",)' if "keypoints" in self.keep else f"keypoints={keypoints!r}",
                "Write `keypoints=kmix.targets.Keypoints()`.",
                ValueError if "keypoints" in self.keep else TypeError,
            )
        self.keypoints: Keypoints | None = keypoints

    def takes(self, y: Any) -> bool:
        return not isinstance(y, (list, tuple)) and not (isinstance(y, dict) and "boxes" not in y and _holds_boxes(y))

    def check(self, y: Any, info: BatchInfo) -> None:
        hint = (
            'Write `{"boxes": (B, N, 4), "labels": (B, N)}`, padded with labels of -1. If this holds no boxes, say '
            "what it is with `target=`."
        )
        keys = [name for name in ("labels", "classes") if isinstance(y, dict) and name in y]
        if len(keys) != 1 or "boxes" not in y:
            found = f"keys {sorted(map(str, y))}" if isinstance(y, dict) else f"a {type(y).__name__}"
            _checks.fail("Bounding boxes are a dictionary of boxes and their labels.", found, hint)
        entries = self._entries()
        self._check_keys(("boxes", keys[0], *entries), y)
        shapes = {name: _backend.static_shape(value) for name, value in y.items()}
        boxes, labels = shapes["boxes"], shapes[keys[0]]
        received = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        if boxes is None or labels is None or len(boxes) != 3 or boxes[-1] not in (4, None) or len(labels) != 2:
            _checks.fail("Boxes have the shape (B, N, 4), and their labels (B, N).", received, hint)
        for shape in (labels, *(shapes[name] for name in entries)):
            if shape is None or len(shape) < 2 or (None not in (boxes[1], shape[1]) and boxes[1] != shape[1]):
                _checks.fail("Each box needs one label, and one row of each entry.", received, hint)
        for name in self.keep:
            dtype = _backend.dtype(y[name])
            if not ("float" in dtype or "int" in dtype or dtype == "bool"):
                received = f"{name} of dtype {dtype}"
                _checks.fail("Entries that move with their box are numbers.", received, "Turn strings into ids.")
        for name in ("boxes", keys[0]):
            dtype = _backend.dtype(y[name])
            if not ("float" in dtype or ("int" in dtype and "uint" not in dtype)):
                _checks.fail(
                    "Boxes and their labels may be -1, for padding.", f"{name} of dtype {dtype}", "Cast them to int32."
                )
        if info.pastes and info.spatial_shape is not None and len(info.spatial_shape) != 2:
            _checks.fail(
                "Bounding boxes lie in images (B, H, W, C).", f"inputs with {len(info.spatial_shape)} spatial axes"
            )
        if self.keypoints is not None:
            self.keypoints.check(y["keypoints"], info)

    def _entries(self):
        """The names of what moves with a box, besides its label."""
        return self.keep if self.keypoints is None else (*self.keep, "keypoints")

    def _check_keys(self, known, y):
        others, lacking = [name for name in y if name not in known], [name for name in known if name not in y]
        if not others and not lacking:
            return
        hint = f"If they are entries (B, N, ...) that move with their box, write `keep={others!r}`." if others else ""
        if others == ["keypoints"]:
            hint = "If these are points on the object in each box, write `keypoints=kmix.targets.Keypoints()`."
        _checks.fail(
            "A dictionary of bounding boxes holds boxes, labels, and the entries named in `keep`.",
            f"other keys {others}" if others else f"no {lacking}",
            hint,
        )

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        if self.keypoints is not None:
            # Padding may hold anything.
            points = point_geometry.only(xp, y["keypoints"], y[_label_key(y)] >= 0)
            self.keypoints.check_values(xp, points, info)

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        if self.keypoints is None:
            return y, weight
        points, _ = self.keypoints.encode(xp, y["keypoints"], None, info)
        return {**y, "keypoints": points}, weight

    def _pad(self, xp, y):
        if _backend.static_shape(y["boxes"])[1] is not None:
            return y
        more = -xp.size(y["boxes"], 1) % ROWS
        padded = {name: y[name] for name in y if name != "keypoints"}
        padded = {name: _lengthened(xp, value, more, self._padding(value)) for name, value in padded.items()}
        if self.keypoints is not None:
            padded["keypoints"] = point_geometry.lengthened(xp, y["keypoints"], more)
        return padded

    def _crop(self, xp, mixed, y, info):
        if self.max_boxes or _backend.static_shape(y["boxes"])[1] is not None:
            return mixed
        width = (info.partners + 1) * xp.size(y["boxes"], 1)
        return {name: value[:, :width] for name, value in mixed.items()}

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        label = _label_key(y)
        group = _Group(y["boxes"], y[label], None, None, tuple(y[name] for name in self.keep))
        if not plan.pastes:
            groups = self._blended(xp, group, plan, info)
        elif plan.region is None:
            groups = self._pasted(xp, group, plan, info)
        elif isinstance(plan.region, Tiles):
            groups = self._tiled(xp, group, plan, info)
        else:
            _checks.fail(
                "To move bounding boxes with what a mixer pastes, its region must be `kmix.plan.Tiles`.",
                f"a {type(plan.region).__name__}",
                "Write a callable target.",
            )
        if self.keypoints is not None:
            followed = self.keypoints._follow(xp, y["keypoints"], plan, info)
            groups = [group._replace(keypoints=points) for group, points in zip(groups, followed, strict=True)]
        joined = keras.tree.map_structure(lambda *leaves: xp.concat(list(leaves), axis=1), *groups)
        if "float" in _backend.dtype(joined.boxes):
            # NaN stands for an error, and must not look like an image without boxes.
            lost, nan = plan.lam != plan.lam, xp.cast(float("nan"), _backend.dtype(joined.boxes))
            shows = joined.shows | (xp.along(lost, joined.labels) & (joined.labels >= 0))
            joined = joined._replace(boxes=xp.where(xp.along(lost, joined.boxes), nan, joined.boxes), shows=shows)
        wanted = self.max_boxes or (info.partners + 1) * xp.size(y[label], 1)
        return self._packed(xp, joined, label, wanted), weight

    def _blended(self, xp, group, plan, info):
        real = (group.labels >= 0) & (_has_area(group.boxes, self.format) | (xp.along(plan.lam, group.labels) == 1))
        groups = []
        for part in plan.parts():
            share = xp.along(xp.cast(part.share, "float32"), group.labels) + xp.cast(0 * group.labels, "float32")
            taken = _taken(xp, group._replace(shows=real, weight=share), part.source)
            groups.append(taken._replace(shows=taken.shows & (share > 0), weight=share))
        return groups

    def _pasted(self, xp, group, plan, info):
        corners = self._corners(xp, group.boxes, info.spatial_shape)
        window = geometry.columns(xp, plan.box, range(4))
        lam = xp.along(xp.cast(plan.lam, "float32"), group.labels)
        kept, hidden = geometry.outside(xp, corners, window), geometry.intersection(xp, corners, window)
        share = 1.0 - geometry.ratio(xp, hidden, corners)
        # A box outside of its image shows nothing, but stays if nothing is mixed.
        enters, unmixed = (lam == 1) | ((lam > 0) & geometry.shows(corners)), lam == 1
        own = self._group(xp, group, kept, share, unmixed | (geometry.area(xp, hidden) <= 0), enters, info)
        partner = _taken(xp, group, plan.permutation)
        corners = tuple(xp.take(edge, plan.permutation) for edge in corners)
        shown = geometry.intersection(xp, corners, window)
        unchanged = self._alike(xp, partner.boxes, shown, info.spatial_shape)
        return [own, self._group(xp, partner, shown, geometry.ratio(xp, shown, corners), unchanged, lam < 1, info)]

    def _tiled(self, xp, group, plan, info):
        corners = self._corners(xp, group.boxes, info.spatial_shape)
        groups = []
        for part in plan.parts():
            moved, window = geometry.columns(xp, part.shift, (0, 1, 0, 1)), geometry.columns(xp, part.window, range(4))
            taken = tuple(xp.take(edge, part.source) + moved[i] for i, edge in enumerate(corners))
            shown, share = geometry.intersection(xp, taken, window), xp.along(part.share, group.labels)
            own = _taken(xp, group, part.source)
            # A sample that is not mixed shows all of its image.
            groups.append(self._group(xp, own, shown, geometry.ratio(xp, shown, taken), share == 1, share > 0, info))
        return groups

    def _corners(self, xp, boxes, spatial_shape):
        """The corners in pixels, clipped to the image."""
        height, width = (xp.cast(size, "float32") for size in spatial_shape)
        top, left, bottom, right = to_corners(xp, boxes, self.format, spatial_shape)

        def clip(edge, size):
            return xp.math.minimum(xp.math.maximum(edge, xp.cast(0.0, "float32")), size)

        return clip(top, height), clip(left, width), clip(bottom, height), clip(right, width)

    def _alike(self, xp, boxes, corners, spatial_shape):
        """Whether boxes are the same as their visible part."""
        edges = to_corners(xp, boxes, self.format, spatial_shape)
        close = [xp.math.maximum(a - b, b - a) <= geometry.TOLERANCE for a, b in zip(edges, corners, strict=True)]
        # The tolerance would keep a box of a thousandth of a pixel, of which nothing shows.
        return close[0] & close[1] & close[2] & close[3] & (geometry.area(xp, corners) > 0)

    def _group(self, xp, group, corners, share, unchanged, enters, info):
        """Boxes cut to their visible corners; with their bits if they are `unchanged`."""
        boxes, labels = group.boxes, group.labels
        new = from_corners(xp, corners, self.format, info.spatial_shape)
        dtype = _backend.dtype(boxes)
        if "int" in dtype:
            new = xp.math.floor(new + 0.5)
        boxes = xp.where(unchanged[..., None], boxes, xp.cast(new, dtype))
        remains = geometry.shows(corners) & (share >= self.min_visibility - 1e-6)
        shows = (labels >= 0) & (unchanged | remains) & enters
        return _Group(boxes, labels, shows, xp.cast(0 * labels, "float32") + 1.0, group.kept)

    def _packed(self, xp, group, label, wanted):
        """The boxes that show first, in their order, then padding: `wanted` boxes in all."""
        total = xp.size(group.labels, 1)
        position = xp.cast(xp.arange(total), "int32")
        order = xp.argsort(xp.where(group.shows, position, position + total))[:, :wanted]
        shows = xp.pick(xp.cast(group.shows, "int32"), order) > 0
        known = isinstance(wanted, int) and isinstance(total, int)
        lacking = max(0, wanted - total) if known else xp.math.maximum(wanted - xp.size(order, 1), 0)

        def packed(leaf, value):
            trailing = _backend.static_shape(leaf)[2:]
            # Entry by entry: `pick` looks up along the last axis.
            if trailing:
                columns = [packed(leaf[:, :, i], value) for i in range(trailing[0])]
                return xp.stack(columns, axis=2)
            leaf = xp.where(shows, xp.pick(leaf, order), xp.cast(value, _backend.dtype(leaf)))
            return leaf if known and not lacking else _lengthened(xp, leaf, lacking, value)

        found = {"boxes": packed(group.boxes, -1), label: packed(group.labels, -1)}
        found |= {name: packed(leaf, self._padding(leaf)) for name, leaf in zip(self.keep, group.kept, strict=True)}
        if self.keypoints is not None:
            points = point_geometry.only(xp, point_geometry.taken(xp, group.keypoints, order), shows)
            found["keypoints"] = point_geometry.lengthened(xp, points, lacking)
        return {**found, "weights": packed(group.weight, 0)} if self.weights else found

    def _padding(self, leaf):
        dtype = _backend.dtype(leaf)
        return 0 if dtype == "bool" or "uint" in dtype else -1

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        batch, width = y["boxes"].shape[0], self.max_boxes
        if width is None and y["boxes"].shape[1] is not None:
            width = (info.partners + 1) * y["boxes"].shape[1]
        spec = {name: keras.KerasTensor((batch, width, *leaf.shape[2:]), dtype=leaf.dtype) for name, leaf in y.items()}
        if self.weights:
            spec["weights"] = keras.KerasTensor((batch, width), dtype="float32")
        return spec, weight

    def _weight_shape(self, y, info):
        # Sample weights belong to images.
        return _backend.static_shape(y["boxes"])[:1]


def _label_key(y):
    return "labels" if "labels" in y else "classes"


def _holds_boxes(y):
    return isinstance(y, dict) and ("boxes" in y or any(map(_holds_boxes, y.values())))


def _has_area(boxes, name):
    """Whether boxes have a height and a width, in any unit."""
    if name.endswith(("wh", "hw")):
        return (boxes[..., 2] > 0) & (boxes[..., 3] > 0)
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def _taken(xp, group, source):
    """The boxes of the samples at `source`."""
    return keras.tree.map_structure(lambda leaf: None if leaf is None else xp.take(leaf, source), group)


def _lengthened(xp, leaf, count, value):
    """An array `(B, N, ...)` with `count` more columns of a value."""
    trailing = _backend.static_shape(leaf)[2:]
    if trailing:
        return xp.stack([_lengthened(xp, leaf[:, :, i], count, value) for i in range(trailing[0])], axis=2)
    dtype = _backend.dtype(leaf)
    rows = xp.reshape(0 * xp.sum(xp.cast(leaf == leaf, "int32"), axis=1), (-1, 1))
    zeros = rows + xp.reshape(0 * xp.cast(xp.arange(count), "int32"), (1, -1))
    return xp.concat([leaf, xp.cast(zeros + value, dtype)], axis=1)
