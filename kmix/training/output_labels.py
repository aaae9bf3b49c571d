"""Which labels belong to which output of a model, what they are, and what can read them mixed."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.batch import targets_of
from kmix.label_forms import resolve
from kmix.layers.training_step import current_step
from kmix.losses import SoftLabelCrossentropy
from kmix.targets import BatchInfo, Keep, LabelPairs, Labels, SegmentationMasks

tree = keras.tree

# Losses for which every column of the output is a class; those of Keras and of kmix, and what is named like them.
_OF_CLASSES = {
    *("crossentropy", "ce", "softlabelcrossentropy", "binarycrossentropy", "binaryfocalcrossentropy"),
    *("categoricalcrossentropy", "categoricalfocalcrossentropy", "categoricalgeneralizedcrossentropy"),
    *("categoricalhinge", "kldivergence"),
}


class Label(NamedTuple):
    """One array of labels, and what is known about it: its target, and of its output the shape and the loss. The shape
    is None if it is unknown, the loss if nothing but metrics compares with the labels.
    """

    y: Any
    target: Any
    output: Any
    loss: Any

    @property
    def is_label(self) -> bool:
        """Whether it follows a plan like labels do."""
        return self.y is not None and isinstance(self.target, (Labels, LabelPairs))

    @property
    def num_classes(self) -> int | None:
        """The number of classes that its target knows."""
        return getattr(self.target, "num_classes", None)

    @property
    def is_idle(self) -> bool:
        """Whether these are integers that no loss compares with, and that no classes of an output show to be ids."""
        integer = self.y is not None and "float" not in _backend.dtype(ops.convert_to_tensor(self.y))
        return self.is_label and integer and self.loss is None and self.columns in (None, 1)

    @property
    def has_gaps(self) -> bool:
        """Whether it has several columns, and each value may be missing."""
        several = (_backend.static_shape(self.y) or ())[1:] not in ((), (1,))
        return several and getattr(self.target, "nan_is_missing", False)

    @property
    def columns(self) -> int | None:
        """The number of classes of class ids `(B,)`, if the output is `(B, C)`; None or 1 if they cannot be ids."""
        return self.output[-1] if self.output is not None and len(self.output) == 2 else self.num_classes


class OutputLabels:
    """Reads the labels of training and test steps.

    Args:
        model: The bare model, whose outputs show what the labels are.
        target: The `Target` of the trainer or of its mixing layers, or a structure of targets.
    """

    def __init__(self, model: keras.Model, target: Any) -> None:
        self._model, self._target = model, target
        self._gaps = any(getattr(each, "nan_is_missing", False) for each in tree.flatten(target))

    def of(self, y: Any, loss: Any) -> list[Label]:
        """A `Label` for each array of labels, in the order of `keras.tree.flatten(y)`.

        Args:
            y: Labels.
            loss: The compiled loss, or a structure of losses.
        """
        keys = [path[0] if path else 0 for path, _ in tree.flatten_with_path(y)]
        outputs = self._outputs()
        # A Sequential model has one output, and no name for it.
        names: Any = range(len(keys)) if outputs is None else getattr(self._model, "output_names", [0])
        shapes = {} if outputs is None else dict(zip(names, [each.shape for each in self._model.outputs], strict=True))
        if isinstance(outputs, dict):
            shapes.update({name: output.shape for name, output in outputs.items()})
        if not isinstance(y, dict):
            keys = names if len(names) == len(keys) else [None] * len(keys)
        if isinstance(loss, (list, tuple)):
            loss = dict(zip(names, loss, strict=False))
        labels = []
        for key, leaf, target in zip(keys, tree.flatten(y), tree.flatten(targets_of(self._target, y)), strict=True):
            # A loss that nobody knows is another thing than an output without a loss.
            own = loss.get(key, None if key in shapes else "unknown") if isinstance(loss, dict) else loss
            labels.append(Label(leaf, target, shapes.get(key), own))
        return labels

    def read(self, y: Any, loss: Any) -> tuple[Any, Any]:
        """Read labels before anything is mixed.

        Returns:
            The labels, where float class ids become integers if the loss reads them as ids; and their target, or a
            structure of targets, with the numbers of classes that the outputs and losses show.

        Raises:
            ValueError: if it is not clear what the labels are.
        """
        labels = self.of(y, loss)
        self._check_gaps(labels)
        leaves, targets = zip(*map(_read, labels), strict=True)
        y, each = (tree.pack_sequence_as(y, list(parts)) for parts in (leaves, targets))
        return y, _with_targets(self._target, each)

    def encode(self, y: Any, loss: Any, keep_ids: bool = False) -> Any:
        """Labels for losses and metrics: class ids are one-hot encoded, or only checked with `keep_ids`.

        Mixed labels, and targets that are not labels, stay unchanged.
        """
        if y is None or current_step() is not None:
            return y
        return tree.pack_sequence_as(y, [self._encode(label, keep_ids) for label in self.of(y, loss)])

    def _encode(self, label, keep_ids):
        if not label.is_label or label.is_idle or (label.output is not None and label.output[-1] == 1):
            return label.y
        y, target = _read(label)
        xp, info = _backend.namespace(y), BatchInfo()
        # Labels of any rank were accepted for training, or the loss would tell.
        target = Labels(None if "float" in _backend.dtype(y) else target.num_classes, any_shape=True)
        target.check(y, info)
        target.check_values(xp, y, info)
        return y if keep_ids or isinstance(label.target, LabelPairs) else target.encode(xp, y, None, info)[0]

    def check_compiled(self, loss: Any, metrics: Any, weighted_metrics: Any) -> None:
        """Raise if a loss or metric cannot read mixed labels."""
        for compiled in (loss, metrics, weighted_metrics):
            by_target(_check_reads_mixed, compiled, self._target)
        outputs = self._outputs()
        if self._gaps and outputs is not None:
            self._check_gaps(self.of(outputs, loss), weighted_metrics)

    def _outputs(self):
        """The symbolic outputs of the model; None if they are not known."""
        if not getattr(self._model, "outputs", None):
            return None
        return self._model.outputs[0] if isinstance(self._model, keras.Sequential) else self._model.output

    def _check_gaps(self, labels, weighted_metrics=None):
        """Raise if labels with gaps in several columns, and so a weight for each entry, meet what cannot weigh so."""
        several = [each.loss for each in labels if each.has_gaps]
        for item in [*several, *(tree.flatten(weighted_metrics) if several else ())]:
            if item is not None and not getattr(item, "multi_label", False):
                _checks.fail(
                    "Labels (B, C) with gaps have weights (B, C), but losses and metrics of Keras weigh whole samples.",
                    getattr(item, "name", item),
                    "Write `kmix.losses.SoftLabelCrossentropy(multi_label=True)`, or give the model one output of one "
                    "column for each label. A loss of yours that takes such weights says so: `multi_label = True`.",
                )


def _with_targets(target, each):
    """A structure of targets in which `each` array of labels has its own, and other targets stay as they are."""
    if isinstance(target, (dict, list, Labels)) and isinstance(each, (dict, list, tuple)):
        part = lambda key: _with_targets(target if isinstance(target, Labels) else target[key], each[key])  # noqa: E731
        return {key: part(key) for key in each} if isinstance(each, dict) else list(map(part, range(len(each))))
    return each if isinstance(target, (Labels, LabelPairs)) else target


def _read(label):
    """The labels, and their target, with the number of classes that was found out; `Keep` for labels that are idle."""
    if not label.is_label or label.is_idle:
        return label.y, Keep() if label.is_idle else label.target
    output, y, target = label.output, ops.convert_to_tensor(label.y), label.target
    if output is not None and output[-1] not in (1, None):
        # TensorFlow may not know the form of labels while it traces.
        y = resolve(y, output[-1], len(output))
    shape, dtype = _backend.static_shape(y), _backend.dtype(y)
    if "float" in dtype and _ids_like(shape) and label.columns not in (1, None):
        if not isinstance(label.loss, SoftLabelCrossentropy):
            _checks.fail(
                "Labels (B,) or (B, 1) for an output with several columns must be integer class ids.",
                f"float labels of shape {shape} for an output of {label.columns} columns",
                "Cast them to integers, one-hot encode them, or compile with `kmix.losses.SoftLabelCrossentropy`, "
                "which also reads floats as ids.",
            )
        # A number that is not whole is not a class.
        y = ops.cast(ops.where(y == ops.floor(y), y, -1.0), "int32")
    elif "float" in dtype or target.num_classes is not None:
        if "float" not in dtype and _ids_like(shape) and output is not None and output[-1] == 1 < target.num_classes:
            _checks.fail(
                "Class ids are one-hot encoded, with a column for each class, but the output has one column.",
                f"`num_classes={target.num_classes}` for an output of shape {tuple(output)}",
                "For binary labels and a single sigmoid output, cast the labels to float and leave out `num_classes`.",
            )
        return y, target
    else:
        _check_integers(shape, dtype, output, label.loss)
    return y, target if target.num_classes is not None else target.replace(num_classes=label.columns)


def _ids_like(shape):
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def _check_integers(shape, dtype, output, loss):
    """Raise unless integer labels can be encoded for an output of the shape `output` (or None) and a loss."""
    received = f"labels of shape {shape} and dtype {dtype}"
    way = "Pass `MixTrainer(..., num_classes=...)`, or cast the labels to float if this is regression."
    if output is None:
        _checks.fail(
            "Integer labels are one-hot encoded before mixing, but the outputs of the model do not tell the number of "
            "classes.",
            received,
            way,
        )
    output, received = tuple(output), f"{received} for an output of shape {tuple(output)}"
    several = shape is not None and not _ids_like(shape)
    if several and tuple(shape[1:]) != output[1:] and None not in (*shape[1:], *output[1:]):
        hint = "One-hot encode labels for each position in the data, as float."
        if len(shape) == 2 and len(output) > 2 and shape[1] != output[1]:
            hint = "Codes for a loss such as CTC cannot be mixed, but losses can: `MixTrainer(..., mix_losses=True)`."
        _checks.fail(
            "Integer labels with several columns are multi-hot, with one column for each column of the output.",
            received,
            hint,
        )
    if not several and (len(output) != 2 or output[-1] in (1, None)):
        _checks.fail(
            "Integer labels are class ids and are one-hot encoded before mixing, which needs an output (B, C) with C "
            "> 1.",
            received,
            "Cast the labels to float: for a single column they are probabilities of the positive class, or values to "
            "regress. One-hot encode labels for each position in the data.",
        )
    if not several and loss is not None and _OF_CLASSES.isdisjoint(_names(loss)):
        _checks.fail(
            "Integer labels stand for classes, but the loss does not show that the columns of the output are classes.",
            f"{received} and loss {getattr(loss, 'name', loss)!r}",
            way,
        )


def _names(item):
    """The names of a loss or metric, of its function and of its classes, in small letters without underscores."""
    names = [item] if isinstance(item, str) else []
    if isinstance(item, str):
        with contextlib.suppress(ValueError):
            item = keras.losses.get(item)
    while isinstance(item, functools.partial):
        item = item.func
    cls = item if isinstance(item, type) else type(item)
    names += [getattr(item, "__name__", ""), *(base.__name__ for base in cls.__mro__)]
    return [name.replace("_", "").lower() for name in names]


def by_target(function: Callable[..., Any], compiled: Any, target: Any) -> Any:
    """`function(item, target)` for each loss or metric of a structure, and the part of `target` that it is for."""
    if isinstance(compiled, dict) and isinstance(target, dict):
        return {key: by_target(function, part, target.get(key, Keep())) for key, part in compiled.items()}
    if isinstance(compiled, (list, tuple)) and isinstance(target, (list, tuple)) and len(compiled) == len(target):
        return [by_target(function, *pair) for pair in zip(compiled, target, strict=True)]
    return tree.map_structure(lambda item: function(item, target), compiled)


def _reads_class_ids(item):
    """Whether a loss or metric, given by name or not, reads class ids or codes."""
    if isinstance(item, keras.metrics.IoU) and not isinstance(item, keras.metrics.BinaryIoU):
        return item.sparse_y_true
    return any(code in name for name in _names(item) for code in ("sparse", "ctc"))


def check_reads_blended_masks(item: Any, target: Any) -> None:
    """Raise if a loss or metric that reads class ids meets masks of class ids, which a blend one-hot encodes."""
    masks = any(isinstance(each, SegmentationMasks) and each.num_classes is not None for each in tree.flatten(target))
    if item is not None and masks and _reads_class_ids(item):
        _checks.fail(
            "Blended masks are shares of classes, which a loss or metric that reads class ids cannot take.",
            getattr(item, "name", item),
            "Write `kmix.losses.SoftLabelCrossentropy()` and `kmix.metrics.SoftLabelMeanIoU(num_classes)`, or a mixer "
            "that only pastes, such as `CutMix`.",
        )


def _check_reads_mixed(item, target):
    """Raise if a loss or metric, given by name or not, does not accept labels mixed as by `target`."""
    targets = tree.flatten(target)
    if item is None or not any(isinstance(each, (Labels, LabelPairs)) for each in targets):
        return
    hint = (
        "Write `kmix.losses.SoftLabelCrossentropy()` and `kmix.metrics.SoftLabelAccuracy()`, which accept all forms of "
        'labels, or "accuracy".'
    )
    if _reads_class_ids(item):
        _checks.fail(
            "Mixed labels are shares of classes, which a loss or metric that reads class ids cannot take.",
            getattr(item, "name", item),
            f"{hint} Or mix the losses, which leaves class ids unchanged: `MixTrainer(..., mix_losses=True)`.",
        )
    foreign = item.lower() not in ("accuracy", "acc") if isinstance(item, str) else item.__module__.startswith("keras")
    if foreign and any(isinstance(each, LabelPairs) for each in targets):
        _checks.fail("Only losses and metrics of kmix read `LabelPairs`.", item, hint)
