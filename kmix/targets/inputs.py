"""Inputs: what a mixer accepts as `x`, how `x` follows the plan, and what comes out."""

import keras

from kmix import _backend, _checks
from kmix.mixing import check_blendable, mix_inputs
from kmix.targets.padding_masks import mix_masks

tree = keras.tree


class Inputs:
    """How the inputs of a mixer follow its plan. Every array of `x` is treated alike.

    Example: inputs of another dtype than those that `Blended` takes.

    >>> class Complex(kmix.targets.Inputs):
    ...     def dtype(self, leaf):
    ...         return "complex64"
    ...     def mix(self, leaf, plan):
    ...         lam = plan.lam.reshape(-1, 1)
    ...         return lam * leaf + (1 - lam) * leaf[plan.permutation]
    >>> Complex().mix(np.ones((4, 2), "complex64"), kmix.MixUp(seed=1).plan(0, 4)).dtype
    dtype('complex64')
    """

    # Whether `mix` takes the plan of an eager batch as it was drawn: NumPy arrays, whatever the framework of the batch.
    takes_drawn_plan = False
    # How many images may show in one.
    images_shown = 2
    # Where the channels are, if it matters.
    data_format: str | None = None

    def check(self, x):
        """Raise unless the static shapes and dtypes of the arrays allow mixing."""

    def pasted(self, x):
        """Static sizes of the spatial axes to paste along; None if the inputs are blended."""
        return

    def blends(self, x):
        """Whether a plan may blend the inputs."""
        return self.pasted(x) is None

    def spatial_shape(self, xp, x):
        """The spatial sizes to draw a box for; None if there is none."""
        return

    def shapes(self, x):
        """The static shape of each array, with a channel axis."""
        return list(map(_backend.static_shape, tree.flatten(x)))

    def settle(self, xp, x, plan):
        """The plan, with the shares that depend on the inputs."""
        return plan

    def dtype(self, leaf):
        """The dtype of an array after mixing."""
        raise NotImplementedError

    def mix(self, leaf, plan):
        """One array, mixed."""
        raise NotImplementedError


class Blended(Inputs):
    """Floats or uint8 images of any rank, blended.

    Args:
        dtype: Name of their dtype after mixing.

    Raises:
        ValueError: in `check`, if an array holds other integers, or booleans.

    Example:
    >>> plan = kmix.MixUp(seed=1).plan(0, 4)
    >>> kmix.targets.Blended("float16").mix(np.ones((4, 2), "uint8"), plan).dtype
    dtype('float16')
    """

    takes_drawn_plan = True

    def __init__(self, dtype):
        self._dtype = dtype

    def check(self, x):
        for leaf in tree.flatten(x):
            check_blendable(_backend.dtype(leaf))

    def dtype(self, leaf):
        return self._dtype

    def mix(self, leaf, plan):
        return mix_inputs(leaf, plan, dtype=self.dtype(leaf))


class Embeddings(Blended):
    """Float embeddings or hidden states, blended, and boolean padding masks, united.

    Args:
        dtype: Name of the dtype of the floats after mixing.

    Raises:
        ValueError: in `check`, if an array holds integers, or there are masks alone.

    Example:
    >>> plan = kmix.EmbeddingMixup(1.0, seed=2).plan(0, 2)
    >>> kmix.targets.Embeddings("float32").mix(np.array([[True, False], [True, True]]), plan)
    array([[ True,  True],
           [ True,  True]])
    """

    def check(self, x):
        kinds = [_backend.dtype(leaf) for leaf in tree.flatten(x)]
        for dtype in kinds:
            if dtype != "bool" and "float" not in dtype:
                _checks.fail(
                    "EmbeddingMixup blends float embeddings or hidden states.",
                    f"x of dtype {dtype}",
                    "Token ids cannot be interpolated: put it after the Embedding layer. Turn lengths into a "
                    "boolean mask: `np.arange(T) < lengths[:, None]`.",
                )
        if all(dtype == "bool" for dtype in kinds):
            _checks.fail("x must hold float tensors.", "boolean tensors alone")

    def dtype(self, leaf):
        return "bool" if _backend.dtype(leaf) == "bool" else super().dtype(leaf)

    def mix(self, leaf, plan):
        return mix_masks(leaf, plan) if _backend.dtype(leaf) == "bool" else super().mix(leaf, plan)


class OneOf(Inputs):
    """Inputs for one of several mixers. Their dtypes are promoted, so that every batch has the same dtype.

    Args:
        kinds: The `Inputs` of the mixers.
    """

    def __init__(self, kinds):
        self.kinds = kinds
        self.images_shown = max(kind.images_shown for kind in kinds)
        self.data_format = next((kind.data_format for kind in kinds if kind.data_format is not None), None)

    def check(self, x):
        for kind in self.kinds:
            kind.check(x)

    def pasted(self, x):
        return next((sizes for kind in self.kinds if (sizes := kind.pasted(x)) is not None), None)

    def blends(self, x):
        return any(kind.blends(x) for kind in self.kinds)

    def dtype(self, leaf):
        return keras.backend.result_type(*(kind.dtype(leaf) for kind in self.kinds))


BATCH_SIZES = "All tensors of a batch must have the same batch size."
BATCH_FIRST = "Was the data set batched? Write `ds.batch(32).map(layer)`, not `ds.map(layer).batch(32)`."
UNEQUAL = (
    "A list stands for several inputs, one tensor for each. To mix examples of unequal length, pad them to one array "
    "(B, T)."
)


def check_arrays(structure):
    """Raise unless all leaves are dense arrays with a shape and a dtype."""
    for leaf in tree.flatten(structure):
        name, irregularity = type(leaf).__name__, _backend.irregular(leaf)
        if irregularity:
            hint = "Make it dense first."
            if irregularity == "ragged":
                hint = "Pad it first, e.g. `x.to_tensor()`; bounding boxes with `boxes.to_tensor(-1)`, or with "
                hint += "`keras.layers.MaxNumBoundingBoxes`."
            _checks.fail("A batch must hold dense tensors.", f"a {irregularity} tensor ({name})", hint)
        if getattr(getattr(leaf, "dtype", None), "name", "") == "object":
            _checks.fail("A batch must hold arrays of numbers.", "an array of objects", UNEQUAL)
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            _checks.fail(
                "A batch must hold arrays or tensors.", f"a {name}", "Wrap it with `np.asarray(...)`.", TypeError
            )


def check_batch_sizes(x, others):
    """Raise if static shapes show that an array has no batch axis, or that batch sizes differ."""
    shapes = [_backend.static_shape(leaf) for leaf in (*tree.flatten(x), *others)]
    known = [tuple(shape) for shape in shapes if shape is not None]
    received = f"tensors of shapes {', '.join(map(str, known[:8]))}" + (", ..." if len(known) > 8 else "")
    if any(len(shape) == 0 for shape in known):
        _checks.fail("Mixing pairs the examples of a batch, so every tensor needs a batch axis.", received, BATCH_FIRST)
    if len({shape[0] for shape in known if shape[0] is not None}) > 1:
        sizes = {shape[0] for shape in map(_backend.static_shape, tree.flatten(x)) if shape}
        several = isinstance(x, (list, tuple)) and len(sizes) > 1
        _checks.fail(BATCH_SIZES, received, UNEQUAL if several else BATCH_FIRST)


def check_batch_of_plan(leaf, plan):
    """Raise unless a tensor inside a model has one row for each sample of the plan."""
    shape, lam = _backend.static_shape(leaf), _backend.static_shape(plan.lam)
    if shape is not None and (not shape or (None not in (shape[0], lam[0]) and shape[0] != lam[0])):
        _checks.fail(
            "A mixing layer inside a model pairs the samples of a batch, so the batch must be the first axis.",
            f"a tensor of shape {tuple(shape)} in a step on {lam[0]} samples",
            "Place the layer where the batch is not folded with another axis.",
        )
