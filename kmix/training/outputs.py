"""Which labels belong to which output of a model, their form, and the metrics behind the names."""

from typing import Any, NamedTuple

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.losses import SoftLabelCrossentropy
from kmix.metrics import SoftLabelAccuracy
from kmix.targets.assign import explicit
from kmix.targets.label_forms import settle_labels
from kmix.targets.labels import recognise
from kmix.targets.spread import spread

tree = keras.tree

# Losses for which every column of the output is a class.
_CLASS_LOSSES = (
    SoftLabelCrossentropy,
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.CategoricalGeneralizedCrossEntropy,
    keras.losses.CategoricalHinge,
    keras.losses.KLDivergence,
)


class Outputs:
    """The outputs of a model, and which labels the loss compares with each.

    Args:
        model: The model.
    """

    def __init__(self, model):
        outputs = getattr(model, "outputs", None) or []
        by_name = {}
        if outputs and not isinstance(model, keras.Sequential):
            by_name = dict(zip(model.output_names, outputs, strict=True))
            if isinstance(model.output, dict):
                by_name.update(model.output)
        self.shapes = [output.shape for output in outputs]
        self.by_name = {name: output.shape for name, output in by_name.items()}

    def shapes_of(self, y):
        """For each array of `y`, the shape of its output; None if unknown."""
        if isinstance(y, dict):
            return [self.by_name.get(path[0]) for path, _ in tree.flatten_with_path(y)]
        count = len(tree.flatten(y))
        return self.shapes if count == len(self.shapes) else [None] * count

    def losses_of(self, loss, y):
        """For each array of `y`, its loss; None if unknown."""
        names = list(self.by_name)
        if isinstance(loss, dict):
            keys = [path[0] for path, _ in tree.flatten_with_path(y)] if isinstance(y, dict) else names
            losses = [loss.get(key) for key in keys]
        elif isinstance(loss, (list, tuple)) and isinstance(y, dict):
            in_order = dict(zip(names, loss, strict=False))
            losses = [in_order.get(path[0]) for path, _ in tree.flatten_with_path(y)]
        else:
            losses = list(loss) if isinstance(loss, (list, tuple)) else [loss] * len(tree.flatten(y))
        count = len(tree.flatten(y))
        return losses if len(losses) == count else [None] * count

    def name_metrics(self, metrics, num_classes, labels):
        """Metrics in which "accuracy" and "crossentropy" are replaced by what they mean for soft labels.

        Keras would choose from the shapes of the labels, and may see labels that are not encoded yet.
        """
        columns = [shape[-1] for shape in self.shapes] or [num_classes if isinstance(num_classes, int) else None]

        def resolve(metric, column):
            if isinstance(metric, (list, tuple)):
                return [resolve(item, column) for item in metric]
            if column is None or metric not in ("accuracy", "acc", "crossentropy", "ce"):
                return metric
            if metric in ("accuracy", "acc"):
                # A mixed label never equals a prediction of 0 or 1, and only kmix reads pairs.
                soft = column == 1 or labels == "pair"
                return SoftLabelAccuracy(metric) if soft else keras.metrics.CategoricalAccuracy(metric)
            kind = keras.metrics.BinaryCrossentropy if column == 1 else keras.metrics.CategoricalCrossentropy
            return kind(name=metric)

        if isinstance(metrics, dict):
            return {name: resolve(value, self.by_name.get(name, (None,))[-1]) for name, value in metrics.items()}
        if isinstance(metrics, (list, tuple)) and len(columns) == len(metrics) > 1:
            return [resolve(value, column) for value, column in zip(metrics, columns, strict=True)]
        return resolve(metrics, columns[0] if len(columns) == 1 else None)


class Label(NamedTuple):
    """One array of labels, and what is known about it."""

    y: Any
    target: Any
    num_classes: int | None
    output: Any  # shape of its output
    loss: Any

    @property
    def is_label(self):
        """Whether it follows a plan like labels do."""
        return self.y is not None and self.target in (None, "labels")


class LabelReader(NamedTuple):
    """Reads the labels of a training or test step: their form, and their number of classes.

    Attributes:
        outputs: The `Outputs` of the model.
        loss: The compiled loss, or a structure of losses.
        target: The argument of the trainer.
        num_classes: The argument of the trainer or of its mixing layer.
        labels: `"dense"` or `"pair"`.
    """

    outputs: Outputs
    loss: Any
    target: Any
    num_classes: Any
    labels: str

    def read(self, y):
        """Read labels before anything is mixed.

        Returns:
            The labels, where float class ids become integers if the loss reads them as ids; and a list with the number
            of classes of each, as given, or inferred from the outputs and the losses.

        Raises:
            ValueError: if it is not clear what the labels are.
        """
        read = [self._read(label) for label in self._labels(y)]
        return tree.pack_sequence_as(y, [leaf for leaf, _ in read]), [classes for _, classes in read]

    def encode(self, y, keep_ids=False):
        """Labels for losses and metrics: class ids are one-hot encoded, or only checked with `keep_ids`.

        Mixed labels, and targets that are not labels, stay unchanged.
        """
        return tree.pack_sequence_as(y, [self._encode(label, keep_ids) for label in self._labels(y)])

    def _labels(self, y):
        targets, classes = spread(explicit(self.target, y), y, "target"), spread(self.num_classes, y, "num_classes")
        shapes, losses = self.outputs.shapes_of(y), self.outputs.losses_of(self.loss, y)
        return [Label(*each) for each in zip(tree.flatten(y), targets, classes, shapes, losses, strict=True)]

    def _read(self, label):
        if not label.is_label:
            return label.y, label.num_classes
        output, classes = label.output, label.num_classes
        y = _settled(ops.convert_to_tensor(label.y), output)
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        columns = output[-1] if output is not None and len(output) == 2 else classes
        if "float" in dtype and _ids_like(shape) and columns not in (1, None):
            y, dtype = _as_ids(y, shape, columns, label.loss), "int32"
        if "float" in dtype:
            return y, None
        if classes is None:
            check_integers(shape, dtype, output, label.loss)
            classes = columns
        return y, classes

    def _encode(self, label, keep_ids):
        if not label.is_label:
            return label.y
        y, classes = self._read(label)
        xp, is_float = _backend.namespace(y), "float" in _backend.dtype(y)
        form = recognise(y, classes, "dense" if is_float else self.labels)
        checked = form.check(xp, y)
        return checked if keep_ids else form.encode(xp, checked)


def _settled(y, output):
    """Turn labels whose form TensorFlow does not know while it traces into soft labels."""
    return y if output is None or output[-1] in (1, None) else settle_labels(y, output[-1], len(output))


def _ids_like(shape):
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def _as_ids(y, shape, columns, loss):
    """Float class ids as integers, if the loss reads them as ids, else raise."""
    if not isinstance(loss, SoftLabelCrossentropy):
        _checks.fail(
            "Labels (B,) or (B, 1) for an output with several columns must be integer class ids.",
            f"float labels of shape {shape} for an output of {columns} columns",
            "Cast them to integers, one-hot encode them, or compile with `kmix.losses.SoftLabelCrossentropy`, which "
            "also reads floats as ids.",
        )
    # A number that is not whole is not a class.
    return ops.cast(ops.where(y == ops.floor(y), y, -1.0), "int32")


def tells_classes(loss):
    """Whether a loss shows that the columns of the output are classes."""
    if loss is None:
        return False
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return False
    functions = [kind.__name__ for kind in _CLASS_LOSSES]
    name = getattr(loss, "__name__", "").replace("_", "").lower()
    own = getattr(loss, "__module__", "").startswith("keras")
    return isinstance(loss, _CLASS_LOSSES) or (own and name in [function.lower() for function in functions])


def check_integers(shape, dtype, output, loss):
    """Raise unless integer labels can be encoded for an output of the shape `output` (or None) and a loss."""
    received = f"labels of shape {shape} and dtype {dtype}"
    hint = "Pass `MixTrainer(..., num_classes=...)`, or cast the labels to float if this is regression."
    if output is None:
        _checks.fail(
            "Integer labels are one-hot encoded before mixing, but the outputs of the model do not tell the number of "
            "classes.",
            received,
            hint,
        )
    output, received = tuple(output), f"{received} for an output of shape {tuple(output)}"
    if not _ids_like(shape) and shape is not None:
        if tuple(shape[1:]) != output[1:] and None not in (*shape[1:], *output[1:]):
            _checks.fail(
                "Integer labels with several columns are multi-hot, with one column for each column of the output.",
                received,
                "One-hot encode labels for each position in the data, as float.",
            )
        return
    if len(output) != 2 or output[-1] in (1, None):
        _checks.fail(
            "Integer labels are class ids and are one-hot encoded before mixing, which needs an output (B, C) with C "
            "> 1.",
            received,
            "Cast the labels to float: for a single column they are probabilities of the positive class, or values to "
            "regress. One-hot encode labels for each position in the data.",
        )
    if not tells_classes(loss):
        _checks.fail(
            "Integer labels stand for classes, but the loss does not show that the columns of the output are classes.",
            f"{received} and loss {getattr(loss, 'name', loss)!r}",
            hint,
        )


def check_takes_soft_labels(item, labels):
    """Raise if a loss or metric, given by name or not, does not accept mixed labels of the form `labels`."""
    named = isinstance(item, str)
    name = item if named else getattr(item, "__name__", type(item).__name__)
    hint = (
        "Write `kmix.losses.SoftLabelCrossentropy()` and `kmix.metrics.SoftLabelAccuracy()`, which accept all forms of "
        'labels{}, or "accuracy".'
    )
    if "sparse" in name.lower():
        _checks.fail(
            "Mixed labels are probabilities, which a sparse loss or metric would read as class ids.",
            name,
            hint.format(', "categorical_crossentropy"'),
        )
    module = getattr(item, "__module__", "") if hasattr(item, "__name__") else type(item).__module__
    foreign = item not in ("accuracy", "acc") if named else module.startswith("keras")
    if labels == "pair" and item is not None and foreign:
        _checks.fail(
            'Only losses and metrics of kmix read labels that are pairs, `labels="pair"`.', name, hint.format("")
        )
