"""What every target has in common: how it is checked, encoded and mixed, and what comes out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks
from kmix._settings import Settings
from kmix.plan import MixPlan

tree = keras.tree

# A number of objects that is not known is padded to a multiple of this.
ROWS = 16


class BatchInfo(NamedTuple):
    """What is known of the batch that a target belongs to.

    Attributes:
        input_shapes: The static shape of each array of the inputs, with a channel axis.
        spatial_shape: Sizes of the spatial axes of the inputs: ints, or scalar tensors in `mix` (None in `check` for a
            size that is not known yet). None if nothing is pasted.
        data_format: `"channels_last"` or `"channels_first"`, where the mixer has that setting. Else None.
        pastes: Whether the mixer may paste parts of the partners.
        blends: Whether the mixer may blend whole samples. A `RandomChoice` may do both.
        partners: How many partners a sample may have: 1, or 3 in a Mosaic.
        path: The keys and indices that lead to the target, for errors.
        cut_axes: For each mixer that cuts some spatial axes alone, the indices of these axes in `spatial_shape`.

    Example:
        >>> kmix.targets.BatchInfo().blends
        True
    """

    input_shapes: Any = ()
    spatial_shape: Any = None
    data_format: str | None = None
    pastes: bool = False
    blends: bool = True
    partners: int = 1
    path: tuple[Any, ...] = ()
    cut_axes: tuple[tuple[int, ...], ...] = ()

    @property
    def name(self) -> str:
        """The path as words, such as `"labels"` or `"labels at ['a']"`."""
        return "labels" if not self.path else f"labels at {''.join(f'[{key!r}]' for key in self.path)}"


class Target(Settings):
    """What a label is, and so how it follows a plan. Override `mix`, and other methods as needed, to write one.

    A target holds its settings and nothing of a batch, so layers may share it. It is never changed:
    `target.replace(num_classes=10)` makes a changed copy. Targets with equal settings are equal. To save a layer with a
    target, register the class with `keras.saving.register_keras_serializable`.

    All arrays in one call, including those of the plan, belong to one framework. `xp` holds the operations on them:
    `cast`, `arange`, `where`, `all`, `any`, `sum`, `size`, `reshape`, `stack`, `take` (rows by index), `along` (append
    axes to `(B,)`), `require` (raise if the values can be read), and in `xp.math` `cos`, `exp`, `floor`, `log`,
    `maximum`, `minimum`, `sin`, `sqrt`, `square`. Other names of `xp.math` are not the same in every framework.

    Attributes:
        max_partners: How many partners of a sample `mix` can follow; None for any number. A Mosaic has 3.

    Example:
        Angles in degrees, mixed along the circle.

        >>> class Angles(kmix.targets.Target):
        ...     def mix(self, xp, y, weight, plan, info):
        ...         way = (xp.take(y, plan.permutation) - y + 180) % 360 - 180
        ...         return (y + (1 - xp.along(plan.lam, y)) * way) % 360, weight
        >>> mixup = kmix.MixUp(1.0, target=Angles(), seed=1)
        >>> _, y = mixup(np.ones((3, 2), "float32"), np.array([0.0, 90.0, 350.0], "float32"))
        >>> y.shape
        (3,)
    """

    max_partners: int | None = 1
    # Whether `mix` takes the plan of an eager batch as it was drawn: NumPy arrays, whatever the framework of the batch.
    _takes_numpy_plan = False
    # Whether a sample that is its own partner is a pair like others. Elsewhere it is not mixed.
    _shows_own_partner = False
    # Whether the target stays out of all arithmetic, and may be anything.
    _is_kept = False

    def __init__(self) -> None:
        """Without settings."""

    def check(self, y: Any, info: BatchInfo) -> None:
        """Raise if the static shape and dtype of `y` show that it cannot be mixed.

        Args:
            y: The array (or what `takes` accepts) of the batch. Only its shape and dtype may be read.
            info: The `BatchInfo`.
        """

    def check_values(self, xp: _backend.Namespace, y: Any, info: BatchInfo) -> None:
        """Raise if the values of `y` show that it cannot be mixed, as far as they can be read: use `xp.require`.

        In a compiled step they cannot be read. There, `encode` should return NaN for wrong values.
        """

    def encode(self, xp: _backend.Namespace, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        """Return `y`, encoded for mixing, and its sample weights.

        Args:
            xp: Array namespace.
            y: The target.
            weight: Its sample weights before mixing, or None.
            info: The `BatchInfo`.
        """
        return y, weight

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        """Return the encoded `y`, mixed, and its sample weights.

        Args:
            xp: Array namespace.
            y: What `encode` returned.
            weight: The sample weights that `encode` returned, not mixed yet, or None.
            plan: The `MixPlan` of the batch.
            info: The `BatchInfo`.

        Returns:
            `(y, weight)`. `weight` as it was given stands for the default: it follows the labels,
            `lam * w + (1 - lam) * w[permutation]`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `mix`.")

    def spec(self, y: Any, weight: Any, info: BatchInfo) -> tuple[Any, Any]:
        """Return the mixed target and its sample weights as symbolic tensors. By default, both keep their shapes.

        `weight` as it was given stands for sample weights that `encode` returns as they were given.

        Args:
            y: The target of the batch: each leaf a `KerasTensor`.
            weight: Its sample weights as a `KerasTensor`, or None.
            info: The `BatchInfo`.
        """
        y = tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), y)
        return y, weight

    def takes(self, y: Any) -> bool:
        """Whether a structure `y` is one value of the target, not a structure of several. By default, an array is."""
        return not isinstance(y, (dict, list, tuple))

    def _weight_shape(self, y, info):
        """The static shape whose leading axes sample weights have; None if it is not known."""
        return _backend.static_shape(tree.flatten(y)[0])

    def _pad(self, xp, y):
        """`y`, padded so that a size that is not known takes few values: a program is compiled for each of them."""
        return y

    def _crop(self, xp, mixed, y, info):
        """What `mix` returned for the padded `y`, without the padding."""
        return mixed


@keras.saving.register_keras_serializable(package="kmix")
class Keep(Target):
    """Anything that belongs to the sample alone, such as ids, or the target of a denoiser. It stays as it came.

    It may be anything: strings, ragged tensors, nested structures. With `include_clean=True`, it must be arrays with a
    batch axis, which are doubled. Its sample weights follow the labels.

    Example:
        >>> mixup = kmix.MixUp(1.0, target={"class": kmix.targets.Labels(3), "id": "keep"}, seed=1)
        >>> _, y = mixup(np.ones((2, 4), "float32"), {"class": np.array([0, 2]), "id": np.array([17, 18])})
        >>> y["id"]
        array([17, 18])
    """

    max_partners: int | None = None
    _is_kept = True

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        return y, weight

    def takes(self, y: Any) -> bool:
        return True


class Function(Target):
    """A target mixed by a function of the user.

    Args:
        function: `function(y, plan)`, which gets tensors of the framework of the batch, and returns the mixed target.

    Example:
        Keep the keypoints `(B, N, 2)` of the partner with the larger share.

        >>> def stronger(points, plan):
        ...     return np.where(plan.lam[:, None, None] < 0.5, points[plan.permutation], points)
        >>> layer = kmix.CutMix(1.0, target=stronger, data_format="channels_last", seed=1)
        >>> _, points = layer(np.zeros((4, 8, 8, 1), "float32"), np.arange(16.0).reshape(4, 2, 2))
        >>> points.shape
        (4, 2, 2)
    """

    max_partners: int | None = None

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def mix(self, xp: _backend.Namespace, y: Any, weight: Any, plan: MixPlan, info: BatchInfo) -> tuple[Any, Any]:
        mixed = self.function(y, plan)
        if mixed is None:
            _checks.fail(
                "A callable `target` must return the mixed target.", f"None from {self.function!r}", "Return it."
            )
        mixed = tree.map_structure(xp.asarray, mixed)
        rows = (_backend.static_shape(tree.flatten(y)[0]) or (None,))[0]
        for shape in map(_backend.static_shape, tree.flatten(mixed)):
            if shape is not None and (not shape or (None not in (rows, shape[0]) and rows != shape[0])):
                _checks.fail(
                    "A callable `target` must return one row for each sample.",
                    f"shape {shape} from {self.function!r} for a target of {rows} rows",
                )
        return mixed, weight

    def takes(self, y: Any) -> bool:
        return True
