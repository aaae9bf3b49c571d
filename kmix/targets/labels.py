"""Labels: class ids, multi-hot or soft labels, or values to regress, weighted by the shares of the partners."""

import functools
import math
import operator
from collections.abc import Mapping
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.plan import MixPlan
from kmix.targets.base import BatchInfo, Target
from kmix.targets.sample_weights import mix_labels, pair_shares

tree = keras.tree


@keras.saving.register_keras_serializable(package="kmix")
class Labels(Target):
    """Labels weighted by the shares of the partners, in float32.

    Integers `(B,)` or `(B, 1)` are class ids, and are one-hot encoded; integers `(B, C)` are multi-hot labels. Floats
    `(B,)`, `(B, 1)` and `(B, C)` are soft labels, or values to regress.

    Args:
        num_classes: Number of classes, an int >= 1. Needed for class ids. With it, labels `(B, C)` must have that many
            columns.
        class_weight: Dictionary from class numbers to weights >= 0. It multiplies the sample weights before they are
            mixed, and creates them if there are none. Classes without an entry have the weight 1.
        nan_is_missing: Whether NaN in float labels of several tasks stands for a value that is not known. A mixed label
            keeps what the other partner knows, and weights of the entries come along as sample weights: `(B, C)` for
            labels `(B, C)`. Validation data is not mixed: replace its NaN yourself, with weights of 0.
        any_shape: Whether labels may have three or more axes, such as probabilities of tokens `(B, T, C)`, or one
            column for each position of the inputs. They are blended by the shares of the samples.

    Raises:
        ValueError: if `num_classes` is less than 1, or `class_weight` is used with `nan_is_missing`; in a batch, if
            the shape or dtype of the labels does not fit, or an id lies outside the classes.
        TypeError: if an argument has a wrong type.

    Example:
        >>> mixup = kmix.MixUp(1.0, target=kmix.targets.Labels(3, class_weight={2: 0.5}), seed=1)
        >>> x, y, sample_weight = mixup(np.ones((4, 2), "float32"), np.array([0, 1, 2, 2]))
        >>> y.shape, sample_weight.shape
        ((4, 3), (4,))
    """

    max_partners: int | None = None
    _takes_numpy_plan = True

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        class_weight: Mapping[int, float] | None = None,
        nan_is_missing: bool = False,
        any_shape: bool = False,
    ) -> None:
        self.num_classes: int | None = None if num_classes is None else _checks.integer(num_classes, "num_classes", 1)
        self.class_weight: dict[int, float] | None = _check_class_weight(class_weight, self.num_classes)
        self.nan_is_missing: bool = _checks.boolean(nan_is_missing, "nan_is_missing")
        self.any_shape: bool = _checks.boolean(any_shape, "any_shape")
        if nan_is_missing and class_weight is not None:
            _checks.fail("`nan_is_missing` makes weights of its own.", "`class_weight`", "Leave one of them out.")

    def check(self, y: Any, info: BatchInfo) -> None:
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        # Only an error needs the words.
        received = functools.partial(_received, y, info)
        if shape is None:
            _checks.fail(
                "The rank of labels must be known: it tells class ids from labels with several columns.",
                received(),
                "First call `y.set_shape([None])` on them, or `y.set_shape([None, C])`.",
            )
        if "float" in dtype:
            self._check_floats(shape, received)
        elif "int" in dtype or dtype == "bool":
            self._check_integers(shape, received)
        else:
            _checks.fail("Labels must be float or integer.", received(), "Turn strings into class ids.")
        if len(shape) < 3 and not info.pastes:
            return
        if len(shape) > 2 and not self.any_shape:
            pasted = " An input mixer that pastes would have to paste a target with its spatial axes." * info.pastes
            _checks.fail(
                f"Labels have the shape (B,), (B, 1) or (B, C).{pasted}",
                received(),
                "Say what this is with `target=`: `SegmentationMasks(...)`, `BoundingBoxes(...)`, `Keypoints(...)`, "
                "`Keep()`, a callable `(y, plan) -> y`, or `Labels(any_shape=True)` for probabilities of each "
                "position, which are blended.",
            )
        self.check_positions(y, info)

    def check_positions(self, y: Any, info: BatchInfo) -> None:
        """Raise if labels have one column for each position of inputs that are pasted, so far as sizes are known."""
        shape = _backend.static_shape(y)
        if self._may_be_positions(shape) and shape[1] is not None and shape[1] in _positions(info):
            _checks.fail(
                "This mixer pastes parts of the inputs, and labels with one column for each position of the inputs may "
                "have to be pasted as well.",
                f"{_received(y, info)} for inputs with {shape[1]} positions",
                f"If the columns are classes, pass `num_classes={shape[1]}`. Else say what they are with `target=`: "
                "`Labels(any_shape=True)` weighs them by the shares, `Keep()` leaves them unchanged, and a callable "
                "`(y, plan) -> y` mixes them your way.",
            )

    def _may_be_positions(self, shape):
        """Whether labels of this shape may be values of the positions of the inputs, for all that was said."""
        return len(shape) == 2 and shape[1] != 1 and not self.any_shape and self.num_classes is None

    def _check_floats(self, shape, received):
        if self.nan_is_missing and len(shape) > 2:
            _checks.fail(
                "`nan_is_missing` reads float labels (B,), (B, 1) or (B, C).",
                received(),
                "One-hot encode class ids as float, with rows of NaN where the class is not known.",
            )
        if self.class_weight is not None and (len(shape) != 2 or shape[1] in (1, None)):
            _checks.fail(
                "`class_weight` needs class ids, or soft labels (B, C).",
                received(),
                "Leave it out, or pass sample weights.",
            )
        if self.class_weight is not None:
            _check_class_weight(self.class_weight, shape[1])
        if self.num_classes is None:
            return
        if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
            expected = "With `num_classes`, labels (B,) and (B, 1) must be integer class ids."
            _checks.fail(expected, received(), _FLOAT_IDS)
        self._check_columns(shape, received)

    def _check_columns(self, shape, received):
        if self.num_classes is not None and len(shape) > 1 and shape[-1] not in (self.num_classes, None):
            _checks.fail(
                f"With `num_classes={self.num_classes}`, labels (B, C) have {self.num_classes} columns.",
                received(),
                "Pass the number of their columns, or leave out `num_classes`.",
            )

    def _check_integers(self, shape, received):
        if self.nan_is_missing:
            _checks.fail("`nan_is_missing` reads float labels.", received(), "One-hot encode class ids as float.")
        if len(shape) > 2:
            _checks.fail(
                "Integer labels must be class ids (B,) or (B, 1), or multi-hot (B, C).",
                received(),
                "Say what this is with `target=`: `SegmentationMasks(...)`, `InstanceMasks(...)` of masks and labels "
                "together, `Keep()`, a callable `(y, plan) -> y`; or "
                "one-hot encode labels of each position as float, and write `Labels(any_shape=True)`.",
            )
        if len(shape) == 2 and shape[1] is None:
            _checks.fail(
                "The last dimension of integer labels must be known, to tell class ids (B, 1) from multi-hot (B, C).",
                received(),
                "First call `y.set_shape([None, 1])` on them.",
            )
        if len(shape) == 2 and shape[1] != 1:
            self._check_columns(shape, received)
            _check_class_weight(self.class_weight, shape[1])
        elif self.num_classes is None:
            _checks.fail(
                "Integer labels are class ids and are one-hot encoded before mixing, which needs `num_classes`.",
                f"{received()} without `num_classes`",
                "Pass `num_classes=`. For regression, or for binary labels 0 and 1 with a single sigmoid output, cast "
                "the labels to float.",
            )

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        shape = _backend.static_shape(y)
        if info.pastes and self._may_be_positions(shape):
            columns = xp.size(y, 1)
            for positions in _positions(info):
                if not isinstance(columns, int) or not isinstance(positions, int):
                    xp.require(xp.asarray((columns != positions) | (columns == 1)), _PER_POSITION)
        if "float" in _backend.dtype(y):
            if self.num_classes is not None and len(shape) == 2 and shape[1] is None:
                xp.require(
                    xp.asarray(xp.size(y, 1) == self.num_classes),
                    f"With `num_classes={self.num_classes}`, labels (B, C) have that many columns. Received: "
                    f"another number of columns. {_FLOAT_IDS}",
                )
            return
        if xp is not _backend.NUMPY:
            xp, y = _backend.numpy_if_on_host(xp, y)
        if self._holds_ids(shape):
            ids = xp.cast(xp.reshape(y, (-1,)), xp.integer)
            xp.require(
                (ids >= 0) & (ids < self.num_classes),
                f"Class ids must lie in [0, num_classes) with num_classes={self.num_classes}. Received: ids outside "
                "it. Check `num_classes`, and that the first class is 0. Give samples without a class any valid id and "
                "a sample weight of 0.",
            )
        else:
            xp.require(_zeros_and_ones(xp.cast(y, xp.integer)), _NOT_MULTI_HOT)

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        if "float" in dtype:
            y = xp.cast(y, "float32")
            if self.nan_is_missing:
                return _fill(xp, y, weight)
        else:
            # As NumPy until the labels are mixed: the kernel that mixes them gives an array of the framework.
            near, y = (xp, y) if xp is _backend.NUMPY else _backend.numpy_if_on_host(xp, y)
            if self._holds_ids(shape):
                y = one_hot(near, y, self.num_classes)
            else:
                # Also where the values cannot be read.
                y = or_nan(near, y, near.cast(y, "float32"), _zeros_and_ones(near.cast(y, near.integer)))
        if self.class_weight is not None:
            y = xp.asarray(y)
            # A sum, not a matrix product, which may have lower precision on an accelerator.
            factor = xp.sum(y * _table(xp, self.class_weight, y.shape[1]), axis=1)
            weight = factor if weight is None else _times(xp, weight, factor)
        return y, weight

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        return mix_labels(xp, y, weight, plan), weight

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        shape = (y.shape[0], self.num_classes) if self._has_ids(y) else tuple(y.shape)
        if self.nan_is_missing:
            weight = keras.KerasTensor(shape[:1] if shape[1:] == (1,) else shape, dtype="float32")
        elif self.class_weight is not None:
            weight = keras.KerasTensor(shape[:1] if weight is None else weight.shape, dtype="float32")
        return keras.KerasTensor(shape, dtype="float32"), weight

    def _has_ids(self, y):
        return "float" not in _backend.dtype(y) and self._holds_ids(_backend.static_shape(y))

    def _holds_ids(self, shape):
        """Whether integers of a static shape are class ids."""
        return len(shape) == 1 or shape[1:] == (1,)

    def _weight_shape(self, y, info):
        shape = _backend.static_shape(y)
        return (shape[0], self.num_classes) if self._has_ids(y) else shape


@keras.saving.register_keras_serializable(package="kmix")
class LabelPairs(Target):
    """Class ids mixed to pairs `(B, 3)` instead of `(B, num_classes)`, for very many classes.

    A pair is the class of the sample, the class of its partner, and the share of the sample, in float32.
    `SoftLabelCrossentropy` and the metrics of kmix read it.

    Args:
        num_classes: Number of classes, `3 < num_classes <= 2**24`: with 3 classes, labels `(B, 3)` are soft labels, and
            above `2**24` float32 does not hold every id.

    Raises:
        ValueError: if `num_classes` is out of range; in a batch, if the labels are not integers `(B,)` or `(B, 1)`, or
            lie outside the classes.
        TypeError: if `num_classes` is not an integer.

    Example:
        >>> mixup = kmix.MixUp(1.0, target=kmix.targets.LabelPairs(50000), seed=6)
        >>> x, y = mixup(np.ones((2, 4), "float32"), np.array([49999, 7]))
        >>> y[:, :2]
        array([[4.9999e+04, 7.0000e+00],
               [7.0000e+00, 4.9999e+04]], dtype=float32)
    """

    _takes_numpy_plan = _shows_own_partner = True

    def __init__(self, num_classes: int) -> None:
        self.num_classes: int = _checks.integer(num_classes, "num_classes", 1)
        if not 3 < self.num_classes <= 2**24:
            _checks.fail(
                "`LabelPairs` needs more than 3 classes, since with 3 classes labels (B, 3) are soft labels, and at "
                "most 2**24, since float32 holds class ids exactly only up to there.",
                f"num_classes={num_classes}",
                "Write `Labels(num_classes)`.",
            )

    def check(self, y: Any, info: BatchInfo) -> None:
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        if "int" not in dtype or shape is None or shape[1:] not in ((), (1,)):
            _checks.fail(
                "`LabelPairs` takes class ids (B,) or (B, 1) of an integer dtype.",
                f"{info.name} of shape {shape} and dtype {dtype}",
                "For soft or multi-hot labels, and for regression, write `Labels()`.",
            )

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        Labels(self.num_classes).check_values(xp, y, info)

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        ids = xp.cast(xp.reshape(y, (-1,)), xp.integer)
        valid = (ids >= 0) & (ids < self.num_classes)
        return or_nan(xp, ids, xp.cast(ids, "float32"), valid), weight

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        keep, share, _ = map(xp.asarray, pair_shares(xp, y, weight, plan))
        # A kept sample is its own partner, whatever the class of the other sample.
        pair = y, xp.where(keep, y, xp.take(y, xp.asarray(plan.permutation))), xp.where(keep, 1.0, share)
        return xp.stack([xp.cast(column, "float32") for column in pair], axis=1), weight

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        return keras.KerasTensor((y.shape[0], 3), dtype="float32"), weight

    def _weight_shape(self, y, info):
        return _backend.static_shape(y)[:1]


@keras.saving.register_keras_serializable(package="kmix")
class LabelUnion(Target):
    """Tags, such as sounds heard together: the mixed sample has the tags of all partners, whatever their shares.

    Takes multi-hot labels, 0 or 1, or probabilities `(B, C)`, and gives the larger value of the partners, in float32. A
    partner without a share (`lam` of 0 or 1) adds no tags. Sample weights do not affect the labels.

    Raises:
        ValueError: in a batch, if the labels do not have the shape `(B, C)`, or lie outside [0, 1].

    Example:
        >>> mixup = kmix.MixUp(1.0, target="union", seed=6)
        >>> _, y = mixup(np.zeros((2, 8), "float32"), np.array([[1, 0, 0], [0, 1, 0]]))
        >>> y
        array([[1., 1., 0.],
               [1., 1., 0.]], dtype=float32)
    """

    max_partners: int | None = None

    def check(self, y: Any, info: BatchInfo) -> None:
        shape, dtype = _backend.static_shape(y), _backend.dtype(y)
        numeric = "float" in dtype or "int" in dtype or dtype == "bool"
        if not numeric or shape is None or len(shape) != 2:
            _checks.fail(f"{_UNION}.", f"{info.name} of shape {shape} and dtype {dtype}", _UNION_HINT)

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        y = xp.cast(y, "float32")
        xp.require((y >= 0) & (y <= 1), f"{_UNION} in [0, 1]. Received: values outside it. {_UNION_HINT}")

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        y = xp.cast(y, "float32")
        return or_nan(xp, y, y, (y >= 0) & (y <= 1)), weight

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        pairs = zip(plan._sources(), plan.parts(), strict=True)
        present = [xp.where(xp.along(part.share, y) > 0, xp.take(y, source), 0.0) for source, part in pairs]
        mixed = functools.reduce(xp.math.maximum, present)
        # NaN stands for an error, and a maximum may lose it.
        lost = functools.reduce(operator.or_, [each != each for each in present]) | xp.along(plan.lam != plan.lam, y)
        return xp.where(lost, float("nan"), mixed), weight

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        return keras.KerasTensor(y.shape, dtype="float32"), weight


def _received(y, info):
    return f"{info.name} of shape {_backend.static_shape(y)} and dtype {_backend.dtype(y)}"


def one_hot(xp: _backend.Namespace, ids: Any, num_classes: Any) -> Any:
    """Class ids `(B,)` or `(B, 1)` as float32 `(B, num_classes)`, with a row of NaN for an id outside the classes."""
    ids = xp.cast(xp.reshape(ids, (-1,)), xp.integer)
    encoded = xp.cast(ids[:, None] == xp.cast(xp.arange(num_classes), xp.integer), "float32")
    return or_nan(xp, ids, encoded, ((ids >= 0) & (ids < num_classes))[:, None])


def or_nan(xp: _backend.Namespace, y: Any, encoded: Any, valid: Any) -> Any:
    """Labels with NaN where they are not valid: a compiled step cannot raise, so the loss must show the error."""
    if xp is _backend.NUMPY or _backend.on_host(y):
        return encoded
    return xp.where(valid, encoded, xp.cast(float("nan"), "float32"))


def _positions(info):
    """The numbers of positions of inputs that are pasted, so far as they are known: of all axes, and of those cut."""
    shape = info.spatial_shape if info.pastes else None
    groups = [] if shape is None else [shape, *([shape[axis] for axis in cut] for cut in info.cut_axes)]
    return [math.prod(sizes) for sizes in groups if all(size is not None for size in sizes)]


def _zeros_and_ones(y):
    return (y == 0) | (y == 1)


def _fill(xp, y, weight):
    """Labels with 0 for NaN, and a weight for each entry (or each sample, if it has one entry): 0 where it is missing.

    The weights are `(B, C)` for labels `(B, C)`, else `(B,)`.
    """
    known = xp.cast(y == y, "float32")
    filled = xp.where(y == y, y, xp.cast(0.0, "float32"))
    if len(known.shape) == 2 and known.shape[1] == 1:
        known = xp.reshape(known, (-1,))
    if weight is not None:
        weight = xp.cast(weight, "float32")
        weight = xp.reshape(weight, (-1,)) if len(weight.shape) > len(known.shape) else weight
        known = known * xp.along(weight, known)
    return filled, known


def _times(xp, weight, factor):
    """Sample weights `(B, ...)` times a weight `(B,)` of each sample."""
    weight = xp.cast(weight, "float32")
    return weight * xp.along(factor, weight)


def _check_class_weight(class_weight, num_classes):
    """Return `class_weight` as `{class number: weight >= 0}`, or None, or raise. JSON turns numbers into strings."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, dict):
        _checks.fail(
            "`class_weight` must be a dictionary from class numbers to weights.",
            f"class_weight={class_weight!r}",
            "For example `class_weight={0: 1.0, 1: 3.0}`.",
            TypeError,
        )

    def number(key):
        return _checks.integer(int(key) if isinstance(key, str) and key.isdigit() else key, "class_weight")

    weights = {number(key): _checks.real(value, "class_weight") for key, value in class_weight.items()}
    beyond = [number for number in weights if num_classes is not None and number >= num_classes]
    if beyond:
        _checks.fail(
            "`class_weight` maps class numbers to weights.", f"class {beyond[0]} of {num_classes} classes", "Remove it."
        )
    return weights


def _table(xp, class_weight, classes):
    """The weight of each class, by default 1."""
    weights = [class_weight.get(number, 1.0) for number in range(classes)]
    return xp.asarray(_backend.NUMPY.cast(weights, "float32"))


_FLOAT_IDS = (
    "Pass integers. Keras' own preprocessing layers cast labels to float in tf.data. Give them the inputs alone, "
    "`lambda x, y: (augment(x), y)`, map kmix before them, or one-hot encode the labels in the data set. For "
    "probabilities or values to regress, leave out `num_classes`; with several labels, say which are class ids: "
    '`target={"name": kmix.targets.Labels(10), ...}`.'
)
_PER_POSITION = (
    "Labels with one column for each position of the inputs may have to be pasted as well. If the columns are classes, "
    "pass `num_classes=`. Else say what they are with `target=`."
)
_NOT_MULTI_HOT = (
    "Integer labels (B, C) with C > 1 are read as multi-hot, so every value must be 0 or 1. Received: other values. "
    "Cast them to float to blend them (regression), or pass one column of class ids."
)
_UNION = "`LabelUnion` takes multi-hot labels, 0 or 1, or probabilities (B, C)"
_UNION_HINT = (
    "One-hot encode class ids. If the rank is unknown, call `y.set_shape([None, C])`. For values to regress, write "
    "`Labels()`."
)
