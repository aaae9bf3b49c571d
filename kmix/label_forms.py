"""The form of labels, read in one place: class ids, pairs of class ids, soft labels, or numbers."""

from typing import Any, Literal, NamedTuple

import numpy as np

from kmix import _backend, _checks

Kind = Literal["ids", "pairs", "soft", "numbers"]

EXPECTED = (
    "`y_true` must have the shape of `y_pred`, (..., C), or hold class ids (...) or (..., 1), or, if C > 3, pairs "
    "(..., 3)."
)


class LabelForm(NamedTuple):
    """Labels as the classes that have a share, and their shares.

    Attributes:
        kind: `"ids"`, `"pairs"`, `"soft"` (one-hot and multi-hot labels, too), or `"numbers"`, values to regress.
        shares: float32 `(..., k)`: of the class with the id, k = 1; of the two classes of a pair, k = 2; of all classes
            of a soft label, k = C. NaN for an id that is not a whole number in `[0, C)`. Of numbers, the values.
        ids: int32 `(..., k)`, or None for soft labels and numbers.
        num_classes: The number of classes C.

    Example:
        >>> from kmix.label_forms import LabelForm
        >>> form = LabelForm.read(np.array([[70, 8, 0.75], [5, 5, 0.25]]), (None, 100))
        >>> form.kind, form.ids.tolist(), form.shares.tolist()
        ('pairs', [[70, 8], [5, 5]], [[0.75, 0.25], [1.0, 0.0]])
        >>> form.share_of(np.array([8, 5])).tolist(), form.largest().tolist(), form.dense().shape
        ([0.25, 1.0], [70, 5], (2, 100))
    """

    kind: Kind
    shares: Any
    ids: Any = None
    num_classes: Any = None

    @classmethod
    def read(cls, y: Any, outputs: Any, ignore_class: int | None = None) -> "LabelForm":
        """Labels that belong to outputs. Their shapes tell the form.

        Args:
            y: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` if C > 3, of any dtype,
                since Keras hands class ids to losses as floats.
            outputs: The outputs `(..., C)`, or their static shape. With C = 1, labels are never ids.
            ignore_class: The id that has no share, or None.

        Returns:
            A `LabelForm`. Labels in a TensorFlow graph whose shape does not tell their form become soft labels.

        Raises:
            ValueError: if the shapes do not match; if `ignore_class` is given for outputs with a single column.
        """
        shape = outputs if isinstance(outputs, tuple) else _backend.static_shape(outputs)
        classes, xp = shape[-1], _backend.namespace(y)
        if classes == 1 and ignore_class is not None:
            _checks.fail(
                "`ignore_class` needs an output column for each class.",
                f"ignore_class={ignore_class} for outputs of shape {tuple(shape)}",
                "Give the model two columns, or give what does not count a sample weight of 0.",
            )
        y = xp.cast(xp.asarray(y), "float32")
        resolved = resolve(y, classes, len(shape), ignore_class)
        if resolved is not y:
            for axis in range(len(shape) - 1) if outputs is not shape else ():
                xp.require_equal_sizes([(resolved, axis), (outputs, axis)], f"{EXPECTED} Received: other sizes.")
            return cls("soft", resolved, num_classes=classes)
        given = tuple(y.shape)
        y = y[..., None] if len(given) == len(shape) - 1 else y
        *leading, columns = (*y.shape,) or (None,)
        pairs = columns == 3 and classes is not None and classes > 3
        if not may_equal(leading, shape[:-1]) or not (pairs or columns in (1, None, classes)):
            _checks.fail(EXPECTED, f"y_true of shape {given} and y_pred of shape {tuple(shape)}")
        if classes == 1 or not (pairs or columns == 1):
            return cls("soft", y, num_classes=classes)
        return _sparse("pairs" if pairs else "ids", y, classes, ignore_class)

    @classmethod
    def from_values(cls, y: Any) -> "LabelForm":
        """Labels `(B,)`, `(B, 1)` or `(B, C)` if nothing tells the number of classes. Their values tell the form.

        Integers in one column are class ids, floats are numbers. Several columns are pairs if their values can be
        those of pairs and of nothing else, soft labels if all values are shares, else numbers.

        Example:
            >>> from kmix.label_forms import LabelForm
            >>> columns = [[2, 0]], [[0.5, 0.5]], [[2.0, 0.0, 0.5]], [[2.0, 0.5]], [0.5], [2]
            >>> [LabelForm.from_values(np.array(y)).kind for y in columns]
            ['numbers', 'soft', 'pairs', 'numbers', 'numbers', 'ids']
        """
        y = _backend.values(y)
        integers, y = y.dtype.kind in "biu", y.reshape(len(y), -1)
        ids, share = y[:, :2], y[:, 2:]
        # A share may be rounded to a little more than 1. NaN is no share.
        shares = bool(((y >= 0) & (y <= 1 + 1e-5)).all())
        pairs = y.shape[1] == 3 and ids.min() >= 0 and ids.max() > 1 and bool((ids == np.floor(ids)).all())
        kind: Kind = "soft" if shares else "numbers"
        if y.shape[1] == 1:
            kind = "ids" if integers else "numbers"
        elif pairs and ((share >= 0) & (share <= 1)).all():
            kind = "pairs"
        if kind == "numbers":
            return cls(kind, y.astype("float64"))
        y = y.astype("float32")
        return cls(kind, y, num_classes=y.shape[1]) if kind == "soft" else _sparse(kind, y, int(ids.max()) + 1)

    @property
    def mass(self) -> Any:
        """The sum of the shares `(...)`: 0 where no class counts."""
        return _backend.namespace(self.shares).sum(self.shares, -1)

    def dense(self) -> Any:
        """The shares of all classes, float32 `(..., C)`."""
        if self.ids is None:
            return self.shares
        xp = _backend.namespace(self.shares)
        columns = [slice(column, column + 1) for column in range(self.ids.shape[-1])]
        one_hot = [xp.cast(self.ids[..., column] == xp.arange(self.num_classes), "float32") for column in columns]
        return sum(hot * self.shares[..., column] for hot, column in zip(one_hot, columns, strict=True))

    def share_of(self, classes: Any) -> Any:
        """The shares `(...)` of one class for each label, given as int32 ids `(...)`."""
        xp, classes = _backend.namespace(self.shares), classes[..., None]
        if self.ids is None:
            return xp.pick(self.shares, classes)[..., 0]
        return xp.sum(self.shares * xp.cast(self.ids == classes, "float32"), -1)

    def largest(self) -> Any:
        """The classes with the largest shares, int32 ids `(...)`; of equal ones the first."""
        return self.ids[..., 0] if self.kind == "ids" else _backend.namespace(self.shares).argmax(self.dense())


def resolve(y: Any, classes: int, rank: Any, ignore_class: int | None = None) -> Any:
    """Turn labels whose form is not known from their shape into soft labels.

    TensorFlow compiles `fit` and `evaluate` for labels with an unknown last axis, or of unknown rank, once it has
    seen labels of two forms (or if a `tf.py_function` made the labels). Their form is then decided when the graph
    runs. All other labels come back unchanged.

    Args:
        y: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)` if C > 3.
        classes: The number of classes C of the predictions.
        rank: The number of axes of the predictions, `(..., C)`.
        ignore_class: The id that has no share, or None.

    Returns:
        `y` if its static shape shows the form, else float32 labels `(..., C)` with that static rank and last
        axis, and NaN for a class id that is not a whole number in `[0, C)`.

    Raises:
        ValueError: if neither the form nor the number of classes is known.
        tf.errors.InvalidArgumentError: if the graph runs on labels of another shape. XLA drops this check, and
            the labels are then NaN.

    Example:
        >>> import tensorflow as tf
        >>> from kmix.label_forms import resolve
        >>> soft = tf.function(lambda y: resolve(y, 4, 2), input_signature=[tf.TensorSpec(None)])
        >>> [soft(tf.constant(y)).numpy().tolist() for y in ([2.0], [[2.0]], [[2.0, 0.0, 0.75]])]
        [[[0.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]], [[0.25, 0.0, 0.75, 0.0]]]
    """
    shape = _backend.static_shape(y)
    if not _backend.is_tensorflow(y) or (shape is not None and (len(shape) != rank or shape[-1] is not None)):
        return y
    if classes is None:
        _checks.fail(
            "To tell class ids from soft labels, the shape of the labels or the number of classes must be known.",
            f"y_true of shape {shape} and predictions of an unknown last axis",
            "Call `y.set_shape([None, 1])` on class ids, or `y.set_shape([None, C])` on soft labels.",
        )
    import tensorflow as tf

    y = tf.cast(y, "float32")
    sizes = tf.shape(y)
    if shape is None:
        # Arithmetic on sizes, which XLA knows: it accepts no conditional whose branches differ in rank.
        sizes = tf.concat([sizes, tf.ones(tf.where(tf.size(sizes) == rank - 1, 1, 0), "int32")], 0)
    # A scalar has no last axis.
    last = tf.concat([[0], sizes], 0)[-1]
    form = tf.where(last == 1, 0, tf.where(last == classes, 1, tf.where((last == 3) & (classes > 3), 2, 3)))
    form = tf.where(tf.size(sizes) == rank, form, 3)
    _backend.namespace(y).require(form < 3, f"{EXPECTED} Received labels of another shape.")

    def rows(width):
        return tf.reshape(y, (-1, width))

    def unlike():
        # XLA drops the requirement above. Labels of no valid form must not count as valid labels.
        return tf.fill((tf.reduce_prod(sizes[:-1]), classes), float("nan"))

    branches = [
        lambda: rows(1) if classes == 1 else _sparse("ids", rows(1), classes, ignore_class).dense(),
        lambda: rows(classes),
        lambda: _sparse("pairs", rows(3), classes, ignore_class).dense() if classes > 3 else unlike(),
        unlike,
    ]
    y = tf.reshape(tf.switch_case(form, branches), tf.concat([sizes[:-1], [classes]], 0))
    return tf.ensure_shape(y, (*([None] * (rank - 1) if shape is None else shape[:-1]), classes))


def may_equal(shape: Any, other: Any) -> bool:
    """Whether two static shapes agree as far as they are known."""
    return len(shape) == len(other) and all(a == b or None in (a, b) for a, b in zip(shape, other, strict=True))


def _sparse(kind, y, classes, ignore_class=None):
    """The `LabelForm` of class ids `(..., 1)` or pairs `(..., 3)`."""
    xp = _backend.namespace(y)
    ids, shares = y, 1.0
    if kind == "pairs":
        # Both partners may have the same class.
        first = xp.where(y[..., 0] == y[..., 1], 1.0, y[..., 2])
        ids, shares = y[..., :2], xp.stack([first, 1.0 - first], axis=-1)
    valid = (ids >= 0) & (ids < classes) & (ids == xp.math.floor(ids))
    shares = xp.where(valid, shares, float("nan"))
    if ignore_class is not None:
        ignored = ids == float(ignore_class)
        valid, shares = valid & ~ignored, xp.where(ignored, 0.0, shares)
    return LabelForm(kind, xp.cast(shares, "float32"), xp.cast(xp.where(valid, ids, 0.0), "int32"), classes)
