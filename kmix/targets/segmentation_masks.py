"""Segmentation masks: the class of each pixel, pasted with the images or blended."""

import keras

from kmix import _backend, _checks
from kmix.mixing import combine, mix_inputs
from kmix.targets import sample_weights
from kmix.targets.forms import or_nan
from kmix.targets.target import Target, register

tree = keras.tree


@register("segmentation_masks")
class SegmentationMasks(Target):
    """Masks of the spatial sizes of the inputs: class ids or probabilities of the pixels.

    Where the mixer pastes, a mask is pasted with the very box of the images, and keeps its dtype and shape. Where it
    blends, or may blend, class ids are one-hot encoded: the mixed mask is float32 `(B, H, W, C)`.

    Args:
        y: Class ids `(B, H, W)` or `(B, H, W, 1)`, `(B, 1, H, W)` if the channels come first, of any integer dtype;
            or soft masks `(B, H, W, C)`. Volumes and sequences have three and one spatial axes.
        num_mask_classes: Number of classes of the ids. Needed for a blend.
        ignore_class: Id of pixels without a class, such as 255. One-hot encoded, it is a row of zeros, so that a mixed
            pixel counts by the share of the partner that has a class.
        inputs: Static shapes of the inputs.
        blended: Whether the mixer may blend.
        data_format: Where the channels of the inputs and of the ids are.
        pasted: As for `Target`.

    Raises:
        ValueError: if a mask has other spatial sizes than the inputs; if class ids may be blended and
            `num_mask_classes` is missing, or an id lies outside it; if a soft mask has values outside [0, 1].

    Example:
    >>> cutmix = kmix.CutMix(1.0, target="segmentation_masks", data_format="channels_last", seed=1)
    >>> images, masks = np.random.rand(4, 8, 8, 3), np.random.randint(0, 5, (4, 8, 8), "uint8")
    >>> mixed_images, mixed_masks = cutmix(images, masks)
    >>> mixed_masks.shape, mixed_masks.dtype
    ((4, 8, 8), dtype('uint8'))
    """

    arguments = {"num_mask_classes": None, "ignore_class": None}
    settings = ("inputs", "blended", "data_format")
    mixes_views = True
    takes_drawn_plan = True

    def __init__(self, y, *, num_mask_classes, ignore_class, inputs, blended, data_format, pasted=None):
        super().__init__(y, pasted=pasted)
        first = (data_format or keras.config.image_data_format()) == "channels_first"
        spatial = [shape[2:] if first else shape[1:-1] for shape in inputs if shape is not None and len(shape) > 2]
        classes = num_mask_classes if blended else None
        self.masks = [_Mask(leaf, spatial, first, blended, classes, ignore_class) for leaf in tree.flatten(y)]

    @classmethod
    def check_arguments(cls, given):
        lowest = {"num_mask_classes": 1, "ignore_class": -(2**31)}
        return {
            name: None if value is None else _checks.integer(value, name, lowest[name]) for name, value in given.items()
        }

    def _map(self, method, y, *others):
        return tree.pack_sequence_as(y, list(map(method, self.masks, tree.flatten(y), *others)))

    def check(self, xp, y):
        return self._map(lambda mask, leaf: mask.check(xp, xp.asarray(leaf)), y)

    def encode(self, xp, y):
        return self._map(lambda mask, leaf: mask.encode(xp, leaf), y)

    def mix(self, xp, y, plan, weights):
        return self._map(lambda mask, leaf, weight: mask.mix(xp, leaf, plan, weight), y, weights)

    def mix_weights(self, xp, weights, plan):
        if not _pastes(plan) or len(weights.shape) < 3:
            return super().mix_weights(xp, weights, plan)
        # Weights of the pixels are pasted, too.
        rank = len(self.masks[0].spatial) + 2
        weights = xp.cast(weights, "float32")
        return mix_inputs(weights, plan) if len(weights.shape) == rank else mix_inputs(weights[..., None], plan)[..., 0]

    def spec(self, y):
        return self._map(lambda mask, leaf: mask.spec(leaf), y)

    def shapes(self, y):
        sizes = [_backend.static_shape(leaf)[0] for leaf in tree.flatten(y)]
        return [(size, *mask.spatial) for size, mask in zip(sizes, self.masks, strict=True)]


class _Mask:
    """One array of masks."""

    def __init__(self, y, spatial, first, blended, classes, ignore_class):
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        self.received = f"masks of shape {shape} and dtype {dtype}"
        self.blended, self.classes, self.ignore_class = blended, classes, ignore_class
        self.is_ids = "int" in dtype or dtype == "bool"
        if shape is None:
            _checks.fail("The rank of masks must be known.", self.received, "First call `set_shape` on them.")
        if not self.is_ids and "float" not in dtype:
            _checks.fail("Masks must be class ids, or float probabilities.", self.received)
        self.channels = self._find_channels(shape, {len(sizes) for sizes in spatial}, first)
        self.spatial = {"none": shape[1:], "last": shape[1:-1], "first": shape[2:]}[self.channels]
        if spatial and not any(map(self._fits, spatial)):
            _checks.fail(
                "Masks must have the spatial sizes of the inputs.",
                f"{self.received}, and inputs of spatial sizes {', '.join(map(str, spatial))}",
                "Resize them with the images, by the nearest neighbour if they hold class ids.",
            )
        if blended and self.is_ids and classes is None:
            _checks.fail(
                "Class ids of pixels are one-hot encoded before they are blended, which needs `num_mask_classes`.",
                self.received,
                "Pass `num_mask_classes=`. A layer that only pastes, such as `CutMix`, does not need it.",
            )

    def _find_channels(self, shape, ranks, first):
        """Where the channel axis is: "none", "last" or "first"."""
        # Without inputs, as inside a model, a last axis of 1 tells that there is one.
        flat = len(shape) - 1 in ranks if ranks else self.is_ids and shape[-1] != 1
        if flat and not (len(shape) - 2 in ranks and shape[-1] == 1):
            if not self.is_ids and self.blended:
                _checks.fail(
                    "Soft masks have an axis for the classes, (B, H, W, C).",
                    self.received,
                    "Cast class ids to an integer dtype; add an axis, `y[..., None]`, to probabilities of one class.",
                )
            return "none"
        if len(shape) < 3 or (self.is_ids and 1 not in (shape[-1], shape[1])):
            _checks.fail("Class ids of pixels have the shape (B, H, W) or (B, H, W, 1).", self.received)
        return "first" if self.is_ids and shape[1] == 1 and (first or shape[-1] != 1) else "last"

    def _fits(self, sizes):
        pairs = zip(self.spatial, sizes, strict=False)
        return len(self.spatial) == len(sizes) and all(None in pair or pair[0] == pair[1] for pair in pairs)

    def check(self, xp, y):
        if not self.blended:
            return y
        if not self.is_ids:
            y = xp.cast(y, "float32")
            xp.require((y >= 0) & (y <= 1), "Soft masks must lie in [0, 1]. Received: values outside it.")
            return y
        y = xp.cast(y, "int32")
        if self.channels != "none":
            y = y[..., 0] if self.channels == "last" else y[:, 0]
        xp.require(
            self._valid(y),
            f"Class ids of pixels must lie in [0, num_mask_classes) with num_mask_classes={self.classes}. Received: "
            "ids outside it. Name the id of pixels without a class: `ignore_class=255`.",
        )
        return y

    def _valid(self, y):
        valid = (y >= 0) & (y < self.classes)
        return valid if self.ignore_class is None else valid | (y == self.ignore_class)

    def encode(self, xp, y):
        if not self.blended or not self.is_ids:
            return y
        ids = xp.cast(xp.arange(self.classes), "int32")
        one_hot = y[..., None] == ids
        if self.ignore_class is not None:
            one_hot = one_hot & (y != self.ignore_class)[..., None]
        return or_nan(xp, y, xp.cast(one_hot, "float32"), self._valid(y)[..., None])

    def mix(self, xp, y, plan, weight):
        if _pastes(plan):
            if self.channels == "none" and not self.blended:
                return mix_inputs(y[..., None], plan)[..., 0]
            first = self.channels == "first" and not self.blended
            return mix_inputs(y, plan, data_format="channels_first" if first else "channels_last")
        keep, a, b = sample_weights.label_shares(xp, y, plan, weight)
        return combine(xp, keep, a, b, y, plan.permutation)

    def spec(self, y):
        if not self.blended:
            return keras.KerasTensor(y.shape, dtype=y.dtype)
        shape = (y.shape[0], *self.spatial, self.classes) if self.is_ids else y.shape
        return keras.KerasTensor(shape, dtype="float32")


def _pastes(plan):
    return plan.box is not None or plan.region is not None
