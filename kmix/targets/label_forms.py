"""The forms of labels in losses and metrics: soft labels, class ids and pairs."""

from keras import ops

from kmix import _backend, _checks


def class_weights(sample_weight, y_pred, allowed=False):
    """Sample weights as weights of the classes, or None if they are weights of the samples.

    Args:
        sample_weight: Weights of the samples, `(...)` or `(..., 1)`; weights of the classes `(..., C)`; or None.
        y_pred: Predictions `(..., C)`.
        allowed: Whether weights of the classes are allowed.

    Returns:
        float32 weights of the shape of `y_pred`, or None.

    Raises:
        ValueError: if weights of the classes are not allowed, or do not have the shape of `y_pred`.

    Example:
    >>> from kmix.targets.label_forms import class_weights
    >>> y_pred = np.zeros((2, 3))
    >>> tuple(class_weights(np.ones((2, 3)), y_pred, allowed=True).shape)
    (2, 3)
    >>> class_weights(np.ones(2), y_pred)
    """
    if sample_weight is None:
        return None
    sample_weight = ops.convert_to_tensor(sample_weight, "float32")
    given, prediction = _backend.static_shape(sample_weight), tuple(y_pred.shape)
    if given is None or len(given) < len(prediction) or given[-1] == 1:
        return None
    received = f"sample_weight of shape {given} and y_pred of shape {prediction}"
    if not allowed:
        _checks.fail(
            "Sample weights must have the shape of the losses: (...) for predictions of shape (..., C).",
            received,
            "Only `SoftLabelCrossentropy(multi_label=True)` accepts weights of the classes.",
        )
    if not _may_equal(given, prediction):
        _checks.fail("Weights of the classes must have the shape of `y_pred`, (..., C).", received)
    return ops.broadcast_to(sample_weight, ops.shape(y_pred))


def expand_weights(sample_weight, rank):
    """Sample weights `(B, ...)` as float32 with axes appended up to `rank`; None for None.

    Example:
    >>> from kmix.targets.label_forms import expand_weights
    >>> tuple(expand_weights(np.ones(2), 3).shape)
    (2, 1, 1)
    """
    if sample_weight is None:
        return None
    sample_weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    shape = _backend.static_shape(sample_weight)
    if shape is None or not shape:
        return sample_weight
    if len(shape) == rank + 1 and shape[-1] == 1:
        return ops.squeeze(sample_weight, -1)
    for _ in range(rank - len(shape)):
        sample_weight = ops.expand_dims(sample_weight, -1)
    return sample_weight


def label_mass(y_true, y_pred, ignore_class=None):
    """The sum of each row of labels, `(...)`: 0 for a row that does not count. The arguments are as for `read_labels`.

    Example:
    >>> from kmix.targets.label_forms import label_mass
    >>> np.asarray(label_mass(np.array([1, 255]), np.zeros((2, 3)), ignore_class=255)).tolist()
    [1.0, 0.0]
    """
    return ops.sum(read_labels(y_true, y_pred, ignore_class)[1], axis=-1)


def read_labels(y_true, y_pred, ignore_class=None):
    """Labels as the classes that have a share, and their shares.

    Args:
        y_true: Soft labels `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` if C > 3.
        y_pred: Predictions `(..., C)`. With C = 1, labels are never ids.
        ignore_class: The id that has no share, or None.

    Returns:
        int32 ids `(..., k)` and float32 shares `(..., k)`, with k = 1 for class ids and 2 for pairs. For soft
        labels, and for labels in a TensorFlow graph whose form is not known from their shape, `None` and
        the shares of all classes `(..., C)`. An id that is not a whole number in `[0, C)` has a share of NaN.

    Raises:
        ValueError: if the shapes do not match.

    Example:
    >>> from kmix.targets.label_forms import read_labels
    >>> ids, shares = read_labels(np.array([[70, 8, 0.75], [5, 5, 0.25]]), np.zeros((2, 100)))
    >>> np.asarray(ids).tolist(), np.asarray(shares).tolist()
    ([[70, 8], [5, 5]], [[0.75, 0.25], [1.0, 0.0]])
    """
    # Losses may pass class ids as float32.
    y_true, y_pred = ops.cast(ops.convert_to_tensor(y_true), "float32"), ops.convert_to_tensor(y_pred)
    prediction = tuple(y_pred.shape)
    classes = prediction[-1]
    settled = settle_labels(y_true, classes, len(prediction), ignore_class)
    if settled is not y_true:
        for axis in range(len(prediction) - 1):
            axes = [(settled, axis), (y_pred, axis)]
            _backend.namespace(settled).require_equal_sizes(axes, f"{LABEL_SHAPES} Received labels of other sizes.")
        return None, settled
    given = tuple(y_true.shape)
    if len(given) == len(prediction) - 1:
        y_true = ops.expand_dims(y_true, -1)
    label = tuple(y_true.shape)
    pairs = label[-1] == 3 and classes is not None and classes > 3
    if not _may_equal(label[:-1], prediction[:-1]) or not (pairs or label[-1] in (1, None, classes)):
        _checks.fail(LABEL_SHAPES, f"y_true of shape {given} and y_pred of shape {prediction}")
    if classes == 1 or not (pairs or label[-1] == 1):
        return None, y_true
    return _shares(y_true, pairs, classes, ignore_class)


def settle_labels(y, classes, rank, ignore_class=None):
    """Turn labels whose form is not known from their shape into soft labels.

    TensorFlow compiles `fit` and `evaluate` for labels with an unknown last axis, or of unknown rank, once it has
    seen labels of two forms (or if a `tf.py_function` made the labels). Their form is then decided when the graph
    runs. All other labels come back unchanged.

    Args:
        y: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` if C > 3.
        classes: The number of classes C of the predictions.
        rank: The number of axes of the predictions, `(..., C)`.
        ignore_class: The id that has no share, or None.

    Returns:
        `y` if its static shape shows the form, else float32 labels `(..., C)` with that static rank and last
        axis, and NaN for a class id that is not a whole number in `[0, C)`.

    Raises:
        ValueError: if neither the form nor the number of classes is known.
        tf.errors.InvalidArgumentError: if the graph runs on labels of another shape. XLA drops this check, and
            the labels are then NaN.

    Example:
    >>> import tensorflow as tf
    >>> from kmix.targets.label_forms import settle_labels
    >>> settle = tf.function(lambda y: settle_labels(y, 4, 2), input_signature=[tf.TensorSpec(None)])
    >>> [settle(tf.constant(y)).numpy().tolist() for y in ([2.0], [[2.0]], [[2.0, 0.0, 0.75]])]
    [[[0.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]], [[0.25, 0.0, 0.75, 0.0]]]
    """
    shape = _backend.static_shape(y)
    if not _backend.is_tensorflow(y) or (shape is not None and (len(shape) != rank or shape[-1] is not None)):
        return y
    if classes is None:
        _checks.fail(
            "To tell class ids from soft labels, the shape of the labels or the number of classes must be known.",
            f"y_true of shape {shape} and predictions of an unknown last axis",
            "Call `y.set_shape([None, 1])` on class ids, or `y.set_shape([None, C])` on soft labels.",
        )
    import tensorflow as tf

    y = tf.cast(y, "float32")
    sizes = tf.shape(y)
    if shape is None:
        # Arithmetic on sizes, which XLA knows: it accepts no conditional whose branches differ in rank.
        sizes = tf.concat([sizes, tf.ones(tf.where(tf.size(sizes) == rank - 1, 1, 0), "int32")], 0)
    # A scalar has no last axis.
    last = tf.concat([[0], sizes], 0)[-1]
    form = tf.where(last == 1, 0, tf.where(last == classes, 1, tf.where((last == 3) & (classes > 3), 2, 3)))
    form = tf.where(tf.size(sizes) == rank, form, 3)
    _backend.namespace(y).require(form < 3, f"{LABEL_SHAPES} Received labels of another shape.")

    def rows(width):
        return tf.reshape(y, (-1, width))

    def unlike():
        # XLA drops the requirement above. Labels of no valid form must not count as valid labels.
        return tf.fill((tf.reduce_prod(sizes[:-1]), classes), float("nan"))

    branches = [
        lambda: rows(1) if classes == 1 else spread_shares(classes, *_shares(rows(1), False, classes, ignore_class)),
        lambda: rows(classes),
        lambda: spread_shares(classes, *_shares(rows(3), True, classes, ignore_class)) if classes > 3 else unlike(),
        unlike,
    ]
    y = tf.reshape(tf.switch_case(form, branches), tf.concat([sizes[:-1], [classes]], 0))
    return tf.ensure_shape(y, (*([None] * (rank - 1) if shape is None else shape[:-1]), classes))


LABEL_SHAPES = (
    "`y_true` must have the shape of `y_pred`, (..., C), or hold class ids (...) or (..., 1), or, if C > 3, pairs "
    "(..., 3)."
)


def _may_equal(shape, other):
    """Whether two static shapes agree as far as they are known."""
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))


def _shares(y, pairs, classes, ignore_class=None):
    """Class ids `(..., 1)`, or `pairs` `(..., 3)`, as int32 ids and their shares; NaN where an id is not valid."""
    xp = _backend.namespace(y)
    ids, shares = y, 1.0
    if pairs:
        # Both partners may have the same class.
        first = xp.where(y[..., 0] == y[..., 1], 1.0, y[..., 2])
        ids, shares = y[..., :2], xp.stack([first, 1.0 - first], axis=-1)
    valid = (ids >= 0) & (ids < classes) & (ids == xp.math.floor(ids))
    shares = xp.where(valid, shares, float("nan"))
    if ignore_class is not None:
        ignored = ids == float(ignore_class)
        valid, shares = valid & ~ignored, xp.where(ignored, 0.0, shares)
    return xp.cast(xp.where(valid, ids, 0.0), "int32"), shares


def spread_shares(classes, ids, shares):
    """Shares `(..., k)` at the ids as shares of all classes `(..., C)`."""
    xp = _backend.namespace(shares)
    columns = [slice(column, column + 1) for column in range(ids.shape[-1])]
    return sum(xp.cast(ids[..., column] == xp.arange(classes), "float32") * shares[..., column] for column in columns)
