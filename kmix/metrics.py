"""Metrics for both soft labels and class ids."""

import keras
from keras import ops

from kmix import _checks
from kmix.targets.label_forms import class_weights, expand_weights, label_mass, read_labels

__all__ = ["ExpectedCalibrationError", "SoftLabelAccuracy"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelAccuracy(keras.metrics.Mean):
    """The label mass at the predicted class: plain accuracy for hard labels, expected accuracy for soft ones.

    It accepts class ids, soft labels and pairs, so one compiled metric works for mixed training data and plain
    validation data. (Keras resolves `"accuracy"` once, from the training labels, and it then reports 0.0 on
    integer validation labels.)

    Args:
        name: Name of the metric.
        dtype: Dtype of the metric.
        ignore_class: Id of the pixels (or samples) without a class, which do not count, see `SoftLabelCrossentropy`.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`, probabilities or logits. A single column must hold the probability
            of the positive class; the metric predicts that class above 0.5.
        sample_weight: Optional weights of shape `(...)`, or of its leading axes: `(B,)` for images.

    Raises:
        ValueError: if the shapes of `y_true` and `y_pred` do not match, or the weights have the shape `(..., C)`.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
    >>> metric = kmix.metrics.SoftLabelAccuracy()
    >>> y_pred = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> round(float(metric(np.array([[0.7, 0.3], [1.0, 0.0]]), y_pred)), 2)
    0.35
    """

    def __init__(self, name="soft_label_accuracy", dtype=None, ignore_class=None):
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = None if ignore_class is None else _checks.integer(ignore_class, "ignore_class", -(2**31))
        self._direction = "up"

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.cast(y_pred, "float32")
        class_weights(sample_weight, y_pred)
        accuracy = confidence_and_accuracy(y_true, y_pred, self.ignore_class)[1]
        weight = expand_weights(sample_weight, len(y_pred.shape) - 1)
        if self.ignore_class is not None:
            mass = label_mass(y_true, y_pred, self.ignore_class)
            accuracy, weight = ops.divide_no_nan(accuracy, mass), mass if weight is None else mass * weight
        super().update_state(accuracy, sample_weight=weight)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="kmix")
class ExpectedCalibrationError(keras.metrics.Metric):
    """Mean gap between confidence and accuracy, over equal bins of confidence. 0 is perfectly calibrated.

    Args:
        num_bins: Number of bins of equal width on [0, 1]. Defaults to 15.
        from_logits: Whether `y_pred` holds logits rather than probabilities. Defaults to `False`.
        name: Name of the metric.
        dtype: Dtype of the metric.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`. A single column is the probability of the positive class.
        sample_weight: Optional weights of shape `(...)`.

    Raises:
        ValueError: if `num_bins < 1`; if the shapes of `y_true` and `y_pred` do not match; if the weights have the
            shape `(..., C)`.

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Example: four predictions with a confidence of 0.8, three of them correct.

    >>> metric = kmix.metrics.ExpectedCalibrationError(num_bins=10)
    >>> round(float(metric(np.array([0, 0, 0, 1]), np.array([[0.8, 0.2]] * 4))), 3)
    0.05
    """

    def __init__(self, num_bins=15, from_logits=False, name="expected_calibration_error", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.num_bins = _checks.integer(num_bins, "num_bins", 1)
        self.from_logits = from_logits
        self._direction = "down"
        self.gap = self.add_variable((self.num_bins,), "zeros", name="gap")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.cast(y_pred, "float32")
        class_weights(sample_weight, y_pred)
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred) if y_pred.shape[-1] == 1 else ops.softmax(y_pred, axis=-1)
        confidence, accuracy = (ops.reshape(values, (-1,)) for values in confidence_and_accuracy(y_true, y_pred))
        weight = 1.0 if sample_weight is None else expand_weights(sample_weight, len(y_pred.shape) - 1)
        weight = ops.reshape(ops.broadcast_to(weight, ops.shape(y_pred)[:-1]), (-1,))
        # A confidence on the edge between two bins belongs to the lower bin, as in the paper.
        bin_index = ops.ceil(confidence * self.num_bins) - 1
        bin_index = ops.clip(ops.cast(bin_index, "int32"), 0, self.num_bins - 1)
        gap = ops.segment_sum(weight * (accuracy - confidence), bin_index, num_segments=self.num_bins)
        self.gap.assign_add(ops.cast(gap, self.gap.dtype))
        self.total.assign_add(ops.cast(ops.sum(weight), self.total.dtype))

    def result(self):
        return ops.divide_no_nan(ops.sum(ops.abs(self.gap)), self.total)

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype,
            "num_bins": self.num_bins,
            "from_logits": self.from_logits,
        }


def confidence_and_accuracy(y_true, y_pred, ignore_class=None):
    """Confidence `(...)` and label mass `(...)` of the predicted class, for the same arguments as the metrics."""
    ids, shares = read_labels(y_true, y_pred, ignore_class)
    if y_pred.shape[-1] == 1:
        # One column: the probability of the positive class.
        shares, y_pred = (ops.concatenate([1.0 - values, values], axis=-1) for values in (shares, y_pred))
    predicted = ops.expand_dims(ops.argmax(y_pred, axis=-1), -1)
    confidence = ops.take_along_axis(y_pred, predicted, axis=-1)
    if ids is None:
        shares = ops.take_along_axis(shares, predicted, axis=-1)
    else:
        shares = shares * ops.cast(ids == ops.cast(predicted, ids.dtype), "float32")
    return ops.squeeze(confidence, -1), ops.sum(shares, axis=-1)
