"""A cross-entropy for mixed labels."""

import keras
from keras import ops

from kmix import _backend, _checks

__all__ = ["SoftLabelCrossentropy"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelCrossentropy(keras.losses.Loss):
    """Cross-entropy that takes soft labels and integer class ids alike.

    One compiled loss serves mixed training data and plain validation data. Labels with one axis less
    than the predictions, or with a last axis of 1, are class ids; labels with a last axis of 3 are pairs
    if there are more than 3 classes (see `labels="pair"` of the layers). Neither is one-hot encoded.
    Everything is computed in float32.

    Like every cross-entropy it is linear in `y_true` (with `subtract_entropy`, up to a term that does not
    depend on the predictions). The loss of a mixed label is then exactly the mix of the losses of its two
    labels, as in the paper. Keras' categorical and binary cross-entropies, `CategoricalFocalCrossentropy`
    and `Poisson` are linear as well; `KLDivergence` and `MeanSquaredError` are linear up to such a term, so
    their gradients are those of the pair. `BinaryFocalCrossentropy`, the hinge losses, `MeanAbsoluteError`,
    `Huber`, `LogCosh` and `CosineSimilarity` are not linear: with mixed labels, their values and
    gradients differ from those of the pair.

    Args:
        from_logits: Whether `y_pred` holds logits rather than probabilities. Defaults to `False`.
        label_smoothing: Share in [0, 1] of each label that is spread evenly over the classes.
        multi_label: Whether the classes are independent: a binary cross-entropy for each, averaged. The
            loss then also takes a sample weight for each class, 0 where a label is unknown.
        subtract_entropy: Whether to report the Kullback-Leibler divergence from the labels, whose
            minimum is 0 for soft labels, too. The gradients are the same. Defaults to `False`.
        reduction: `"sum_over_batch_size"` (the default), `"sum"`, `"mean"`,
            `"mean_with_sample_weight"` or `None`, as in Keras.
        name: Name of the loss.
        dtype: Accepted for Keras' config; the loss computes in float32 whatever the policy.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`.
        sample_weight: Optional weights that broadcast to the shape of the losses, `(...)`. With
            `multi_label` also weights of the classes, `(..., C)`: the loss of a sample is the mean over the
            classes of weight times binary cross-entropy, so that weights that are equal over the classes
            count as weights `(...)` do. A label of weight 0 is not looked at and may be NaN.
            `reduction="mean_with_sample_weight"` divides the sum of these losses by the sum of the mean
            weights of the samples, which gives the weighted mean over all entries.

    Returns:
        float32: a scalar, or the losses of shape `(...)` with `reduction=None`. A class id that is
        no whole number in `[0, C)` gives NaN.

    Raises:
        ValueError: if the shapes of `y_true` and `y_pred` do not match; if there is one class only and
            `multi_label` is not set; if there are weights of the classes and `multi_label` is not set.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
    >>> loss = kmix.losses.SoftLabelCrossentropy()
    >>> y_pred = np.array([[0.5, 0.25, 0.25]])
    >>> round(float(loss(np.array([[0.5, 0.5, 0.0]]), y_pred)), 4)
    1.0397
    >>> round(float(loss(np.array([0]), y_pred)), 4)
    0.6931
    >>> loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
    >>> unknown = np.array([[1.0, 1.0, 0.0]])
    >>> round(float(loss(np.array([[1.0, 0.0, -1.0]]), y_pred, sample_weight=unknown)), 4)
    0.3269
    """

    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        multi_label=False,
        subtract_entropy=False,
        reduction="sum_over_batch_size",
        name="soft_label_crossentropy",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.from_logits = from_logits
        self.label_smoothing = _checks.real(label_smoothing, "label_smoothing", 0.0, 1.0)
        self.multi_label = multi_label
        self.subtract_entropy = subtract_entropy

    def __call__(self, y_true, y_pred, sample_weight=None):
        weights = class_weights(sample_weight, y_pred, allowed=self.multi_label)
        if weights is None:
            return super().__call__(y_true, y_pred, sample_weight)
        sample_weight = None
        if self.reduction == "mean_with_sample_weight":
            # Keras multiplies the losses by what it divides their sum by.
            sample_weight = ops.mean(weights, axis=-1)
            weights = ops.divide_no_nan(weights, ops.expand_dims(sample_weight, -1))
        return _WithClassWeights(self, weights)(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred, class_weights=None):
        """The losses `(...)` without the reduction, with weights of the classes `(..., C)` under `multi_label`."""
        y_pred = ops.cast(y_pred, "float32")
        classes = y_pred.shape[-1]
        if classes == 1 and not self.multi_label:
            _checks.fail(
                "With a single output column the softmax is always 1.",
                f"y_pred of shape {tuple(y_pred.shape)}",
                "Write `multi_label=True` for a binary cross-entropy.",
            )
        ids, y = read_labels(y_true, y_pred)
        even = self.label_smoothing and self.label_smoothing * (0.5 if self.multi_label else 1.0 / classes)
        if class_weights is not None:
            known = class_weights != 0
            y = ops.where(known, y if ids is None else _spread(classes, ids, y), 0.0)
            terms = self._terms(y * (1.0 - self.label_smoothing) + even, self._logs(y_pred))
            return -ops.mean(ops.where(known, class_weights * terms, 0.0), axis=-1)
        y = y * (1.0 - self.label_smoothing) + even
        total = ops.sum(self._terms(y, self._logs(y_pred, ids)), axis=-1)
        if ids is not None and (even or self.multi_label):
            # All the other classes have the label `even`.
            rest = ops.sum(self._terms(even, self._logs(y_pred)), axis=-1)
            total = total + rest - ops.sum(self._terms(even, self._logs(y_pred, ids)), axis=-1)
        return -total / ops.cast(ops.shape(y_pred)[-1], "float32") if self.multi_label else -total

    def _logs(self, y_pred, ids=None):
        """Log-probabilities of the classes `ids` (`None`: of all): of yes, and of no where they are independent."""
        some = y_pred if ids is None else _backend.namespace(y_pred).pick(y_pred, ids)
        epsilon = keras.config.epsilon()
        if self.multi_label and self.from_logits:
            return -ops.softplus(-some), -ops.softplus(some)
        if self.multi_label:
            return ops.log(ops.maximum(some, epsilon)), ops.log(ops.maximum(1.0 - some, epsilon))
        if not self.from_logits:
            return (ops.log(ops.maximum(some / ops.sum(y_pred, axis=-1, keepdims=True), epsilon)),)
        if ids is None:
            return (ops.log_softmax(y_pred, axis=-1),)
        # The softmax of the other classes is not needed. Without the largest logit nothing is lost to rounding.
        largest = ops.stop_gradient(ops.max(y_pred, axis=-1, keepdims=True))
        return (some - largest - ops.log(ops.sum(ops.exp(y_pred - largest), axis=-1, keepdims=True)),)

    def _terms(self, y, logs):
        """What each class adds to the log-likelihood of labels `y`, less their entropy where that is asked for."""
        terms = [_product(share, log) for share, log in zip((y, 1.0 - y), logs, strict=False)]
        if self.subtract_entropy:
            terms += [-_entropy_terms(share) for share, _ in zip((y, 1.0 - y), logs, strict=False)]
        return sum(terms)

    def get_config(self):
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "multi_label": self.multi_label,
            "subtract_entropy": self.subtract_entropy,
        }


class _WithClassWeights(keras.losses.Loss):
    """A `SoftLabelCrossentropy` of one batch with weights of the classes, reduced and masked by Keras."""

    def __init__(self, loss, weights):
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss, self.weights = loss, weights

    def call(self, y_true, y_pred):
        return self.loss.call(y_true, y_pred, self.weights)


def class_weights(sample_weight, y_pred, allowed=False):
    """Sample weights as weights of the classes, or None if they are weights of the samples.

    Args:
        sample_weight: Weights of the samples, `(...)` or `(..., 1)`, or weights of the classes `(..., C)`, or None.
        y_pred: Predictions `(..., C)`.
        allowed: Whether there may be weights of the classes.

    Returns:
        float32 weights of the shape of `y_pred`, or None.

    Raises:
        ValueError: if there are weights of the classes and they are not allowed, or not of the shape of `y_pred`.

    Example:
    >>> y_pred = np.zeros((2, 3))
    >>> tuple(kmix.losses.class_weights(np.ones((2, 3)), y_pred, allowed=True).shape)
    (2, 3)
    >>> kmix.losses.class_weights(np.ones(2), y_pred)
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
            "Sample weights must have the shape of the losses: (...) where the predictions have (..., C).",
            received,
            "Only `SoftLabelCrossentropy(multi_label=True)` takes weights of the classes.",
        )
    if not _may_equal(given, prediction):
        _checks.fail("Weights of the classes must have the shape of `y_pred`, (..., C).", received)
    return ops.broadcast_to(sample_weight, ops.shape(y_pred))


def read_labels(y_true, y_pred):
    """Labels as the classes that have a share, and their shares.

    Args:
        y_true: Soft labels `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` where C > 3.
        y_pred: Predictions `(..., C)`. With C = 1 labels are never ids.

    Returns:
        int32 ids `(..., k)` and float32 shares `(..., k)`, with k = 1 for class ids and 2 for pairs. For
        soft labels, and for labels in a TensorFlow graph whose shape does not tell their form, `None` and
        the shares of all classes `(..., C)`. The shares at an id that is no whole number in `[0, C)` are NaN.

    Raises:
        ValueError: if the shapes do not match.

    Example:
    >>> ids, shares = kmix.losses.read_labels(np.array([[70, 8, 0.75], [5, 5, 0.25]]), np.zeros((2, 100)))
    >>> np.asarray(ids).tolist(), np.asarray(shares).tolist()
    ([[70, 8], [5, 5]], [[0.75, 0.25], [1.0, 0.0]])
    """
    # Losses hand class ids over as float32, too.
    y_true, y_pred = ops.cast(ops.convert_to_tensor(y_true), "float32"), ops.convert_to_tensor(y_pred)
    prediction = tuple(y_pred.shape)
    classes = prediction[-1]
    settled = settle_labels(y_true, classes, len(prediction))
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
    return _shares(y_true, pairs, classes)


def settle_labels(y, classes, rank):
    """Labels whose shape does not tell their form, as soft labels.

    TensorFlow compiles `fit` and `evaluate` for labels of an unknown last axis, or an unknown rank, once it has
    seen labels of two forms (or where a `tf.py_function` made them). Their form is then decided when the values
    are there. All other labels come back as they are.

    Args:
        y: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` where C > 3.
        classes: The number of classes C of the predictions.
        rank: The number of axes of the predictions, `(..., C)`.

    Returns:
        `y` where its static shape tells the form, else float32 labels `(..., C)` of that static rank and last
        axis, NaN for a class id that is no whole number in `[0, C)`.

    Raises:
        ValueError: if the form is unknown and so is the number of classes.
        tf.errors.InvalidArgumentError: when the graph runs on labels of another shape. XLA drops the check; the
            labels are NaN then.

    Example:
    >>> import tensorflow as tf
    >>> settle = tf.function(lambda y: kmix.losses.settle_labels(y, 4, 2), input_signature=[tf.TensorSpec(None)])
    >>> [settle(tf.constant(y)).numpy().tolist() for y in ([2.0], [[2.0]], [[2.0, 0.0, 0.75]])]
    [[[0.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]], [[0.25, 0.0, 0.75, 0.0]]]
    """
    shape = _backend.static_shape(y)
    if not _backend.is_tensorflow(y) or (shape is not None and (len(shape) != rank or shape[-1] is not None)):
        return y
    if classes is None:
        _checks.fail(
            "To tell class ids from soft labels the shape of the labels or the number of classes must be known.",
            f"y_true of shape {shape} and predictions of an unknown last axis",
            "Call `y.set_shape([None, 1])` on class ids, or `y.set_shape([None, C])` on soft labels.",
        )
    import tensorflow as tf

    y = tf.cast(y, "float32")
    sizes = tf.shape(y)
    if shape is None:
        # By arithmetic with sizes, which XLA knows: it takes no conditional with branches of unlike ranks.
        sizes = tf.concat([sizes, tf.ones(tf.where(tf.size(sizes) == rank - 1, 1, 0), "int32")], 0)
    # A scalar has no last axis.
    last = tf.concat([[0], sizes], 0)[-1]
    form = tf.where(last == 1, 0, tf.where(last == classes, 1, tf.where((last == 3) & (classes > 3), 2, 3)))
    form = tf.where(tf.size(sizes) == rank, form, 3)
    _backend.namespace(y).require(form < 3, f"{LABEL_SHAPES} Received labels of another shape.")

    def rows(width):
        return tf.reshape(y, (-1, width))

    def unlike():
        # XLA drops the requirement above. What fits nowhere is not to be counted as something.
        return tf.fill((tf.reduce_prod(sizes[:-1]), classes), float("nan"))

    branches = [
        lambda: rows(1) if classes == 1 else _spread(classes, *_shares(rows(1), False, classes)),
        lambda: rows(classes),
        lambda: _spread(classes, *_shares(rows(3), True, classes)) if classes > 3 else unlike(),
        unlike,
    ]
    y = tf.reshape(tf.switch_case(form, branches), tf.concat([sizes[:-1], [classes]], 0))
    return tf.ensure_shape(y, (*([None] * (rank - 1) if shape is None else shape[:-1]), classes))


LABEL_SHAPES = (
    "`y_true` must have the shape of `y_pred`, (..., C), or hold class ids (...) or (..., 1), or with C > 3 pairs "
    "(..., 3)."
)


def _may_equal(shape, other):
    """Whether two static shapes are the same as far as they are known."""
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))


def _shares(y, pairs, classes):
    """Class ids `(..., 1)`, or `pairs` `(..., 3)`, as int32 ids and their shares, NaN where an id is none."""
    xp = _backend.namespace(y)
    ids, shares = y, 1.0
    if pairs:
        # One class may have both shares.
        first = xp.where(y[..., 0] == y[..., 1], 1.0, y[..., 2])
        ids, shares = y[..., :2], xp.stack([first, 1.0 - first], axis=-1)
    valid = (ids >= 0) & (ids < classes) & (ids == xp.math.floor(ids))
    return xp.cast(xp.where(valid, ids, 0.0), "int32"), xp.where(valid, shares, float("nan"))


def _spread(classes, ids, shares):
    """Shares `(..., k)` at the ids as shares of all classes `(..., C)`."""
    xp = _backend.namespace(shares)
    columns = [slice(column, column + 1) for column in range(ids.shape[-1])]
    return sum(xp.cast(ids[..., column] == xp.arange(classes), "float32") * shares[..., column] for column in columns)


def _product(y, log_p):
    """`y * log_p` with `0 * log 0 = 0`."""
    return ops.where(y == 0, 0.0, y * ops.where(y == 0, 0.0, log_p))


def _entropy_terms(y):
    """`y * log y` with `0 * log 0 = 0`."""
    return _product(y, ops.log(ops.where(y == 0, 1.0, y)))
