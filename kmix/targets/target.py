"""What every kind of target offers, and the registry of kinds by name."""

import keras

from kmix import _backend, _checks

tree = keras.tree


class Target:
    """One kind of target: how it is recognised, checked, encoded and mixed, and what comes out.

    A target is made for each batch, from static shapes and dtypes alone, and raises for what it cannot mix. Subclass
    it, override `mix` and what else differs, and register the subclass under a name: `target=name` then selects it
    in every layer and in `MixTrainer`, and a dictionary batch may hold it under that key.

    All arrays of one call, those of the plan included, are of one framework. `xp` holds the operations on them:
    `cast`, `arange`, `where`, `all`, `any`, `sum`, `size`, `reshape`, `stack`, `take` (rows by index), `along` (append
    axes to `(B,)`), `require` (raise where values can be seen), and in `xp.math` `cos`, `exp`, `floor`, `log`,
    `maximum`, `minimum`, `sin`, `sqrt`, `square`.

    Args:
        y: The target of the batch, an array or a structure of arrays.
        pasted: Static sizes of the spatial axes of the inputs where the mixer pastes (None: not known yet); `None`
            where it blends.
        **settings: The arguments of the layer that the subclass lists in `settings`.

    Attributes:
        settings: Names of the layer arguments that the constructor takes.
        is_key: Whether a dictionary batch may hold the target under its name.

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

    settings: tuple[str, ...] = ()
    is_key = True

    def __init__(self, y, *, pasted=None, **settings):
        self.pasted = pasted

    @classmethod
    def check_support(cls):
        """Raise if targets of this kind cannot be mixed at all."""

    def check(self, xp, y):
        """Return `y` as tensors of `xp`, or raise where its values show that it cannot be mixed.

        A compiled step has no values to see: there `encode` should return NaN for what is wrong.
        """
        return tree.map_structure(xp.asarray, y)

    def encode(self, xp, y):
        """Return what `check` returned in the form in which it is mixed. Runs in the compiled program."""
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

    def spec(self, y):
        """Return the mixed target as `KerasTensor`s, by default of the shapes and dtypes of `y`."""
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), y)

    def shapes(self, y):
        """Return for each array of `y` the static shape whose leading axes sample weights have."""
        return [_backend.static_shape(leaf) for leaf in tree.flatten(y)]

    def weigh_classes(self, xp, y, class_weight):
        """Return the weight `(B,)` of the class of each sample of the encoded `y`, for `class_weight=` of a layer."""
        _checks.fail("`class_weight` weighs the classes of labels.", f"a target {type(self).__name__}", "Leave it out.")


_KINDS: dict[str, type[Target]] = {}


def register(name):
    """Register a subclass of `Target` under a name: a decorator.

    Args:
        name: What `target=` and the keys of dictionary batches call it.

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
        # A notebook runs its cells again.
        if other is not None and (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
            taken = f"{name!r}, which is {other.__name__}"
            _checks.fail("A name stands for one kind of target.", taken, "Choose another name.")
        _KINDS[name] = kind
        return kind

    return add


def kind(name):
    """The class that is registered under a name."""
    return _KINDS[name]


def names():
    """The names of all kinds of targets."""
    return sorted(_KINDS)


def dictionary_keys():
    """The names that are keys of dictionary batches."""
    return [name for name in names() if _KINDS[name].is_key]
