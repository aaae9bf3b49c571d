"""The interface of every kind of target, and the registry of kinds by name."""

from collections.abc import Mapping
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.targets import sample_weights

tree = keras.tree


class Target:
    """One kind of target: how it is recognised, checked, encoded and mixed, and what comes out.

    Each batch creates a target from static shapes and dtypes alone. The target raises if it cannot mix `y`. To add a
    kind, override `mix` in a subclass, and other methods as needed, and register the subclass under a name.
    `target=name` then selects it in every layer and in `MixTrainer`, and a dictionary batch may hold it under that key.

    All arrays in one call, including the plan, belong to one framework. `xp` holds the operations on them:
    `cast`, `arange`, `where`, `all`, `any`, `sum`, `size`, `reshape`, `stack`, `take` (rows by index), `along` (append
    axes to `(B,)`), `require` (raise if the values can be read), and in `xp.math` `cos`, `exp`, `floor`, `log`,
    `maximum`, `minimum`, `sin`, `sqrt`, `square`.

    Args:
        y: The target of the batch, an array or a structure of arrays.
        pasted: Static sizes of the spatial axes of the inputs if the mixer pastes (None for a size not known yet);
            `None` if it blends.
        **settings: What the subclass lists in `settings` and `arguments`.

    Attributes:
        arguments: Arguments that this kind adds to every layer and to `MixTrainer`, by name, with their defaults. The
            constructor takes them, see also `check_arguments`.
        settings: What else the constructor takes: arguments that all layers have, such as `num_classes`, and facts
            about the batch: `inputs`, the static shapes of the inputs; `blended`, whether the mixer may also blend
            (a choice may do both); `data_format`, where the channels of the inputs are.
        mixes_views: Whether `mix` follows plans with several partners: those whose `region` has `views`.
        is_key: Whether a dictionary batch may hold the target under its name.
        spatial_shape: In `mix`, where the mixer pastes: sizes of the spatial axes of the inputs, ints or scalar
            tensors.

    Raises:
        ValueError: if the static shapes and dtypes show that `y` cannot be mixed.

    Example: angles in degrees, mixed along the circle.

    >>> @kmix.targets.register("angles")
    ... class Angles(kmix.targets.Target):
    ...     def mix(self, xp, y, plan, weights):
    ...         way = (xp.take(y, plan.permutation) - y + 180) % 360 - 180
    ...         return (y + (1 - xp.along(plan.lam, y)) * way) % 360
    >>> mixup = kmix.MixUp(1.0, target="angles", seed=1)
    >>> _, y = mixup(np.ones((3, 2), "float32"), np.array([0.0, 90.0, 350.0], "float32"))
    >>> y.shape
    (3,)
    """

    arguments: Mapping[str, Any] = {}
    settings: tuple[str, ...] = ()
    mixes_views = False
    is_key = True
    spatial_shape: Any = None
    # Whether `mix` takes the plan of an eager batch as it was drawn: NumPy arrays, whatever the framework of the batch.
    takes_drawn_plan = False

    def __init__(self, y, *, pasted=None, **settings):
        self.pasted = pasted

    @classmethod
    def check_arguments(cls, given):
        """Return the arguments that this kind adds, a dictionary by name, or raise if one is wrong."""
        return given

    def check(self, xp, y):
        """Return `y` as tensors of `xp`, or raise if its values show that it cannot be mixed.

        In a compiled step the values cannot be read: there `encode` should return NaN for wrong values.
        """
        return tree.map_structure(xp.asarray, y)

    def pad(self, xp, y):
        """Return what `check` returned, padded so that a size that is not known takes few values.

        Only called before a compiled program, which is compiled for each of them.
        """
        return y

    def crop(self, xp, y):
        """Return the mixed target without what `pad` added."""
        return y

    def encode(self, xp, y):
        """Return what `check` returned, encoded for mixing. Runs in the compiled program."""
        return y

    def mix(self, xp, y, plan, weights):
        """Return what `encode` returned, mixed.

        Args:
            xp: Array namespace.
            y: The encoded target.
            plan: The `MixPlan` of the batch.
            weights: For each array of `y`, in the order of `keras.tree.flatten`, its sample weights before mixing, or
                None.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `mix`.")

    def mix_weights(self, xp, weights, plan):
        """Return the sample weights of an array of the target, mixed. By default, they follow the labels."""
        return sample_weights.mix_weights(xp, weights, plan)

    def spec(self, y):
        """Return the mixed target as `KerasTensor`s. By default they have the shapes and dtypes of `y`."""
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), y)

    def shapes(self, y):
        """Return the static shape for each array of `y`. Sample weights must have its leading axes."""
        return [_backend.static_shape(leaf) for leaf in tree.flatten(y)]

    def weigh_classes(self, xp, y, class_weight):
        """Return the class weight `(B,)` of each sample of the encoded `y`, for `class_weight=` of a layer."""
        _checks.fail("`class_weight` applies only to labels.", f"a target {type(self).__name__}", "Leave it out.")


_KINDS: dict[str, type[Target]] = {}


def register(name):
    """Register a subclass of `Target` under a name. Use it as a decorator.

    Args:
        name: The name for `target=` and for the keys of dictionary batches.

    Returns:
        A decorator that returns the class.

    Raises:
        ValueError: if the name belongs to another class.

    Example: see `Target`.

    >>> kmix.targets.register("labels")(kmix.targets.Target)
    Traceback (most recent call last):
    ...
    ValueError: A name stands for one kind of target. Received: 'labels', which is Labels. Choose another name.
    """

    def add(kind):
        other = _KINDS.get(name)
        # A notebook may run a cell again.
        if other is not None and (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
            taken = f"{name!r}, which is {other.__name__}"
            _checks.fail("A name stands for one kind of target.", taken, "Choose another name.")
        _KINDS[name] = kind
        return kind

    return add


def kind(name):
    """The class registered under a name."""
    return _KINDS[name]


def names():
    """The names of all kinds of targets.

    Returns:
        A sorted list of strings.

    Example:
    >>> "labels" in kmix.targets.names()
    True
    """
    return sorted(_KINDS)


def arguments():
    """The arguments that kinds of targets add to layers, with their defaults."""
    return {name: default for kind in _KINDS.values() for name, default in kind.arguments.items()}


def check_arguments(given):
    """Return the arguments of all kinds by name, checked, with defaults for those that are not in `given`."""
    checked = {}
    for kind in _KINDS.values():
        own = {name: given.get(name, default) for name, default in kind.arguments.items()}
        checked.update(kind.check_arguments(own))
    return checked


def dictionary_keys():
    """The names that may be keys of dictionary batches."""
    return [name for name in names() if _KINDS[name].is_key]
