"""Metrics for both soft labels and class ids."""

from typing import Any

import keras
from keras import ops

from kmix import _checks
from kmix.label_forms import LabelForm
from kmix.losses import ReducedByKeras, check_ignore_class, read_weights

__all__ = ["ExpectedCalibrationError", "SoftLabelAccuracy", "SoftLabelMeanIoU"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelAccuracy(keras.metrics.Mean):
    """The label mass at the predicted class: plain accuracy for hard labels, expected accuracy for soft ones.

    It accepts class ids, soft labels and pairs, so one compiled metric works for mixed training data and plain
    validation data. (Keras resolves `"accuracy"` once, from the training labels, and it then reports 0.0 on
    integer validation labels.)

    Predictions that a mask of Keras leaves out, such as padded tokens behind `Embedding(mask_zero=True)`, do not count.
    (On JAX, Keras keeps no masks for the metrics of a training step, its own included: what `fit` reports for training
    data counts padding there, unless it has sample weights of 0 and is one of the `weighted_metrics`.)

    Args:
        name: Name of the metric.
        ignore_class: Id of the pixels (or samples) without a class, which do not count, see `SoftLabelCrossentropy`.
        dtype: Dtype of the metric.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`, probabilities or logits. A single column must hold the probability
            of the positive class; the metric predicts that class above 0.5.
        sample_weight: Optional weights of shape `(...)`, or of its leading axes: `(B,)` for images.

    Raises:
        TypeError: if `ignore_class` is not an integer.
        ValueError: if the shapes of `y_true` and `y_pred` do not match, or the weights have the shape `(..., C)`; if
            `ignore_class` is given and `y_pred` has a single column.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
        >>> metric = kmix.metrics.SoftLabelAccuracy()
        >>> y_pred = np.array([[0.9, 0.1], [0.2, 0.8]])
        >>> round(float(metric(np.array([[0.7, 0.3], [1.0, 0.0]]), y_pred)), 2)
        0.35
    """

    def __init__(
        self, name: str = "soft_label_accuracy", *, ignore_class: int | None = None, dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignore_class: int | None = check_ignore_class(ignore_class)
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        weight = prediction_weights(y_pred, sample_weight)
        labels, y_pred = read(y_true, y_pred, self.ignore_class)
        accuracy = labels.share_of(ops.argmax(y_pred, axis=-1))
        if self.ignore_class is not None:
            accuracy, weight = ops.divide_no_nan(accuracy, labels.mass), labels.mass * weight
        super().update_state(accuracy, sample_weight=weight)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("ignore_class", "name", "dtype")}


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelMeanIoU(keras.metrics.Metric):
    """The mean over the classes of intersection over union, for masks of class ids as well as one-hot or soft ones.

    A pixel of a soft mask counts for its class with the largest share, so one compiled metric works for the blended
    masks of training and the masks of class ids in validation. It counts by the sum of its shares: not at all where all
    are 0, in part where a mixed pixel has one partner without a class. Classes that are in neither the labels nor the
    predictions do not count. Masks of Keras are honoured as in `SoftLabelAccuracy`.

    Args:
        num_classes: Number of classes C, at least 2.
        ignore_class: Id of the pixels without a class, which do not count, such as 255.
        name: Name of the metric.
        dtype: Dtype of the metric.

    Call arguments:
        y_true: Masks or other labels: class ids `(...)` or `(..., 1)`, one-hot or soft `(..., C)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`, probabilities or logits. With two classes also a single column, the probability
            of class 1.
        sample_weight: Optional weights of shape `(...)`, or of its leading axes: `(B,)` for images.

    Raises:
        TypeError: if `num_classes` or `ignore_class` is not an integer.
        ValueError: if `num_classes < 2`; if `y_pred` has another number of columns; if the shapes of `y_true` and
            `y_pred` do not match, or the weights have the shape `(..., C)`.

    Reference:
        M. Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective",
        https://doi.org/10.1007/s11263-014-0733-5

    Example:
        Of three pixels, the second is predicted wrong.

        >>> metric = kmix.metrics.SoftLabelMeanIoU(num_classes=2, ignore_class=255)
        >>> y_pred = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.5, 0.5]])
        >>> float(metric(np.array([0, 0, 1, 255]), y_pred))
        0.5
        >>> metric.reset_state()
        >>> float(metric(np.array([[1.0, 0.0], [0.6, 0.4], [0.2, 0.8], [0.0, 0.0]]), y_pred))
        0.5
    """

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_class: int | None = None,
        name: str = "soft_label_mean_iou",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_classes: int = _checks.integer(num_classes, "num_classes", 2)
        self.ignore_class: int | None = check_ignore_class(ignore_class)
        self._direction = "up"
        # How much of each class was predicted as each. Keras' own `MeanIoU` counts in integers, and so rounds weights.
        self.confusion: keras.Variable = self.add_variable(
            (self.num_classes, self.num_classes), "zeros", name="confusion"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        weight = prediction_weights(y_pred, sample_weight)
        labels, y_pred = read(y_true, y_pred, self.ignore_class)
        if y_pred.shape[-1] != self.num_classes:
            _checks.fail(
                "`y_pred` must have a column for each class.",
                f"y_pred of shape {tuple(y_pred.shape)} with num_classes={self.num_classes}",
            )
        cell = labels.largest() * self.num_classes + ops.argmax(y_pred, axis=-1)
        weight, cell = (ops.reshape(values, (-1,)) for values in (weight * labels.mass, cell))
        cells = ops.segment_sum(weight, cell, num_segments=self.num_classes**2)
        self.confusion.assign_add(ops.cast(ops.reshape(cells, self.confusion.shape), self.confusion.dtype))

    def result(self) -> Any:
        both = ops.diagonal(self.confusion)
        union = ops.sum(self.confusion, axis=0) + ops.sum(self.confusion, axis=1) - both
        count = ops.sum(ops.cast(union != 0, union.dtype))
        return ops.divide_no_nan(ops.sum(ops.divide_no_nan(both, union)), count)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("num_classes", "ignore_class", "name", "dtype")}


@keras.saving.register_keras_serializable(package="kmix")
class ExpectedCalibrationError(keras.metrics.Metric):
    """Mean gap between confidence and accuracy, over equal bins of confidence. 0 is perfectly calibrated.

    Masks of Keras are honoured as in `SoftLabelAccuracy`.

    Args:
        num_bins: Number of bins of equal width on [0, 1]. Defaults to 15.
        from_logits: Whether `y_pred` holds logits rather than probabilities. Defaults to `False`.
        name: Name of the metric.
        dtype: Dtype of the metric.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`. A single column is the probability of the positive class.
        sample_weight: Optional weights of shape `(...)`, or of its leading axes: `(B,)` for images.

    Raises:
        TypeError: if `num_bins` is not an integer, or `from_logits` is not True or False.
        ValueError: if `num_bins < 1`; if the shapes of `y_true` and `y_pred` do not match; if the weights have the
            shape `(..., C)`.

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Example:
        Four predictions with a confidence of 0.8, three of them correct.

        >>> metric = kmix.metrics.ExpectedCalibrationError(num_bins=10)
        >>> round(float(metric(np.array([0, 0, 0, 1]), np.array([[0.8, 0.2]] * 4))), 3)
        0.05
    """

    def __init__(
        self,
        num_bins: int = 15,
        *,
        from_logits: bool = False,
        name: str = "expected_calibration_error",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_bins: int = _checks.integer(num_bins, "num_bins", 1)
        self.from_logits: bool = _checks.boolean(from_logits, "from_logits")
        self._direction = "down"
        self.gap: keras.Variable = self.add_variable((self.num_bins,), "zeros", name="gap")
        self.total: keras.Variable = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        weight = prediction_weights(y_pred, sample_weight)
        if self.from_logits:
            y_pred = ops.cast(y_pred, "float32")
            y_pred = ops.sigmoid(y_pred) if y_pred.shape[-1] == 1 else ops.softmax(y_pred, axis=-1)
        values = (weight, *confidence_and_accuracy(y_true, y_pred))
        weight, confidence, accuracy = (ops.reshape(value, (-1,)) for value in values)
        # A confidence on the edge between two bins belongs to the lower bin, as in the paper.
        bin_index = ops.ceil(confidence * self.num_bins) - 1
        bin_index = ops.clip(ops.cast(bin_index, "int32"), 0, self.num_bins - 1)
        gap = ops.segment_sum(weight * (accuracy - confidence), bin_index, num_segments=self.num_bins)
        self.gap.assign_add(ops.cast(gap, self.gap.dtype))
        self.total.assign_add(ops.cast(ops.sum(weight), self.total.dtype))

    def result(self) -> Any:
        return ops.divide_no_nan(ops.sum(ops.abs(self.gap)), self.total)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("num_bins", "from_logits", "name", "dtype")}


def prediction_weights(y_pred: Any, sample_weight: Any = None) -> Any:
    """The weight of each prediction, float32 `(...)`: its sample weight, and 0 where Keras' mask leaves it out."""
    weights, _ = read_weights(sample_weight, y_pred)
    # A loss of 1 for each prediction, since Keras applies the mask of `y_pred` to losses.
    return ReducedByKeras(lambda _, y_pred: ops.ones_like(y_pred[..., 0]), None)(y_pred, y_pred, weights)


def read(y_true: Any, y_pred: Any, ignore_class: int | None = None) -> tuple[LabelForm, Any]:
    """The `LabelForm` of labels, and the predictions in float32; a single column as the two classes that it means."""
    y_pred = ops.cast(y_pred, "float32")
    labels = LabelForm.read(ops.convert_to_tensor(y_true), y_pred, ignore_class)
    if y_pred.shape[-1] == 1:
        shares, y_pred = (ops.concatenate([1.0 - values, values], axis=-1) for values in (labels.shares, y_pred))
        labels = labels._replace(shares=shares, num_classes=2)
    return labels, y_pred


def confidence_and_accuracy(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Confidence `(...)` and label mass `(...)` of the predicted class, for the same arguments as the metrics."""
    labels, y_pred = read(y_true, y_pred)
    return ops.max(y_pred, axis=-1), labels.share_of(ops.argmax(y_pred, axis=-1))
