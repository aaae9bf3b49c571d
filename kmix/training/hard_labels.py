"""Give hard labels in a training step to metrics that threshold labels or cast them to bool.

For such a metric a mixed label of 0.3 is "positive": both partners of a mixed label would silently count.
"""

import functools
import inspect

import keras
from keras import ops

from kmix.layers.step import running

METRICS = (
    keras.metrics.AUC,
    keras.metrics.BinaryAccuracy,
    keras.metrics.BinaryIoU,
    keras.metrics.FalseNegatives,
    keras.metrics.FalsePositives,
    keras.metrics.Precision,
    keras.metrics.PrecisionAtRecall,
    keras.metrics.Recall,
    keras.metrics.RecallAtPrecision,
    keras.metrics.SensitivityAtSpecificity,
    keras.metrics.SpecificityAtSensitivity,
    keras.metrics.TrueNegatives,
    keras.metrics.TruePositives,
)


@keras.saving.register_keras_serializable(package="kmix")
class HardLabels(keras.metrics.Metric):
    """A metric that gets hard labels, `y >= 0.5`, in a training step on mixed batches. In a Mosaic, the largest counts.

    Outside a step, above all in `evaluate`, the metric gets the labels unchanged. Its name, state and result are those
    of the wrapped metric.

    Args:
        metric: A Keras metric of labels in [0, 1].
        name: Name of the metric. Defaults to the name of `metric`.

    Call arguments:
        y_true: Labels in [0, 1].
        y_pred: Predictions.
        sample_weight: Optional weights.

    Example:
    >>> from kmix.layers.step import Step, run
    >>> metric = kmix.training.hard_labels.HardLabels(keras.metrics.Precision())
    >>> with run(Step()):
    ...     metric.update_state(np.array([[0.7], [0.3]]), np.array([[0.9], [0.9]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, metric, name=None):
        super().__init__(name=name or metric.name, dtype=metric.dtype)
        self.metric = metric
        # From this attribute, Keras' callbacks know whether higher is better.
        if hasattr(metric, "_direction"):
            self._direction = metric._direction

    def update_state(self, y_true, y_pred, sample_weight=None):
        step = running()
        if step is not None:
            y_true = ops.convert_to_tensor(y_true)
            hard = y_true >= 0.5
            if step.several and len(y_true.shape) > 1:
                # Of more than two labels, none may have half of the share.
                largest = ops.one_hot(ops.argmax(y_true, axis=-1), y_true.shape[-1], dtype="bool")
                hard = ops.where(ops.any(hard, axis=-1, keepdims=True), hard, largest)
            y_true = ops.cast(hard, "float32")
        return self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self):
        return self.metric.result()

    def reset_state(self):
        self.metric.reset_state()

    def get_config(self):
        return {"name": self.name, "metric": keras.saving.serialize_keras_object(self.metric)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "metric": keras.saving.deserialize_keras_object(config["metric"])})


def harden(metrics):
    """Wrap metrics for `compile(metrics=...)` that threshold labels or cast them to bool in `HardLabels`.

    Args:
        metrics: None, or a list, tuple or dictionary of metrics, nested or not: names, metrics, classes, functions.

    Returns:
        The same structure. Other metrics stay unchanged, and so do those that are already `HardLabels`.

    Example:
    >>> kmix.training.hard_labels.harden(["AUC", "mse", None])
    [<HardLabels name=AUC>, 'mse', None]
    """
    return keras.tree.map_structure(_hardened, metrics)


def _hardened(metric):
    if isinstance(metric, str):
        if metric.replace("_", "").lower() not in {cls.__name__.lower() for cls in METRICS}:
            return metric
        # Keras reports a metric under the name with which it was requested.
        return HardLabels(keras.metrics.get(metric), name=metric)
    if inspect.isclass(metric):
        return HardLabels(metric()) if issubclass(metric, METRICS) else metric
    if _is_binary_accuracy(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return HardLabels(keras.metrics.MeanMetricWrapper(metric, name=name))
    return HardLabels(metric) if isinstance(metric, METRICS) or _wraps_binary_accuracy(metric) else metric


def _is_binary_accuracy(function):
    """Whether this is Keras' function, or a `functools.partial` of it."""
    while isinstance(function, functools.partial):
        function = function.func
    return function is keras.metrics.binary_accuracy


def _wraps_binary_accuracy(metric):
    # The config would tell, but not every function that a user wraps has one.
    return isinstance(metric, keras.metrics.MeanMetricWrapper) and any(map(_is_binary_accuracy, vars(metric).values()))
