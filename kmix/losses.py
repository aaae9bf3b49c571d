"""A cross-entropy for mixed labels."""

import keras
from keras import ops

from kmix import _backend, _checks

__all__ = ["SoftLabelCrossentropy"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelCrossentropy(keras.losses.Loss):
    """Cross-entropy that takes soft labels and integer class ids alike.

    One compiled loss so serves mixed training data and plain validation data. Labels with one axis less
    than the predictions, or with a last axis of 1, are class ids; labels with a last axis of 3 are pairs
    if there are more than 3 classes (see `labels="pair"` of the layers). Neither is one-hot encoded.
    Everything is computed in float32.

    Args:
        from_logits: Whether `y_pred` holds logits rather than probabilities. Defaults to `False`.
        label_smoothing: Share in [0, 1] of each label that is spread evenly over the classes.
        multi_label: Whether the classes are independent: a binary cross-entropy for each, averaged.
        subtract_entropy: Whether to report the Kullback-Leibler divergence from the labels, whose
            minimum is 0 for soft labels, too. The gradients are the same. Defaults to `False`.
        reduction: `"sum_over_batch_size"` (the default), `"sum"`, `"mean"`,
            `"mean_with_sample_weight"` or `None`, as in Keras.
        name: Name of the loss.
        dtype: Accepted for Keras' config; the loss computes in float32 whatever the policy.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`.
        sample_weight: Optional weights that broadcast to the shape of the losses, `(...)`.

    Returns:
        float32: a scalar, or the losses of shape `(...)` with `reduction=None`. A class id that is
        no whole number in `[0, C)` gives NaN.

    Raises:
        ValueError: if the shapes of `y_true` and `y_pred` do not match; if there is one class only and
            `multi_label` is not set.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
    >>> loss = kmix.losses.SoftLabelCrossentropy()
    >>> y_pred = np.array([[0.5, 0.25, 0.25]])
    >>> round(float(loss(np.array([[0.5, 0.5, 0.0]]), y_pred)), 4)
    1.0397
    >>> round(float(loss(np.array([0]), y_pred)), 4)
    0.6931
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

    def call(self, y_true, y_pred):
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


def read_labels(y_true, y_pred):
    """Labels as the classes that have a share, and their shares.

    Args:
        y_true: Soft labels `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` where C > 3.
        y_pred: Predictions `(..., C)`. With C = 1 labels are never ids.

    Returns:
        int32 ids `(..., k)` and float32 shares `(..., k)`, with k = 1 for class ids and 2 for pairs. For
        soft labels `None` and the labels: the shares of all classes. The shares at an id that is no
        whole number in `[0, C)` are NaN.

    Raises:
        ValueError: if the shapes do not match.

    Example:
    >>> ids, shares = kmix.losses.read_labels(np.array([[70, 8, 0.75], [5, 5, 0.25]]), np.zeros((2, 100)))
    >>> np.asarray(ids).tolist(), np.asarray(shares).tolist()
    ([[70, 8], [5, 5]], [[0.75, 0.25], [1.0, 0.0]])
    """
    # Losses hand class ids over as float32, too.
    y_true, y_pred = ops.cast(ops.convert_to_tensor(y_true), "float32"), ops.convert_to_tensor(y_pred)
    given, prediction = tuple(y_true.shape), tuple(y_pred.shape)
    if len(given) == len(prediction) - 1:
        y_true = ops.expand_dims(y_true, -1)
    label, classes = tuple(y_true.shape), prediction[-1]
    pairs = label[-1] == 3 and classes is not None and classes > 3
    matches = len(label) == len(prediction) and all(
        a == b or None in (a, b) for a, b in zip(label[:-1], prediction[:-1], strict=True)
    )
    if not matches or not (pairs or label[-1] in (1, None, classes)):
        _checks.fail(
            "`y_true` must have the shape of `y_pred`, (..., C), or hold class ids (...) or (..., 1), or with C > 3 "
            "pairs (..., 3).",
            f"y_true of shape {given} and y_pred of shape {prediction}",
        )
    if classes == 1 or not (pairs or label[-1] == 1):
        return None, y_true
    if pairs:
        ids, first = y_true[..., :2], y_true[..., 2:]
        # One class may have both shares.
        first = ops.where(ids[..., :1] == ids[..., 1:], 1.0, first)
        shares = ops.concatenate([first, 1.0 - first], axis=-1)
    else:
        ids, shares = y_true, ops.ones_like(y_true)
    valid = (ids >= 0) & (ids < classes) & (ids == ops.floor(ids))
    return ops.cast(ops.where(valid, ids, 0.0), "int32"), ops.where(valid, shares, float("nan"))


def _product(y, log_p):
    """`y * log_p` with `0 * log 0 = 0`."""
    return ops.where(y == 0, 0.0, y * ops.where(y == 0, 0.0, log_p))


def _entropy_terms(y):
    """`y * log y` with `0 * log 0 = 0`."""
    return _product(y, ops.log(ops.where(y == 0, 1.0, y)))
