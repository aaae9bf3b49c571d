"""Metrics that must not see mixed labels as they are: they get hard labels in a training step, and only there."""

import functools
import inspect
from typing import Any, Self

import keras
from keras import ops

from kmix import _backend
from kmix.layers.training_step import current_step
from kmix.metrics import confidence_and_accuracy

# They threshold labels or cast them to bool. A mixed label of 0.3 would be "positive": both partners would count.
THRESHOLDING = tuple(
    getattr(keras.metrics, name)
    for name in (
        *("AUC", "BinaryAccuracy", "BinaryIoU", "FalseNegatives", "FalsePositives", "TrueNegatives", "TruePositives"),
        *("Precision", "PrecisionAtRecall", "Recall", "RecallAtPrecision"),
        *("SensitivityAtSpecificity", "SpecificityAtSensitivity"),
    )
)


@keras.saving.register_keras_serializable(package="kmix")
class HardLabels(keras.metrics.Metric):
    """A metric that gets hard labels, `y >= 0.5`, in a training step on mixed batches. In a Mosaic, the largest counts.

    Outside a step, above all in `evaluate`, the metric gets the labels unchanged, and so do integer labels always:
    nothing has mixed them. Its name, state and result are those of the wrapped metric.

    Args:
        metric: A Keras metric of labels in [0, 1].
        name: Name of the metric. Defaults to the name of `metric`.

    Call arguments:
        y_true: Labels in [0, 1].
        y_pred: Predictions.
        sample_weight: Optional weights.

    Example:
        >>> from kmix.layers.training_step import TrainingStep, run_step
        >>> metric = kmix.training.hard_label_metrics.HardLabels(keras.metrics.Precision())
        >>> with run_step(TrainingStep()):
        ...     metric.update_state(np.array([[0.7], [0.3]]), np.array([[0.9], [0.9]]))
        >>> float(metric.result())
        0.5
    """

    def __init__(self, metric: Any, name: str | None = None) -> None:
        super().__init__(name=name or metric.name, dtype=metric.dtype)
        self.metric = metric
        # From this attribute, Keras' callbacks know whether higher is better.
        if hasattr(metric, "_direction"):
            self._direction = metric._direction

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        step = current_step()
        if step is not None and "float" in _backend.dtype(y_true := ops.convert_to_tensor(y_true)):
            hard = y_true >= 0.5
            if step.several and len(y_true.shape) > 1:
                # Of more than two labels, none may have half of the share.
                largest = ops.one_hot(ops.argmax(y_true, axis=-1), y_true.shape[-1], dtype="bool")
                hard = ops.where(ops.any(hard, axis=-1, keepdims=True), hard, largest)
            y_true = ops.cast(hard, "float32")
        return self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self) -> Any:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "metric": keras.saving.serialize_keras_object(self.metric)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "metric": keras.saving.deserialize_keras_object(config["metric"])})


@keras.saving.register_keras_serializable(package="kmix")
class Accuracy(keras.metrics.MeanMetricWrapper):
    """What Keras means by `"accuracy"` for the labels of each batch: binary, of class ids, or of one-hot labels.

    In a training step the share of the predicted class counts for labels of one column, since a mixed label never
    equals a prediction of 0 or 1, and for pairs.

    Args:
        name: Name of the metric.
        dtype: Dtype of the metric.

    Call arguments:
        y_true: Labels.
        y_pred: Predictions.
        sample_weight: Optional weights.

    Example:
        >>> metric = kmix.training.hard_label_metrics.Accuracy()
        >>> float(metric(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])))
        0.5
        >>> float(metric(np.eye(2), np.eye(2)))
        0.75
    """

    def __init__(self, name: str = "accuracy", dtype: Any = None) -> None:
        super().__init__(_accuracy, name=name, dtype=dtype)
        self._direction = "up"

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


def _accuracy(y_true, y_pred):
    shape, columns = _backend.static_shape(y_true), y_pred.shape[-1]
    pairs = (shape or ())[-1:] == (3,) and columns is not None and columns > 3
    if pairs or (columns == 1 and current_step() is not None):
        return confidence_and_accuracy(y_true, ops.cast(y_pred, "float32"))[1]
    if columns == 1:
        return keras.metrics.binary_accuracy(y_true, y_pred)
    if shape is not None and (len(shape) < len(y_pred.shape) or shape[-1] == 1):
        return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)
    return keras.metrics.categorical_accuracy(y_true, y_pred)


def in_training(metrics: Any) -> Any:
    """The metrics for `compile(metrics=...)`, wrapped where mixed labels need it.

    Args:
        metrics: None, or a list, tuple or dictionary of metrics, nested or not: names, metrics, classes, functions.

    Returns:
        The same structure. Metrics that threshold labels or cast them to bool become `HardLabels`, `"accuracy"` becomes
        `Accuracy`; all others stay unchanged.

    Example:
        >>> kmix.training.hard_label_metrics.in_training(["AUC", "acc", "mse", None])
        [<HardLabels name=AUC>, <Accuracy name=acc>, 'mse', None]
    """
    return keras.tree.map_structure(_in_training, metrics)


def _in_training(metric):
    # Keras reports a metric under the name with which it was requested.
    if isinstance(metric, str):
        if metric.lower() in ("accuracy", "acc"):
            return Accuracy(metric)
        known = {cls.__name__.lower() for cls in THRESHOLDING}
        return (
            HardLabels(keras.metrics.get(metric), name=metric) if metric.replace("_", "").lower() in known else metric
        )
    if inspect.isclass(metric):
        return HardLabels(metric()) if issubclass(metric, THRESHOLDING) else metric
    if _is_binary_accuracy(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return HardLabels(keras.metrics.MeanMetricWrapper(metric, name=name))
    # The config of a wrapper would tell, but not every function that a user wraps has one.
    wraps = isinstance(metric, keras.metrics.MeanMetricWrapper) and any(map(_is_binary_accuracy, vars(metric).values()))
    return HardLabels(metric) if wraps or isinstance(metric, THRESHOLDING) else metric


def _is_binary_accuracy(function):
    """Whether this is Keras' function, or a `functools.partial` of it."""
    while isinstance(function, functools.partial):
        function = function.func
    return function is keras.metrics.binary_accuracy
