"""Segmentation masks: the class of each pixel, pasted with the images or blended."""

from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks
from kmix.mixing import mix_inputs
from kmix.plan import MixPlan
from kmix.targets.base import BatchInfo, Target
from kmix.targets.labels import or_nan
from kmix.targets.sample_weights import mix_labels


class _Layout(NamedTuple):
    """How a mask is laid out: whether it holds class ids, its channel axis (None if it has none), its spatial sizes."""

    is_ids: bool
    channels: int | None
    spatial: Any

    def fits(self, sizes):
        """Whether the spatial sizes agree with those of inputs, as far as both are known."""
        pairs = zip(self.spatial, sizes, strict=False)
        return len(self.spatial) == len(sizes) and all(None in pair or pair[0] == pair[1] for pair in pairs)


@keras.saving.register_keras_serializable(package="kmix")
class SegmentationMasks(Target):
    """Masks of the spatial sizes of the inputs: class ids or probabilities of the pixels.

    Masks are class ids `(B, H, W)` or `(B, H, W, 1)`, `(B, 1, H, W)` if the channels come first, of any integer dtype;
    or soft masks `(B, H, W, C)`, or `(B, C, H, W)` in a mixer with `data_format="channels_first"`, or without that
    setting. Volumes and sequences have three and one spatial axes.

    If the mixer pastes, a mask is pasted with the very box of the images, and keeps its dtype and shape. If it blends,
    or may blend, class ids are one-hot encoded: the mixed mask is float32 `(B, H, W, C)`.

    Args:
        num_classes: Number of classes of the ids. Needed for a blend.
        ignore_class: Id of pixels without a class, such as 255. One-hot encoded, it is a row of zeros, so that a mixed
            pixel counts by the share of the partner that has a class.

    Raises:
        ValueError: in a batch, if a mask has other spatial sizes than the inputs; if class ids may be blended and
            `num_classes` is missing, or an id lies outside it; if a soft mask has values outside [0, 1].
        TypeError: if an argument is not an integer.

    Example:
        >>> cutmix = kmix.CutMix(1.0, target="segmentation_masks", data_format="channels_last", seed=1)
        >>> images, masks = np.random.rand(4, 8, 8, 3), np.random.randint(0, 5, (4, 8, 8), "uint8")
        >>> mixed_images, mixed_masks = cutmix(images, masks)
        >>> mixed_masks.shape, mixed_masks.dtype
        ((4, 8, 8), dtype('uint8'))
    """

    max_partners: int | None = None
    _takes_numpy_plan = True

    def __init__(self, num_classes: int | None = None, *, ignore_class: int | None = None) -> None:
        self.num_classes: int | None = None if num_classes is None else _checks.integer(num_classes, "num_classes", 1)
        self.ignore_class: int | None = (
            None if ignore_class is None else _checks.integer(ignore_class, "ignore_class", -(2**31))
        )

    def check(self, y: Any, info: BatchInfo) -> None:
        layout = self._layout(y, info)
        if info.blends and layout.is_ids and self.num_classes is None:
            _checks.fail(
                "Class ids of pixels are one-hot encoded before they are blended, which needs the number of classes.",
                _received(y),
                "Write `SegmentationMasks(num_classes)`. A layer that only pastes, such as `CutMix`, does not need it.",
            )
        if info.blends and not layout.is_ids and layout.channels is None:
            _checks.fail(
                "Soft masks have an axis for the classes, (B, H, W, C).",
                _received(y),
                "Cast class ids to an integer dtype; add an axis, `y[..., None]`, to probabilities of one class.",
            )

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        if not info.blends:
            return
        if self._layout(y, info).is_ids:
            xp.require(
                self._valid(xp.cast(y, "int32")),
                f"Class ids of pixels must lie in [0, num_classes) with num_classes={self.num_classes}. Received: "
                "ids outside it. Name the id of pixels without a class: `SegmentationMasks(ignore_class=255)`.",
            )
        else:
            y = xp.cast(y, "float32")
            xp.require((y >= 0) & (y <= 1), f"{_SOFT} Received: values outside it. {_SOFT_HINT}")

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        if not info.blends:
            return y, weight
        layout = self._layout(y, info)
        if not layout.is_ids:
            y = xp.cast(y, "float32")
            return or_nan(xp, y, y, (y >= 0) & (y <= 1)), weight
        y = xp.cast(y, "int32")
        if layout.channels is not None:
            y = y[..., 0] if layout.channels == -1 else y[:, 0]
        encoded = y[..., None] == xp.cast(xp.arange(self.num_classes), "int32")
        if self.ignore_class is not None:
            encoded = encoded & (y != self.ignore_class)[..., None]
        return or_nan(xp, y, xp.cast(encoded, "float32"), self._valid(y)[..., None]), weight

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        if not plan.pastes:
            shares = weight
            if weight is not None and len(weight.shape) > 2 and self._layout(y, info).channels == 1:
                # Weights of the pixels, in line with classes that come first.
                shares = (weight[..., 0] if len(weight.shape) == len(y.shape) else weight)[:, None]
            return mix_labels(xp, y, shares, plan), weight
        spatial = info.spatial_shape
        if weight is not None and len(weight.shape) > 2:
            # Weights of the pixels are pasted, too.
            weight = _paste(xp.cast(weight, "float32"), plan, -1 if len(weight.shape) == len(spatial) + 2 else None)
        return _paste(y, plan, self._layout(y, info).channels), weight

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        if not info.blends:
            return keras.KerasTensor(y.shape, dtype=y.dtype), weight
        layout = self._layout(y, info)
        shape = (y.shape[0], *layout.spatial, self.num_classes) if layout.is_ids else y.shape
        return keras.KerasTensor(shape, dtype="float32"), weight

    def _weight_shape(self, y, info):
        return (_backend.static_shape(y)[0], *self._layout(y, info).spatial)

    def _valid(self, y):
        valid = (y >= 0) & (y < self.num_classes)
        return valid if self.ignore_class is None else valid | (y == self.ignore_class)

    def _layout(self, y, info):
        """The `_Layout` of a mask, encoded or not, or raise."""
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        if shape is None:
            _checks.fail("The rank of masks must be known.", _received(y), "First call `set_shape` on them.")
        is_ids = "int" in dtype or dtype == "bool"
        if not is_ids and "float" not in dtype:
            _checks.fail("Masks must be class ids, or float probabilities.", _received(y))
        first = info.data_format == "channels_first"
        layouts = []
        if len(shape) > 2:
            # Class ids have a channel axis of size 1.
            if not is_ids or shape[-1] == 1:
                layouts.append(_Layout(is_ids, -1, shape[1:-1]))
            # A mixer that has no `data_format` blends, wherever the classes are.
            if shape[1] == 1 if is_ids else info.data_format != "channels_last":
                layouts.insert(0 if first else len(layouts), _Layout(is_ids, 1, shape[2:]))
        layouts.append(_Layout(is_ids, None, shape[1:]))
        spatial = _spatial_sizes(info)
        # Inside a model there may be no inputs to compare with.
        fitting = [layout for layout in layouts if not spatial or any(map(layout.fits, spatial))]
        if not fitting:
            _checks.fail(
                "Masks must have the spatial sizes of the inputs: integer class ids (B, H, W) or (B, H, W, 1), or soft "
                "or one-hot masks (B, H, W, C) of a float dtype.",
                f"{_received(y)}, and inputs of shapes {', '.join(map(str, info.input_shapes))}",
                "Resize them with the images, by the nearest neighbour if they hold class ids."
                + ' If the channels come first, write `data_format="channels_first"`.' * (info.data_format is not None),
            )
        return fitting[0]


_SOFT = "Float masks are probabilities of the classes, so they must lie in [0, 1]."
_SOFT_HINT = "Cast class ids to an integer dtype, and apply a sigmoid or softmax to logits."


def _paste(y, plan, channels):
    if channels is None:
        return mix_inputs(y[..., None], plan)[..., 0]
    return mix_inputs(y, plan, data_format="channels_first" if channels == 1 else "channels_last")


def _received(y):
    return f"masks of shape {_backend.static_shape(y)} and dtype {_backend.dtype(y)}"


def _spatial_sizes(info):
    """The spatial sizes that the inputs have, or may have where nothing tells which axis holds the channels."""
    shapes = [tuple(shape) for shape in info.input_shapes if shape is not None and len(shape) > 2]
    if info.data_format is not None:
        return [shape[2:] if info.data_format == "channels_first" else shape[1:-1] for shape in shapes]
    return [sizes for shape in shapes for sizes in (shape[1:-1], shape[2:], shape[1:])]
