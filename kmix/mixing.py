"""Mix inputs, labels and sample weights: pure functions of a plan, without randomness."""

import functools
import math
import operator

import numpy as np

from kmix import _backend, _checks

# Values of a block of samples that NumPy works on at a time: with their partners they fit in the cache of a core.
_BLOCK = 2**15
# Loops over fewer values than these XLA unrolls into scalar code.
_UNROLLED = 30


def mix_inputs(x, plan, *, data_format="channels_last", dtype=None):
    """Mix one batch of inputs: blend it, or paste boxes where the plan has them.

    Args:
        x: Tensor `(B, ...)`, float or uint8. For a plan with boxes any dtype, with the spatial axes
            that the plan was drawn for.
        plan: A `MixPlan` for a batch of `B`.
        data_format: `"channels_last"` or `"channels_first"`: where the spatial axes are. Only matters
            with boxes.
        dtype: Name of the dtype of the result. Defaults to that of `x`, float32 for uint8; a paste
            always keeps that of `x`.

    Returns:
        A new tensor of the same shape, `lam * x + (1 - lam) * x[permutation]`. With boxes:
        `x[permutation]` inside the box and `x` outside. A sample with `lam = 1` comes back exactly.
        Its gradient, in reverse mode, is right for a true permutation alone.

    Example:
    >>> from kmix.plan import MixPlan
    >>> plan = MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> mix_inputs(np.array([[4.0], [8.0]]), plan)
    array([[5.],
           [8.]])
    """
    xp = _backend.namespace(x, plan.lam)
    x, permutation = xp.asarray(x), xp.asarray(plan.permutation)
    if plan.box is not None:
        return _paste(xp, x, permutation, xp.asarray(plan.box), data_format)
    given = _backend.dtype(x)
    _checks.blendable(given)
    return _blend(xp, x, permutation, xp.asarray(plan.lam), dtype or ("float32" if given == "uint8" else given))


def mix_labels(y, plan, *, num_classes=None, weights=None):
    """Mix one batch of labels with the weights that the inputs were mixed with.

    Args:
        y: Tensor of labels: float `(B, ...)` (one-hot, soft, multi-hot, regression targets), class ids
            `(B,)` or `(B, 1)` of an integer dtype, or integer multi-hot `(B, C)`.
        plan: A `MixPlan` for a batch of `B`.
        num_classes: Number of classes, needed for class ids.
        weights: Sample weights `(B,)` (or with the leading axes of `y`), before mixing. The labels are
            then weighted with them, so that with `mix_weights` a loss that is linear in `y` is the
            weighted pair of losses.

    Returns:
        float32 tensor: `(B, num_classes)` for class ids, else of the shape of `y`.

    Raises:
        ValueError: if the labels are class ids and `num_classes` is missing, or are out of range where
            their values can be seen, or are integers of rank 3 or more.

    Example:
    >>> from kmix.plan import MixPlan
    >>> plan = MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> mix_labels(np.array([0, 1]), plan, num_classes=2)
    array([[0.75, 0.25],
           [0.  , 1.  ]], dtype=float32)
    """
    xp = _backend.namespace(y, plan.lam)
    return mix_encoded(encode_labels(xp.asarray(y), num_classes, xp=xp), plan, weights)


def pair_labels(ids, plan, num_classes, *, weights=None):
    """The labels of a mixed batch as pairs: what `mix_labels` gives, without a column for each class.

    Args:
        ids: Class ids `(B,)` or `(B, 1)` of an integer dtype.
        plan: A `MixPlan` for a batch of `B`.
        num_classes: Number of classes, from 4 to `2**24`: up to there float32 holds every id exactly.
        weights: Sample weights `(B,)` or `(B, 1)` before mixing, see `mix_labels`.

    Returns:
        float32 tensor `(B, 3)`: the class of each sample, the class of its partner, and the label weight
        of the first. That of the second is what is left to 1.

    Raises:
        ValueError: if the labels are not class ids, or out of range where their values can be seen.

    Example:
    >>> from kmix.plan import MixPlan
    >>> plan = MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> pair_labels(np.array([70, 8]), plan, num_classes=100)
    array([[70.  ,  8.  ,  0.75],
           [ 8.  ,  8.  ,  1.  ]], dtype=float32)
    """
    xp = _backend.namespace(ids, plan.lam)
    return mix_encoded(encode_labels(xp.asarray(ids), num_classes, "pair", xp=xp), plan, weights)


def mix_encoded(y, plan, weights=None):
    """Mix what `encode_labels` returned: float labels as in `mix_labels`, class ids as in `pair_labels`.

    Args:
        y: Float labels `(B, ...)`, or class ids `(B,)` of an integer dtype.
        plan: A `MixPlan` for a batch of `B`.
        weights: Sample weights before mixing.

    Returns:
        float32 tensor: of the shape of `y`, or `(B, 3)` for class ids.

    Example:
    >>> from kmix.plan import MixPlan
    >>> plan = MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> mix_encoded(np.array([[1.0], [0.0]]), plan)
    array([[0.75],
           [0.  ]], dtype=float32)
    """
    xp = _backend.namespace(y, plan.lam)
    y, permutation, lam = xp.asarray(y), xp.asarray(plan.permutation), xp.cast(xp.asarray(plan.lam), "float32")
    a, b = lam, 1.0 - lam
    if weights is not None:
        w = xp.cast(xp.asarray(weights), "float32")
        if len(w.shape) == len(y.shape) + 1:
            w = xp.reshape(w, (-1,))
        lam = xp.along(lam, w)
        a, b = lam * w, (1.0 - lam) * xp.take(w, permutation)
        # Divide the coefficients, not the labels: w * y / w is not y. Without any weight the pair counts as usual.
        weightless = a + b == 0
        total = xp.where(weightless, xp.cast(1.0, "float32"), a + b)
        a, b = xp.where(weightless, lam, a / total), xp.where(weightless, 1.0 - lam, b / total)
    if "float" in _backend.dtype(y):
        return _combine(xp, lam == 1.0, a, b, y, permutation)
    # A sample that is kept is its own partner, whatever class the other one has.
    pair = y, xp.where(lam == 1.0, y, xp.take(y, permutation)), xp.where(lam == 1.0, 1.0, a)
    return xp.stack([xp.cast(column, "float32") for column in pair], axis=1)


def mix_weights(weights, plan):
    """Mix sample weights: `lam * w + (1 - lam) * w[permutation]`.

    Args:
        weights: Tensor `(B,)`, `(B, 1)` or with more axes.
        plan: A `MixPlan` for a batch of `B`.

    Returns:
        float32 tensor of the same shape.

    Example:
    >>> from kmix.plan import MixPlan
    >>> plan = MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> mix_weights(np.array([1.0, 5.0]), plan)
    array([2., 5.], dtype=float32)
    """
    xp = _backend.namespace(weights, plan.lam)
    w, lam = xp.cast(xp.asarray(weights), "float32"), xp.cast(xp.asarray(plan.lam), "float32")
    return _combine(xp, lam == 1.0, lam, 1.0 - lam, w, xp.asarray(plan.permutation))


def mix_masks(mask, plan):
    """Padding masks of mixed sequences: a position counts where it counts in one of the partners.

    Args:
        mask: Boolean tensor `(B, ...)`, true where a position counts.
        plan: A `MixPlan` for a batch of `B`.

    Returns:
        Boolean tensor of the same shape, `mask | mask[permutation]`; a sample with `lam = 1` keeps its own.

    Example:
    >>> from kmix.plan import MixPlan
    >>> plan = MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
    >>> mix_masks(np.array([[True, False], [True, True]]), plan)
    array([[ True,  True],
           [ True,  True]])
    """
    xp = _backend.namespace(mask, plan.lam)
    mask, lam = xp.asarray(mask), xp.asarray(plan.lam)
    return mask | (xp.take(mask, xp.asarray(plan.permutation)) & xp.along(lam < 1.0, mask))


def encode_labels(y, num_classes=None, labels="dense", *, xp=None):
    """Labels as `mix_encoded` takes them: class ids checked and one-hot encoded, all others cast to float32.

    Args:
        y: Labels as in `mix_labels`.
        num_classes: Number of classes, needed for class ids.
        labels: `"pair"` takes class ids alone and leaves them as they are, to be mixed to pairs.
        xp: Array namespace from `kmix._backend`; found from `y` by default.

    Returns:
        float32 tensor: `(B, num_classes)` for class ids, else of the shape of `y`. With `labels="pair"`
        class ids `(B,)` of an integer dtype.

    Raises:
        ValueError: as `mix_labels`.

    Example:
    >>> encode_labels(np.array([1, 0]), num_classes=3)
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    xp = xp or _backend.namespace(y)
    return encode_checked(xp, check_labels(xp, y, num_classes, labels), num_classes, labels)


def check_labels(xp, y, num_classes, labels="dense"):
    """Raise unless the labels can be mixed; return class ids as `(B,)` integers, all others as float32."""
    kind = _checks.label_kind(_backend.static_shape(y), _backend.dtype(y), num_classes, labels)
    if kind == "ids":
        ids = xp.cast(xp.reshape(y, (-1,)), xp.integer)
        xp.require(
            (ids >= 0) & (ids < num_classes),
            f"Class ids must lie in [0, num_classes) with num_classes={num_classes}. Received ids outside of it: "
            "check `num_classes`, and that the first class is 0.",
        )
        return ids
    if kind == "multi_hot":
        numbers = xp.cast(y, xp.integer)
        xp.require(
            (numbers == 0) | (numbers == 1),
            "Integer labels (B, C) with C > 1 are read as multi-hot, so every value must be 0 or 1. Received other "
            "values: cast to float to have them interpolated (regression), or pass one column of class ids.",
        )
    return xp.cast(y, "float32")


def encode_checked(xp, y, num_classes, labels="dense"):
    """What `check_labels` returned, with class ids one-hot encoded unless they are to be mixed to pairs."""
    if labels == "pair" or "float" in _backend.dtype(y):
        return y
    one_hot = xp.cast(y[:, None] == xp.cast(xp.arange(num_classes), xp.integer), "float32")
    if _backend.on_host(y):
        return one_hot
    # Where nothing can be raised, in a compiled step, the loss shall not look sound.
    valid = (y >= 0) & (y < num_classes)
    return xp.where(valid[:, None], one_hot, xp.cast(float("nan"), "float32"))


def spatial_axes(rank, data_format):
    """The axes of a box: all but the batch and the channels."""
    return range(2, rank) if data_format == "channels_first" else range(1, rank - 1)


def _blend(xp, x, permutation, lam, dtype):
    """The convex combination of each sample and its partner."""
    lam = xp.cast(lam, "float32")
    keep, a, b = lam == 1.0, lam, 1.0 - lam

    def blended(x):
        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream
            # Gathered from where each sample went: the gradient of a gather would scatter, which is slower.
            inverse = xp.argsort(permutation)
            return xp.cast(_sum(xp, a, xp.take(b, inverse), upstream, inverse, _wide(dtype)), _backend.dtype(x))

        return _combine(xp, keep, a, b, x, permutation, dtype), gradient

    return xp.by_rows(xp.custom_gradient(blended), x)


def _combine(xp, keep, a, b, x, permutation, dtype="float32"):
    """`a * x + b * x[permutation]`, and `x` itself where it is kept, since `0 * nan` and `0 * inf` are not 0."""
    if xp is _backend.NUMPY:
        return _combine_blocks(keep, a, b, x, permutation, _wide(dtype), dtype)
    mixed = _sum(xp, a, b, x, permutation, _wide(dtype))
    return xp.cast(xp.where(xp.along(keep, x), xp.cast(x, _wide(dtype)), mixed), dtype)


def _wide(dtype):
    """The dtype to combine in, to round once: half precision would round the coefficients themselves."""
    return "float64" if dtype == "float64" else "float32"


def _sum(xp, a, b, x, permutation, dtype):
    """`a * x + b * x[permutation]`."""
    partner = xp.cast(xp.take(x, permutation), dtype)
    x, a, b = (xp.cast(array, dtype) for array in (x, a, b))
    return xp.along(a, x) * x + xp.along(b, x) * partner


def _combine_blocks(keep, a, b, x, permutation, wide, dtype):
    """`_combine` for NumPy, whose every operation passes over the memory: a block of samples at a time."""
    mixed, permutation = np.empty(x.shape, dtype), _backend.NUMPY.rows(permutation)
    samples = max(1, _BLOCK // max(1, x[:1].size))
    keep, a, b = (_backend.NUMPY.along(array, x) for array in (keep, a, b))
    with np.errstate(invalid="ignore"):
        for start in range(0, len(x), samples):
            rows = slice(start, start + samples)
            block = np.multiply(a[rows], x[rows], dtype=wide)
            block += np.multiply(b[rows], x[permutation[rows]], dtype=wide)
            if keep[rows].any():
                np.copyto(block, x[rows], where=keep[rows])
            mixed[rows] = block
    return mixed


def _paste(xp, x, permutation, box, data_format):
    """The partner inside the box, the sample outside.

    By lines, the stretches of memory along the last spatial axis: one that misses the box is its own partner, so that
    its memory is read but once. Where XLA would unroll short ones, the whole sample is one line.
    """
    axes = spatial_axes(len(x.shape), data_format)
    if xp is _backend.NUMPY:
        return _paste_windows(x, permutation, box, axes)
    sizes = [xp.size(x, axis) for axis in range(len(x.shape))]
    length = math.prod(sizes[axes[-1] :])
    unrolled = _backend.is_symbolic(x) and isinstance(length, int) and length < _UNROLLED
    first = 1 if unrolled else axes[-1]
    lines, length = math.prod(sizes[1:first]), math.prod(sizes[first:])

    def inside(axis, value):
        """Whether values of a sample, counted from its first, lie within the box along an axis."""
        position, i = value // math.prod(sizes[axis + 1 :]) % sizes[axis], axis - axes[0]
        start, stop = (xp.reshape(box[:, edge], (-1, 1)) for edge in (i, i + len(axes)))
        return (position >= start) & (position < stop)

    own = xp.reshape(xp.arange(xp.size(permutation, -1)) + 0 * permutation, (-1, 1))
    partner, line = xp.reshape(permutation, (-1, 1)), xp.arange(lines)
    for axis in () if unrolled else axes[:-1]:
        partner = xp.where(inside(axis, line * length), partner, own)
    source = xp.reshape(partner * lines + line, (*permutation.shape[:-1], -1))
    partners = xp.take(xp.reshape(x, (-1, length)), source)
    within = [inside(axis, xp.arange(length)) for axis in (axes if unrolled else axes[-1:])]
    window, shape = functools.reduce(operator.and_, within)[:, None], (-1, lines, length)
    return xp.reshape(xp.where(window, xp.reshape(partners, shape), xp.reshape(x, shape)), sizes)


def _paste_windows(x, permutation, box, axes):
    """`_paste` for NumPy: copy what lies in the box, sample by sample."""
    mixed, permutation, k = x.copy(), _backend.NUMPY.rows(permutation), len(axes)
    # A slice would count negative edges from the end.
    for i, (partner, edges) in enumerate(zip(permutation, np.maximum(box, 0).tolist(), strict=True)):
        window = (*[slice(None)] * (axes.start - 1), *map(slice, edges[:k], edges[k:]))
        mixed[i, *window] = x[partner, *window]
    return mixed
