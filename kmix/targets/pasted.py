"""Inputs into which parts of the partners are pasted."""

import keras

from kmix import _backend, _checks
from kmix.mixing import mix_inputs, spatial_axes
from kmix.targets.inputs import BATCH_FIRST, Inputs

tree = keras.tree


class Pasted(Inputs):
    """Inputs of any dtype with one to three spatial axes, with boxes or regions of the partners pasted in.

    Args:
        data_format: `"channels_last"` or `"channels_first"`.
        confirmed: Whether float inputs of rank 3 are known to be sequences `(B, T, C)`.
        axes: The axes of the inputs to cut, a tuple of ints >= 1; None for all spatial axes. If they name the axis
            where the channels would be, the inputs have no channels.
        padding_id: The id of padding in token ids `(B, T)`, which does not count in the share of a sample; or None.

    Raises:
        ValueError: in `check`, if there are no spatial axes, or the arrays have different spatial sizes.

    Example:
    >>> plan = kmix.CutMix(seed=1).plan(0, 2, spatial_shape=(4, 4))
    >>> kmix.targets.Pasted().mix(np.zeros((2, 4, 4, 1), "int64"), plan).dtype
    dtype('int64')
    """

    takes_drawn_plan = True

    def __init__(self, data_format="channels_last", confirmed=True, axes=None, padding_id=None):
        self.data_format, self.confirmed, self.axes, self.padding_id = data_format, confirmed, axes, padding_id

    def check(self, x):
        self.pasted(x)
        if self.padding_id is not None:
            self._ids(x)
        for leaf in () if self.confirmed else tree.flatten(x):
            shape = _backend.static_shape(leaf)
            if len(shape) == 3 and "float" in _backend.dtype(leaf) and (shape[2] or 0) > 4:
                _checks.warn(
                    f"CutMix reads x of shape {shape} as sequences (B, T, C), and pastes stretches of time with all "
                    'their channels. Write `data_format="channels_last"` to confirm this, or "channels_first" for '
                    "(B, C, T). Images without channels need a channel axis, `x[..., None]`, or `axes=(1, 2)`."
                )

    def pasted(self, x):
        sizes = []
        for shape in map(_backend.static_shape, tree.flatten(x)):
            check_spatial(shape, self._has_channels(shape))
            self._check_axes(shape)
            sizes.append([shape[axis] for axis in self._spatial(shape)])
        disagree = any(len({known for known in axis if known is not None}) > 1 for axis in zip(*sizes, strict=False))
        if disagree or len({len(size) for size in sizes}) > 1:
            _checks.fail(SAME_SPATIAL, f"spatial sizes {', '.join(map(str, sizes))}")
        return sizes[0]

    def spatial_shape(self, xp, x):
        leaves = tree.flatten(x)
        for axes in zip(*(self._spatial(leaf.shape) for leaf in leaves), strict=True):
            xp.require_equal_sizes(list(zip(leaves, axes, strict=True)), SAME_SPATIAL)
        return [xp.size(leaves[0], axis) for axis in self._spatial(leaves[0].shape)]

    def shapes(self, x):
        first = self.data_format == "channels_first"

        def with_channels(shape):
            if shape is None or self._has_channels(shape):
                return shape
            return (shape[0], 1, *shape[1:]) if first else (*shape, 1)

        return list(map(with_channels, super().shapes(x)))

    def dtype(self, leaf):
        return _backend.dtype(leaf)

    def mix(self, leaf, plan):
        if self._has_channels(leaf.shape):
            return mix_inputs(leaf, plan, data_format=self.data_format)
        return mix_inputs(leaf[..., None], plan)[..., 0]

    def settle(self, xp, x, plan):
        if self.padding_id is None:
            return plan
        ids, known = self._ids(x), _backend.namespace(plan.lam)
        if known is _backend.NUMPY:
            # An eager plan is drawn on the host, and stays there.
            ids = _backend.values(ids) if hasattr(ids, "dtype") else ids
        real = known.asarray(ids) != self.padding_id
        position = known.reshape(known.cast(known.arange(known.size(real, 1)), "int32"), (1, -1))
        start, stop = (known.reshape(known.cast(plan.box[:, i], "int32"), (-1, 1)) for i in (0, 1))
        inside = (position >= start) & (position < stop)
        kept = known.sum(known.cast(real & ~inside, "float32"), axis=1)
        added = known.sum(known.cast(known.take(real, plan.permutation) & inside, "float32"), axis=1)
        nothing = (kept + added == 0) | (plan.lam == 1)
        total = known.where(nothing, known.cast(1.0, "float32"), kept + added)
        return plan._replace(lam=known.where(nothing, plan.lam, kept / total))

    def _has_channels(self, shape):
        if self.axes is None or shape is None:
            return True
        return 1 not in self.axes if self.data_format == "channels_first" else len(shape) - 1 not in self.axes

    def _spatial(self, shape):
        """The spatial axes of inputs."""
        return spatial_axes(len(shape), self.data_format) if self._has_channels(shape) else range(1, len(shape))

    def _check_axes(self, shape):
        if self.axes is not None and not set(self.axes) <= set(self._spatial(shape)):
            _checks.fail("`axes` must be spatial axes of x.", f"axes={self.axes} for x of shape {tuple(shape)}")

    def _ids(self, x):
        """The token ids among the inputs."""
        found = [leaf for leaf in tree.flatten(x) if "int" in _backend.dtype(leaf) and len(leaf.shape) == 2]
        if len(found) != 1:
            shapes = [(_backend.dtype(leaf), tuple(leaf.shape)) for leaf in tree.flatten(x)]
            _checks.fail(
                "`padding_id` counts the tokens of one array of ids (B, T), of an integer dtype.",
                f"x of {shapes}",
                "Cast masks to bool, or leave it out.",
            )
        return found[0]


SAME_SPATIAL = "All inputs are mixed at the same place, so they must have the same spatial sizes."


def check_spatial(shape, channels=True):
    """Raise unless a static shape has a batch axis, one to three spatial axes, and `channels`."""
    if shape is None:
        _checks.fail(
            "CutMix needs the rank of its inputs to be known.", "x of unknown rank", "First call `x.set_shape(...)`."
        )
    if not 3 <= len(shape) + (not channels) <= 5:
        _checks.fail(
            "CutMix needs one to three spatial axes between the batch and the channels: (B, T, C), (B, H, W, C) or "
            "(B, D, H, W, C).",
            f"x of shape {tuple(shape)}",
            "For tabular data, use MixUp. For images without channels, add an axis, `x[..., None]`, or write "
            "`axes=(1, 2)`; for waves or ids (B, T) `axes=1`. " + BATCH_FIRST,
        )


def check_spatial_shape(sizes):
    """Return the spatial sizes to draw a box for, or raise."""
    if not isinstance(sizes, (tuple, list)) or not 1 <= len(sizes) <= 3:
        _checks.fail(
            "To draw a box, a mixer needs the sizes of one to three spatial axes.",
            f"spatial_shape={sizes}",
            "Write `layer.plan(step, batch_size, spatial_shape=(height, width))`.",
        )
    return tuple(
        _checks.integer(size, "spatial_shape", 1) if isinstance(size, (int, float, str)) else size for size in sizes
    )


def check_data_format(value):
    """Return where the channels are, by default as Keras is set, or raise."""
    return _checks.one_of(value or keras.config.image_data_format(), "data_format", ("channels_last", "channels_first"))
