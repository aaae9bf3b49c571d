"""A cross-entropy for mixed labels."""

import keras
from keras import ops

from kmix import _checks

__all__ = ["SoftLabelCrossentropy"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelCrossentropy(keras.losses.Loss):
    """Cross-entropy that takes soft labels and integer class ids alike.

    One compiled loss so serves mixed training data and plain validation data. Labels with one axis less
    than the predictions, or with a last axis of 1, are class ids. Everything is computed in float32.

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
        y_true: Labels: soft `(..., C)`, or class ids `(...)` or `(..., 1)`.
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
        y_true = soft_labels(y_true, y_pred)
        if self.label_smoothing:
            even = 0.5 if self.multi_label else 1.0 / classes
            y_true = y_true * (1.0 - self.label_smoothing) + even * self.label_smoothing
        if self.multi_label:
            positive, negative = self._binary_log(y_pred)
            terms = _product(y_true, positive) + _product(1.0 - y_true, negative)
            if self.subtract_entropy:
                terms = terms - _entropy_terms(y_true) - _entropy_terms(1.0 - y_true)
            return -ops.mean(terms, axis=-1)
        terms = _product(y_true, self._log(y_pred))
        if self.subtract_entropy:
            terms = terms - _entropy_terms(y_true)
        return -ops.sum(terms, axis=-1)

    def _log(self, y_pred):
        """Log-probabilities of classes that exclude each other."""
        if self.from_logits:
            return ops.log_softmax(y_pred, axis=-1)
        y_pred = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
        return ops.log(ops.maximum(y_pred, keras.config.epsilon()))

    def _binary_log(self, y_pred):
        """Log-probabilities of yes and no for independent classes."""
        if self.from_logits:
            return -ops.softplus(-y_pred), -ops.softplus(y_pred)
        epsilon = keras.config.epsilon()
        return ops.log(ops.maximum(y_pred, epsilon)), ops.log(ops.maximum(1.0 - y_pred, epsilon))

    def get_config(self):
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "multi_label": self.multi_label,
            "subtract_entropy": self.subtract_entropy,
        }


def soft_labels(y_true, y_pred):
    """Labels as float32 of the shape of `y_pred`: soft labels as they are, class ids one-hot encoded.

    Args:
        y_true: Soft labels `(..., C)`, or class ids `(...)` or `(..., 1)`.
        y_pred: Predictions `(..., C)`. With C = 1 labels are never ids.

    Returns:
        float32 tensor `(..., C)`. The row of an id that is no whole number in `[0, C)` is NaN.

    Raises:
        ValueError: if the shapes do not match.

    Example:
    >>> np.asarray(kmix.losses.soft_labels(np.array([1, 0]), np.zeros((2, 3))))
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    given, prediction = tuple(y_true.shape), tuple(y_pred.shape)
    label = given
    if len(label) == len(prediction) - 1:
        y_true = ops.expand_dims(y_true, -1)
        label = (*label, 1)
    matches = len(label) == len(prediction) and all(
        a == b or None in (a, b) for a, b in zip(label[:-1], prediction[:-1], strict=True)
    )
    if not matches or label[-1] not in (1, None, prediction[-1]):
        _checks.fail(
            "`y_true` must have the shape of `y_pred`, (..., C), or hold class ids (...) or (..., 1).",
            f"y_true of shape {given} and y_pred of shape {prediction}",
        )
    if label[-1] != 1 or prediction[-1] == 1:
        return ops.cast(y_true, "float32")
    # Losses hand their labels over as float32.
    ids = ops.cast(y_true, "float32")
    classes = ops.arange(prediction[-1], dtype="float32")
    valid = (ids >= 0) & (ids < prediction[-1]) & (ids == ops.floor(ids))
    return ops.where(valid, ops.cast(ids == classes, "float32"), float("nan"))


def _product(y, log_p):
    """`y * log_p` with `0 * log 0 = 0`."""
    return ops.where(y == 0, 0.0, y * ops.where(y == 0, 0.0, log_p))


def _entropy_terms(y):
    """`y * log y` with `0 * log 0 = 0`."""
    return _product(y, ops.log(ops.where(y == 0, 1.0, y)))
