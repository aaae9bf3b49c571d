"""Instance masks: an object, its mask, its label and its box stay together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks
from kmix.mixing import mix_inputs
from kmix.mixing.objects import NOTHING, WHOLE, Objects, areas, corners, gather, visible_areas
from kmix.plan import MixPlan, Tiles
from kmix.targets import point_geometry
from kmix.targets.base import ROWS, BatchInfo, Target
from kmix.targets.bounding_boxes import _lengthened
from kmix.targets.box_formats import FORMATS, from_corners
from kmix.targets.keypoints import Keypoints
from kmix.targets.segmentation_masks import _spatial_sizes


class _Group(NamedTuple):
    """The objects that one part of a plan adds to each sample.

    Attributes:
        source: int `(B,)`: the sample to which they belong.
        index: int `(B, N)`: the number of their masks.
        view: int `(B, N)`: the part in which each shows, see `objects.gather`.
        shows, changed: bool `(B, N)`: whether each shows, and whether its box is another.
    """

    source: Any
    index: Any
    view: Any
    shows: Any
    changed: Any


@keras.saving.register_keras_serializable(package="kmix")
class InstanceMasks(Target):
    """Objects with a mask each: `{"masks": (B, N, H, W), "labels": (B, N)}`, and boxes `(B, N, 4)` if they have any.

    An object is real if its label is 0 or more; the others are padding. Masks are booleans or integers, and what is not
    0 lies inside. Under a `kmix.CopyPaste` objects are pasted; a CutMix or a Mosaic cuts and moves their masks; a blend
    keeps the objects of both partners. Objects of which too little is left are dropped, and so are empty masks from
    samples that are mixed. The mixed objects are those of the sample first, then those of its partners, then padding:
    -1, with empty masks. Objects of which nothing is hidden keep the bits of their masks and boxes. The box of any
    other is found anew, from the first to the last pixel of its mask.

    Args:
        format: The format of the boxes, one of Keras' names, such as `"xyxy"` or `"rel_xyxy"`. None without boxes.
        max_instances: Number of objects to return, at least as many as a batch has. By default as many as there may be:
            twice as many as a batch has, and four times as many in a Mosaic. A CopyPaste pastes only as many as there
            are places besides all objects of the sample, so that none is shown without its label. Other mixers return
            the first ones.
        min_visibility: The share of the pixels of its mask that must show for an object that is cut to stay, in [0, 1].
        crowd: Name of an entry `(B, N)` that is not 0 for masks of many objects, such as COCO's `"iscrowd"`: these are
            never pasted.
        keep: Names of other entries `(B, N, ...)` that move with their object, such as track ids. Padded with -1;
            booleans with False, unsigned integers with 0.
        keypoints: `Keypoints()` if there is an entry `"keypoints"` `(B, N, K, 3)`, the points on each object. They move
            with the pixels, and drop with their object; those of padding are -1, with a visibility of 0.

    Raises:
        ValueError: if `format` is unknown, or `keep` names what is mixed; in a batch, if the shapes of masks, labels
            and boxes do not match, or masks have other sizes than the images; if the dictionary has other keys; if a
            dtype cannot hold -1, or masks are floats.
        TypeError: if an argument has a wrong type.

    Example:
        Two images, with an object in the upper half of the first and in the left half of the second.

        >>> masks = np.zeros((2, 1, 4, 4), bool)
        >>> masks[0, 0, :2], masks[1, 0, :, :2] = True, True
        >>> boxes = np.array([[[0, 0, 4, 2]], [[0, 0, 2, 4]]], "float32")
        >>> instances = {"masks": masks, "labels": np.array([[3], [5]]), "boxes": boxes}
        >>> target = kmix.targets.InstanceMasks("xyxy")
        >>> layer = kmix.CopyPaste(instance_rate=1.0, target=target, data_format="channels_last", seed=2)
        >>> _, mixed = layer(np.zeros((2, 4, 4, 3), "uint8"), instances)
        >>> mixed["boxes"][0]
        array([[2., 0., 4., 2.],
               [0., 0., 2., 4.]], dtype=float32)
    """

    max_partners: int | None = None

    def __init__(
        self,
        format: str | None = None,
        *,
        max_instances: int | None = None,
        min_visibility: float = 0.1,
        crowd: str | None = None,
        keep: Sequence[str] = (),
        keypoints: Keypoints | None = None,
    ) -> None:
        self.format: str | None = None if format is None else _checks.one_of(format, "format", FORMATS)
        self.max_instances: int | None = (
            None if max_instances is None else _checks.integer(max_instances, "max_instances", 1)
        )
        self.min_visibility: float = _checks.real(min_visibility, "min_visibility", 0.0, 1.0)
        if crowd is not None and not isinstance(crowd, str):
            _checks.fail("`crowd` must be the name of an entry.", f"crowd={crowd!r}", error=TypeError)
        self.crowd: str | None = crowd
        self.keep: tuple[str, ...] = _checks.names(keep, "keep")
        if not isinstance(keypoints, Keypoints | None):
            _checks.fail(
                "Keypoints move with the pixels, as their format says.",
                f"keypoints={keypoints!r}",
                "Write `keypoints=kmix.targets.Keypoints()`.",
                TypeError,
            )
        self.keypoints: Keypoints | None = keypoints
        names = self._entries()
        if len(set(names)) < len(names) or not {"masks", "labels", "boxes", "keypoints"}.isdisjoint(names):
            _checks.fail(
                "`crowd` and `keep` name entries besides the masks, their labels and boxes, each once.",
                f"crowd={crowd!r}, keep={self.keep}",
                'For example `keep=("track_id",)`.',
            )

    def _entries(self):
        """The names of the entries that move with their object."""
        return self.keep if self.crowd is None else (self.crowd, *self.keep)

    def takes(self, y: Any) -> bool:
        return not isinstance(y, (list, tuple)) and not (isinstance(y, dict) and "masks" not in y and _holds_masks(y))

    def check(self, y: Any, info: BatchInfo) -> None:
        wanted = ("masks", "labels", *(["boxes"] if self.format else []), *self._entries())
        wanted += () if self.keypoints is None else ("keypoints",)
        self._check_names(y, wanted)
        shapes = {name: _backend.static_shape(y[name]) for name in wanted}
        received = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        ranks = {"masks": 4, "labels": 2, "boxes": 3, self.crowd: 2}
        for name, shape in shapes.items():
            if shape is None or len(shape) < 2 or len(shape) != ranks.get(name, len(shape)):
                _checks.fail(
                    "Instance masks have the shape (B, N, H, W), their labels (B, N) and their boxes (B, N, 4).",
                    received,
                    "Pad the objects of an image with labels of -1 and empty masks. If this holds no objects, say what "
                    "it is with `target=`.",
                )
        count = {shape[1] for shape in shapes.values()} - {None}
        if len(count) > 1 or shapes.get("boxes", (4,))[-1] not in (4, None):
            _checks.fail("Each object needs one mask, one label, and one row of each entry.", received)
        if self.max_instances is not None and max(count, default=0) > self.max_instances:
            _checks.fail(_TOO_FEW, f"max_instances={self.max_instances} and {received}")
        self._check_dtypes(y)
        if self.keypoints is not None:
            self.keypoints.check(y["keypoints"], info)
        if info.pastes and info.spatial_shape is not None and len(info.spatial_shape) != 2:
            _checks.fail(
                "Instance masks lie in images (B, H, W, C).", f"inputs with {len(info.spatial_shape)} spatial axes"
            )
        sizes = _spatial_sizes(info)
        if sizes and not any(_fits(shapes["masks"][2:], each) for each in sizes):
            _checks.fail(
                "Instance masks (B, N, H, W) must have the height and width of the images.",
                f"{received}, and inputs of shapes {', '.join(map(str, info.input_shapes))}",
                "Resize them with the images, by the nearest neighbour. The objects come before the height."
                + ' If the channels come first, write `data_format="channels_first"`.' * (info.data_format is not None),
            )

    def _check_names(self, y, wanted):
        if not isinstance(y, dict) or not {"masks", "labels"} <= set(y):
            found = f"keys {sorted(map(str, y))}" if isinstance(y, dict) else f"a {type(y).__name__}"
            _checks.fail(
                "Instance masks are a dictionary of masks and the labels of the objects.",
                found,
                'Write `{"masks": (B, N, H, W), "labels": (B, N)}`.',
            )
        if self.format is None and "boxes" in y:
            _checks.fail(
                "To mix the boxes of objects, their format must be known.",
                f"keys {sorted(map(str, y))}",
                'For example, write `InstanceMasks("xyxy")`; in a dictionary batch '
                '`target={"instances": kmix.targets.InstanceMasks("xyxy")}`.',
            )
        others, lacking = [name for name in y if name not in wanted], [name for name in wanted if name not in y]
        hint = (
            f"If they are entries (B, N, ...) that move with their object, write `keep={others!r}`." if others else ""
        )
        if others == ["keypoints"]:
            hint = "If these are points on each object, write `keypoints=kmix.targets.Keypoints()`."
        if others or lacking:
            _checks.fail(
                "A dictionary of instance masks holds masks, labels, boxes if they have a `format`, and the entries "
                "named in `crowd` and `keep`.",
                f"other keys {others}" if others else f"no {lacking}",
                hint,
            )

    def _check_dtypes(self, y):
        dtypes = {name: _backend.dtype(value) for name, value in y.items()}
        if not ("int" in dtypes["masks"] or dtypes["masks"] == "bool"):
            _checks.fail(
                "Masks of objects are booleans or integers.",
                f"masks of dtype {dtypes['masks']}",
                "Write `masks > 0.5` for probabilities.",
            )
        for name in {"labels", "boxes"} & set(y):
            if not ("float" in dtypes[name] or ("int" in dtypes[name] and "uint" not in dtypes[name])):
                _checks.fail(
                    "Labels and boxes of objects may be -1, for padding.",
                    f"{name} of dtype {dtypes[name]}",
                    "Cast them to int32.",
                )
        for name in self._entries():
            if not ("float" in dtypes[name] or "int" in dtypes[name] or dtypes[name] == "bool"):
                _checks.fail(
                    "Entries that move with their object are numbers.",
                    f"{name} of dtype {dtypes[name]}",
                    "Turn strings into ids.",
                )

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        count = xp.size(y["labels"], 1)
        if self.max_instances is not None and not isinstance(count, int):
            xp.require(count <= self.max_instances, _TOO_FEW)
        if info.pastes and info.spatial_shape is not None:
            for size, axis in zip(info.spatial_shape, (2, 3), strict=True):
                if not (isinstance(size, int) and isinstance(xp.size(y["masks"], axis), int)):
                    xp.require(xp.size(y["masks"], axis) == size, "Instance masks must have the sizes of the images.")

        if self.keypoints is not None:
            # Padding may hold anything.
            points = point_geometry.only(xp, y["keypoints"], y["labels"] >= 0)
            self.keypoints.check_values(xp, points, info)

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        if self.keypoints is None:
            return y, weight
        points, _ = self.keypoints.encode(xp, y["keypoints"], None, info)
        return {**y, "keypoints": points}, weight

    def _pad(self, xp, y):
        if _backend.static_shape(y["labels"])[1] is not None:
            return y
        more = -xp.size(y["labels"], 1) % ROWS
        return {name: self._longer(xp, name, value, more) for name, value in y.items()}

    def _crop(self, xp, mixed, y, info):
        if self.max_instances or _backend.static_shape(y["labels"])[1] is not None:
            return mixed
        width = (info.partners + 1) * xp.size(y["labels"], 1)
        return {name: value[:, :width] for name, value in mixed.items()}

    def _longer(self, xp, name, leaf, more):
        """An entry with so many more rows of padding."""
        if name == "keypoints" and self.keypoints is not None:
            return point_geometry.lengthened(xp, leaf, more)
        if name != "masks":
            return _lengthened(xp, leaf, more, _padding(leaf))
        size, _, height, width = (xp.size(leaf, axis) for axis in range(4))
        empty = xp.cast(0 * xp.arange(size * more * height * width), _backend.dtype(leaf))
        return xp.concat([leaf, xp.reshape(empty, (size, more, height, width))], axis=1)

    def _pasted(self, xp, y, area, chosen, permutation):
        """Which objects of the partner are pasted, bool `(B, N)`, among the `chosen` `(B, N)`."""
        real = y["labels"] >= 0
        can = area > 0
        if self.crowd is not None:
            can = can & (y[self.crowd] == 0)
        pasted, count = chosen & xp.take(can, permutation), xp.size(y["labels"], 1)
        if self.max_instances is None or (isinstance(count, int) and 2 * count <= self.max_instances):
            return pasted
        # The number of objects before each.
        order = xp.arange(count)
        before = xp.sum(xp.cast(pasted[:, None] & (order < xp.reshape(order, (-1, 1))), "int32"), axis=2)
        places = self.max_instances - xp.sum(xp.cast(real, "int32"), axis=1)
        return pasted & (before < places[:, None])

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        masks, shown = y["masks"], _shown(xp, y["masks"], plan)
        area = plan.region.area if isinstance(plan.region, Objects) else areas(xp, masks, y["labels"] >= 0)
        if isinstance(plan.region, Tiles):
            # Each pixel from the image that shows there.
            masks = mix_inputs(masks, plan, data_format="channels_first")
        groups = [
            self._group(xp, y["labels"], masks, area, plan, shown, number, part)
            for number, part in enumerate(plan.parts())
        ]
        return self._packed(xp, y, masks, plan, shown, groups, info), weight

    def _group(self, xp, labels, masks, area, plan, shown, number, part):
        """The objects that a part of the plan adds: number 0 is the sample itself."""
        source, own = xp.cast(part.source, "int32"), xp.cast(xp.arange(xp.size(labels, 0)), "int32")
        tiled, pasted = isinstance(plan.region, Tiles), isinstance(plan.region, Objects) and number > 0
        rows = own if tiled or number == 0 else source
        area, real = xp.take(area, source), xp.take(labels >= 0, source)
        mixed = xp.along(plan.lam != 1.0, labels)
        if shown is None or pasted:
            visible = xp.where(plan.region.pasted if pasted else xp.along(part.share > 0, labels), area, 0)
        else:
            visible = visible_areas(xp, masks, shown == number, real & mixed, *([] if rows is own else [rows]))
        least = (self.min_visibility - 1e-6) * xp.cast(area, "float32")
        shows = real & (visible > 0) & (xp.cast(visible, "float32") >= least)
        # A sample that is not mixed keeps its empty masks.
        shows = xp.where(mixed, shows, real) if number == 0 else shows & mixed
        # NaN stands for an error, and must not look like an image without objects.
        shows = shows | (real & xp.along(plan.lam != plan.lam, labels))
        changed = mixed & ((visible < area) | tiled)
        index = xp.reshape(rows, (-1, 1)) * xp.size(labels, 1) + xp.arange(xp.size(labels, 1))
        view = xp.where(changed, number, WHOLE)
        return _Group(source, xp.cast(index, "int32"), xp.cast(view, "int32"), shows, changed)

    def _packed(self, xp, y, masks, plan, shown, groups, info):
        """The objects that show first, in their order, then padding."""
        count, total = xp.size(y["labels"], 1), len(groups) * xp.size(y["labels"], 1)
        wanted = self.max_instances or (info.partners + 1) * count
        leaves = zip(*(group[1:] for group in groups), strict=True)
        index, view, shows, changed = (xp.concat(list(each), axis=1) for each in leaves)
        position = xp.cast(xp.arange(total), "int32")
        order = xp.argsort(xp.where(shows, position, position + total))[:, :wanted]
        shows, changed = (xp.pick(xp.cast(flags, "int32"), order) > 0 for flags in (shows, changed))
        view, index = xp.where(shows, xp.pick(view, order), NOTHING), xp.pick(index, order)
        if shown is None:
            shown = xp.reshape(0 * groups[0].source, (-1, 1, 1))
        found = {"masks": gather(xp, masks, index, view, shown)}

        def packed(leaf, value):
            trailing = _backend.static_shape(leaf)[2:]
            # Entry by entry: `pick` looks up along the last axis.
            if trailing:
                return xp.stack([packed(leaf[:, :, i], value) for i in range(trailing[0])], axis=2)
            return xp.where(shows, xp.pick(leaf, order), xp.cast(value, _backend.dtype(leaf)))

        for name in ("labels", *(["boxes"] if self.format else []), *self._entries()):
            leaf = xp.concat([xp.take(y[name], group.source) for group in groups], axis=1)
            found[name] = packed(leaf, _padding(leaf))
        if self.format:
            found["boxes"] = self._boxes(xp, found["boxes"], found["masks"], changed & shows, plan)
        if self.keypoints is not None:
            points = xp.concat(self.keypoints._follow(xp, y["keypoints"], plan, info), axis=1)
            found["keypoints"] = point_geometry.only(xp, point_geometry.taken(xp, points, order), shows)
        lacking = wanted - total if isinstance(total, int) else xp.math.maximum(wanted - total, 0)
        if not isinstance(lacking, int) or lacking > 0:
            found = {name: self._longer(xp, name, leaf, lacking) for name, leaf in found.items()}
        return {name: found[name] for name in y}

    def _boxes(self, xp, boxes, masks, changed, plan):
        """The boxes, found anew where the mask has changed."""
        sizes, dtype = [xp.size(masks, axis) for axis in (2, 3)], _backend.dtype(boxes)
        edges = xp.cast(corners(xp, masks, changed), "float32")
        new = from_corners(xp, [edges[:, :, i] for i in range(4)], self.format, sizes)
        new = xp.math.floor(new + 0.5) if "int" in dtype else new
        boxes = xp.where(changed[..., None], xp.cast(new, dtype), boxes)
        if "int" in dtype:
            return boxes
        lost = xp.along(plan.lam != plan.lam, boxes)
        return xp.where(lost, xp.cast(float("nan"), dtype), boxes)

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        (batch, count), width = y["labels"].shape, self.max_instances
        if width is None and count is not None:
            width = (info.partners + 1) * count
        return {
            name: keras.KerasTensor((batch, width, *leaf.shape[2:]), dtype=leaf.dtype) for name, leaf in y.items()
        }, weight

    def _weight_shape(self, y, info):
        # Sample weights belong to images.
        return _backend.static_shape(y["labels"])[:1]


_TOO_FEW = "`max_instances` must be at least the number of objects that an image of the batch has."


def _holds_masks(y):
    return isinstance(y, dict) and ("masks" in y or any(map(_holds_masks, y.values())))


def _fits(sizes, others):
    """Whether two static shapes agree as far as both are known."""
    return len(sizes) == len(others) and all(
        None in pair or pair[0] == pair[1] for pair in zip(sizes, others, strict=True)
    )


def _padding(leaf):
    """The padding of an entry."""
    dtype = _backend.dtype(leaf)
    return 0 if dtype == "bool" or "uint" in dtype else -1


def _shown(xp, masks, plan):
    """The number of the part that each pixel shows, int32 `(B, H, W)`; None under a blend."""
    if not plan.pastes:
        return None
    size, _, height, width = (xp.size(masks, axis) for axis in range(4))
    if isinstance(plan.region, Objects):
        shown = xp.cast(plan.region.mask, "int32")
    elif isinstance(plan.region, Tiles):
        row, column = xp.reshape(xp.arange(height), (1, -1, 1)), xp.reshape(xp.arange(width), (1, 1, -1))
        shown = 0
        for number, part in enumerate(plan.parts()):
            top, left, bottom, right = (xp.reshape(part.window[:, i], (-1, 1, 1)) for i in range(4))
            inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
            shown = shown + number * xp.cast(inside, "int32")
    else:
        # Paste the number of each sample.
        own = xp.reshape(xp.cast(xp.arange(size), "int32"), (-1, 1, 1, 1))
        numbers = own + xp.cast(xp.reshape(0 * xp.arange(height * width), (1, height, width, 1)), "int32")
        shown = xp.cast(mix_inputs(numbers, plan) != own, "int32")[..., 0]
    return xp.where(xp.reshape(plan.lam, (-1, 1, 1)) == 1.0, 0, shown)
