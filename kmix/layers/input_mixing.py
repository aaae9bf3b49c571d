"""How the inputs of a mixer follow its plan: what it accepts as `x`, and what comes out."""

from collections.abc import Sequence
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.batch import LABELS, WEIGHTS
from kmix.mixing import add_sources, mix_inputs
from kmix.mixing.blend import blend, check_blendable
from kmix.mixing.padding_masks import mix_masks
from kmix.mixing.paste import spatial_axes
from kmix.plan import MixPlan
from kmix.typing import DataFormat

tree = keras.tree


class InputMixing:
    """How the inputs of a mixer follow its plan. Every array of `x` is treated alike.

    Attributes:
        pastes: Whether a plan may paste parts of the partners.
        blends: Whether a plan may blend whole samples.
        data_format: `"channels_last"` or `"channels_first"`, where it matters. Else None.

    Example:
        Inputs of another dtype than those that `Blend` takes.

        >>> class ComplexBlend(kmix.layers.InputMixing):
        ...     def dtype(self, leaf):
        ...         return "complex64"
        ...     def mix(self, xp, leaf, plan):
        ...         lam = xp.along(xp.cast(plan.lam, "complex64"), leaf)
        ...         return lam * leaf + (1 - lam) * xp.take(leaf, plan.permutation)
        >>> class WaveMix(kmix.MixUp):
        ...     input_mixing = ComplexBlend()
        >>> WaveMix(1.0, seed=1)(np.ones((4, 2), "complex64"), np.ones(4))[0].dtype
        dtype('complex64')
    """

    pastes: bool = False
    blends: bool = True
    data_format: DataFormat | None = None
    # Whether `mix` takes the plan of an eager batch as it was drawn: NumPy arrays, whatever the framework of the batch.
    _takes_numpy_plan = False
    # Whether mixed values lie between those of the inputs.
    _keeps_range = True

    def check(self, x: Any) -> None:
        """Raise unless the static shapes and dtypes of the arrays of `x` allow mixing."""

    def spatial_shape(self, x: Any) -> Sequence[int | None] | None:
        """The static sizes of the spatial axes to paste along; None if the inputs are blended."""
        return None

    def sizes(self, xp: _backend.Namespace, x: Any) -> Sequence[Any] | None:
        """The sizes of the spatial axes as ints or scalars; None if the inputs are blended."""
        return None

    def cut_axes(self) -> tuple[tuple[int, ...], ...]:
        """For each mixer that cuts some of the spatial axes alone, their indices among these axes."""
        return ()

    def shapes(self, x: Any) -> list[Any]:
        """The static shape of each array, with a channel axis."""
        return list(map(_backend.static_shape, [x] if hasattr(x, "dtype") else tree.flatten(x)))

    def dtype(self, leaf: Any) -> str:
        """The name of the dtype of an array after mixing."""
        raise NotImplementedError(f"{type(self).__name__} must implement `dtype`.")

    def mix(self, xp: _backend.Namespace, leaf: Any, plan: MixPlan) -> Any:
        """One array, mixed with a plan. `xp` is the array namespace of both."""
        raise NotImplementedError(f"{type(self).__name__} must implement `mix`.")


class Blend(InputMixing):
    """Floats or uint8 images of any rank, blended.

    Args:
        dtype: Name of their dtype after mixing.

    Raises:
        ValueError: in `check`, if an array holds other integers, or booleans.

    Example:
        >>> kmix.layers.Blend("float16").dtype(np.ones((4, 2), "uint8"))
        'float16'
    """

    _takes_numpy_plan = True

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def check(self, x: Any) -> None:
        for leaf in [x] if hasattr(x, "dtype") else tree.flatten(x):
            check_blendable(_backend.dtype(leaf))

    def dtype(self, leaf: Any) -> str:
        return self._dtype

    def mix(self, xp: _backend.Namespace, leaf: Any, plan: MixPlan) -> Any:
        return blend(xp, leaf, plan.permutation, plan.lam, dtype=self._dtype, bijective=plan.bijective)


class BlendEmbeddings(Blend):
    """Float embeddings or hidden states, blended, and boolean padding masks, united.

    Args:
        dtype: Name of the dtype of the floats after mixing.

    Raises:
        ValueError: in `check`, if an array holds integers, or there are masks alone.

    Example:
        >>> kmix.layers.BlendEmbeddings("float32").dtype(np.array([[True, False]]))
        'bool'
    """

    def check(self, x: Any) -> None:
        dtypes = list(map(_backend.dtype, tree.flatten(x)))
        for dtype in dtypes:
            if dtype != "bool" and "float" not in dtype:
                _checks.fail(
                    "EmbeddingMixup blends float embeddings or hidden states.",
                    f"x of dtype {dtype}",
                    "Token ids cannot be interpolated: put it after the Embedding layer. Turn lengths into a "
                    "boolean mask: `np.arange(T) < lengths[:, None]`.",
                )
        if all(dtype == "bool" for dtype in dtypes):
            _checks.fail("x must hold float tensors.", "boolean tensors alone")

    def dtype(self, leaf: Any) -> str:
        return "bool" if _backend.dtype(leaf) == "bool" else super().dtype(leaf)

    def mix(self, xp: _backend.Namespace, leaf: Any, plan: MixPlan) -> Any:
        return mix_masks(leaf, plan) if _backend.dtype(leaf) == "bool" else super().mix(xp, leaf, plan)


class AddWaves(Blend):
    """Float waves `(B, T)` or `(B, T, C)`, added with the gains of the plan.

    Args:
        dtype: Name of their dtype after mixing.

    Raises:
        ValueError: in `check`, if an array holds integers, or has another rank.

    Example:
        >>> kmix.layers.AddWaves("float32").dtype(np.zeros((2, 16000), "float16"))
        'float32'
    """

    _keeps_range = False

    def check(self, x: Any) -> None:
        for leaf in tree.flatten(x):
            shape, dtype = _backend.static_shape(leaf), _backend.dtype(leaf)
            if "float" not in dtype:
                _checks.fail(
                    "AudioMix adds waves of floats.",
                    f"x of dtype {dtype}",
                    "Scale integers first: `x / 32768` for PCM of 16 bits.",
                )
            if shape is None or len(shape) not in (2, 3):
                _checks.fail(
                    "AudioMix adds waves (B, T) or (B, T, C).",
                    "x of unknown rank" if shape is None else f"x of shape {shape}",
                    "Compute spectrograms after mixing, or blend them with `MixUp`. Was the data set batched? Write "
                    "`ds.batch(32).map(layer)`.",
                )

    def mix(self, xp: _backend.Namespace, leaf: Any, plan: MixPlan) -> Any:
        return add_sources(xp, leaf, plan, self._dtype)


class Paste(InputMixing):
    """Inputs of any dtype with one to three spatial axes, with parts of the partners pasted in.

    Args:
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' own setting.
        confirmed: Whether float inputs of rank 3 are known to be sequences `(B, T, C)`.
        axes: The axes of the inputs to cut, a tuple of ints >= 1; None for all spatial axes. If they name the axis
            where the channels would be, the inputs have no channels.

    Raises:
        ValueError: in `check`, if there are no spatial axes, or the arrays have different spatial sizes.

    Example:
        >>> kmix.layers.Paste("channels_last").spatial_shape(np.zeros((2, 4, 6, 1)))
        [4, 6]
    """

    _takes_numpy_plan = True
    pastes = True
    blends = False

    def __init__(
        self, data_format: DataFormat | None = None, confirmed: bool = True, axes: tuple[int, ...] | None = None
    ) -> None:
        self.data_format: DataFormat = check_data_format(data_format) or keras.config.image_data_format()
        self._confirmed, self._axes = confirmed, axes

    def check(self, x: Any) -> None:
        self.spatial_shape(x)
        for leaf in () if self._confirmed else tree.flatten(x):
            shape = _backend.static_shape(leaf)
            if len(shape) == 3 and "float" in _backend.dtype(leaf) and (shape[2] or 0) > 4:
                _checks.warn(
                    f"CutMix reads x of shape {shape} as sequences (B, T, C), and pastes stretches of time with all "
                    'their channels. Write `data_format="channels_last"` to confirm this, or "channels_first" for '
                    "(B, C, T). Images without channels need a channel axis, `x[..., None]`, or `axes=(1, 2)`."
                )

    def spatial_shape(self, x: Any) -> Sequence[int | None] | None:
        sizes = []
        for shape in map(_backend.static_shape, tree.flatten(x)):
            self._check_rank(shape)
            axes = self._spatial_axes(shape)
            if self._axes is not None and not set(self._axes) <= set(axes):
                _checks.fail("`axes` must be spatial axes of x.", f"axes={self._axes} for x of shape {tuple(shape)}")
            sizes.append([shape[axis] for axis in axes])
        disagree = any(len({known for known in axis if known is not None}) > 1 for axis in zip(*sizes, strict=False))
        if disagree or len({len(size) for size in sizes}) > 1:
            _checks.fail(_SAME_SPATIAL, f"spatial sizes {', '.join(map(str, sizes))}")
        return sizes[0]

    def sizes(self, xp: _backend.Namespace, x: Any) -> Sequence[Any] | None:
        leaves = tree.flatten(x)
        axes = self._spatial_axes(leaves[0].shape)
        if len(leaves) > 1:
            for same in zip(*(self._spatial_axes(leaf.shape) for leaf in leaves), strict=True):
                xp.require_equal_sizes(list(zip(leaves, same, strict=True)), _SAME_SPATIAL)
        return [xp.size(leaves[0], axis) for axis in axes]

    def cut_axes(self) -> tuple[tuple[int, ...], ...]:
        if self._axes is None:
            return ()
        # The first spatial axis follows the batch, or the channels if they come first and are there.
        first = 2 if self.data_format == "channels_first" and 1 not in self._axes else 1
        return (tuple(axis - first for axis in self._axes),)

    def shapes(self, x: Any) -> list[Any]:
        first = self.data_format == "channels_first"

        def with_channels(shape):
            if shape is None or self._has_channels(shape):
                return shape
            return (shape[0], 1, *shape[1:]) if first else (*shape, 1)

        return list(map(with_channels, super().shapes(x)))

    def dtype(self, leaf: Any) -> str:
        return _backend.dtype(leaf)

    def mix(self, xp: _backend.Namespace, leaf: Any, plan: MixPlan) -> Any:
        if self._has_channels(leaf.shape):
            return mix_inputs(leaf, plan, data_format=self.data_format)
        return mix_inputs(leaf[..., None], plan)[..., 0]

    def _has_channels(self, shape):
        if self._axes is None or shape is None:
            return True
        return 1 not in self._axes if self.data_format == "channels_first" else len(shape) - 1 not in self._axes

    def _spatial_axes(self, shape):
        return spatial_axes(len(shape), self.data_format) if self._has_channels(shape) else range(1, len(shape))

    def _check_rank(self, shape):
        if shape is None:
            _checks.fail(
                "CutMix needs the rank of its inputs to be known.",
                "x of unknown rank",
                "First call `x.set_shape(...)`.",
            )
        if not 3 <= len(shape) + (not self._has_channels(shape)) <= 5:
            _checks.fail(
                "CutMix needs one to three spatial axes between the batch and the channels: (B, T, C), (B, H, W, C) or "
                "(B, D, H, W, C).",
                f"x of shape {tuple(shape)}",
                "For tabular data, use MixUp. For images without channels, add an axis, `x[..., None]`, or write "
                "`axes=(1, 2)`; for waves or ids (B, T) `axes=1`. Was the data set batched? Write "
                "`ds.batch(32).map(layer)`.",
            )


class PasteImages(Paste):
    """Images `(B, H, W, C)`, of which several show in a mixed one.

    Args:
        data_format, confirmed, axes: See `Paste`.

    Raises:
        ValueError: in `check`, if an array has other than two spatial axes.

    Example:
        >>> kmix.layers.PasteImages("channels_first").spatial_shape(np.zeros((2, 3, 4, 6)))
        [4, 6]
    """

    def _check_rank(self, shape):
        super()._check_rank(shape)
        if len(shape) != 4:
            _checks.fail("This mixer takes images, with two spatial axes: (B, H, W, C).", f"x of shape {tuple(shape)}")


class OneOf(InputMixing):
    """Inputs for one of several mixers. Their dtypes are promoted, so that every batch has the same dtype.

    Args:
        options: The `InputMixing`s of the mixers.
    """

    def __init__(self, options: Sequence[InputMixing]) -> None:
        self._options = options
        self.pastes, self.blends = any(each.pastes for each in options), any(each.blends for each in options)
        self._keeps_range = all(each._keeps_range for each in options)
        self.data_format = next((each.data_format for each in options if each.data_format is not None), None)

    def check(self, x: Any) -> None:
        for each in self._options:
            each.check(x)

    def spatial_shape(self, x: Any) -> Sequence[int | None] | None:
        return next((sizes for each in self._options if (sizes := each.spatial_shape(x)) is not None), None)

    def sizes(self, xp: _backend.Namespace, x: Any) -> Sequence[Any] | None:
        return next((sizes for each in self._options if (sizes := each.sizes(xp, x)) is not None), None)

    def cut_axes(self) -> tuple[tuple[int, ...], ...]:
        return sum((each.cut_axes() for each in self._options), ())

    def shapes(self, x: Any) -> list[Any]:
        return next((each.shapes(x) for each in self._options if each.data_format is not None), super().shapes(x))

    def dtype(self, leaf: Any) -> str:
        return keras.backend.result_type(*(each.dtype(leaf) for each in self._options))


def check_inputs_key(value: Any) -> str | tuple[str, ...]:
    """Return a key, or a tuple of keys, or raise."""
    if not isinstance(value, (str, list, tuple)):
        _checks.fail("`inputs_key` must be a string, or a tuple of strings.", f"inputs_key={value!r}", error=TypeError)
    keys = (value,) if isinstance(value, str) else _checks.names(value, "inputs_key")
    if not keys or len(set(keys)) < len(keys) or not {LABELS, WEIGHTS}.isdisjoint(keys):
        _checks.fail(
            f"`inputs_key` must name keys of inputs, each once; {LABELS!r} and {WEIGHTS!r} are none.",
            f"inputs_key={value!r}",
            'For example `inputs_key="audio"`.',
        )
    return value if isinstance(value, str) else keys


def check_data_format(value: Any) -> DataFormat | None:
    """Return where the channels are, or None, or raise."""
    if value is not None:
        _checks.one_of(value, "data_format", ("channels_last", "channels_first"))
    return value


_SAME_SPATIAL = "All inputs are mixed at the same place, so they must have the same spatial sizes."


def check_batch_of_plan(leaf: Any, plan: MixPlan) -> None:
    """Raise unless a tensor inside a model has one row for each sample of the plan."""
    shape, lam = _backend.static_shape(leaf), _backend.static_shape(plan.lam)
    if shape is not None and (not shape or (None not in (shape[0], lam[0]) and shape[0] != lam[0])):
        _checks.fail(
            "A mixing layer inside a model pairs the samples of a batch, so the batch must be the first axis.",
            f"a tensor of shape {tuple(shape)} in a step on {lam[0]} samples",
            "Place the layer where the batch is not folded with another axis.",
        )
