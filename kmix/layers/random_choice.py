"""RandomChoice: one of several mixing layers for each batch."""

import keras

from kmix import _backend, _checks
from kmix.layers.batch_layer import BatchLayer
from kmix.plan import sample_choice
from kmix.targets.inputs import OneOf

tree = keras.tree


_SHARED = ("num_classes", "labels", "target", "class_weight", "keep_clean", "target_arguments")


@keras.saving.register_keras_serializable(package="kmix")
class RandomChoice(BatchLayer):
    """Mixes each batch with one of several layers, drawn at random.

    Args:
        layers: Mixing layers of kmix with the same `num_classes`, `labels`, `target`, `class_weight` and `keep_clean`.
            To leave some batches unmixed, add `kmix.MixUp(0.0)`.
        weights: Numbers >= 0, one for each layer, in proportion to their probabilities. Equal by default.
        seed: Integer in `[0, 2**32)` for the choice alone: each layer keeps its own seed. Drawn from
            Python's `random` by default.
        **kwargs: `name`, as for every Keras layer.

    Call arguments:
        x, y, sample_weight, training: As for the layers.

    Attributes:
        fuse: Whether the mixing may be compiled and use several threads, see `MixUp`. The `fuse` of the layers
            is ignored.

    Returns:
        The batch in the same structure. If the layers return different dtypes (`CutMix` keeps uint8,
        `MixUp` does not), they are promoted, so that every batch has the same dtype.

    Raises:
        ValueError: if there are no layers, the weights do not match them, or the layers disagree on
            `num_classes`, `labels`, `target`, `class_weight` or `keep_clean`; and as for the layers.
        TypeError: if one of `layers` is not a mixing layer.

    Example:
    >>> layer = kmix.RandomChoice([kmix.MixUp(0.2, num_classes=2), kmix.CutMix(1.0, num_classes=2)], seed=1)
    >>> x, y = layer(np.zeros((2, 8, 8, 3), "float32"), np.array([0, 1]))
    >>> y.shape
    (2, 2)
    """

    def __init__(self, layers, weights=None, seed=None, **kwargs):
        layers = _checks.sequence(layers, "layers")
        for layer in layers:
            if not isinstance(layer, BatchLayer):
                _checks.fail("`layers` must be mixing layers of kmix.", f"a {type(layer).__name__}", error=TypeError)
        if not layers:
            _checks.fail("`layers` must hold at least one mixing layer.", "an empty list")
        for setting in _SHARED:
            given = [getattr(layer, setting) for layer in layers]
            if any(value != given[0] for value in given):
                _disagree(setting, given)
        names = {name: None for layer in layers for name in layer.passthrough}
        shared = {setting: getattr(layers[0], setting) for setting in _SHARED}
        shared |= shared.pop("target_arguments")
        super().__init__(**shared, passthrough=names, seed=seed, **kwargs)
        self.layers = layers
        # A choice among choices draws from a separate stream, so that both may share one seed.
        self.depth: int = 1 + max(getattr(layer, "depth", 0) for layer in layers)
        # Keras uses the name `weights` for the variables of a layer.
        self.probabilities = _checks.probabilities(weights, len(layers))

    @property
    def alpha(self):
        """Not available: each of the layers has its own."""
        raise AttributeError("RandomChoice has no alpha of its own. Use that of a layer: `choice.layers[0].alpha`.")

    @alpha.setter
    def alpha(self, value):
        self.check_alpha(value)

    def check_alpha(self, value):
        """Raise: a choice has no alpha to set."""
        _checks.fail(
            "RandomChoice has no alpha of its own; its layers do: "
            + ", ".join(f"`layers[{i}]` ({layer.name})" for i, layer in enumerate(self.layers))
            + ".",
            f"alpha={value!r}",
            "Write `choice.layers[0].alpha = ...`, or `AlphaScheduler(choice.layers, schedule)`.",
        )

    @property
    def inputs(self):
        return OneOf([layer.inputs for layer in self.layers])

    def sample_plan(self, xp, key, batch_size, spatial_shape=None):
        choice = self._choice(xp, key)
        return self.layers[int(choice)].sample_plan(xp, key, batch_size, spatial_shape)._replace(choice=choice)

    def check_partners(self, xp, targets, given=None):
        for layer in self.layers:
            layer.check_partners(xp, targets, given)

    def check_takes_partner(self):
        for layer in self.layers:
            layer.check_takes_partner()

    def alphas(self, xp, key, leaf):
        return {inner: alpha for layer in self.layers for inner, alpha in layer.alphas(xp, key, leaf).items()}

    def mix_values(self, xp, key, batch, values):
        def branch(layer):
            def run():
                mixed, *others = layer.mix_values(xp, key, batch, values)
                dtypes = self.inputs.dtype
                promoted = tree.map_structure(lambda new, leaf: xp.cast(new, dtypes(leaf)), mixed, values.inputs)
                return type(values)(promoted, *others)

            return run

        plan_xp, step = _backend.plan_namespace(xp, key.step, tree.flatten(values.inputs)[0])
        choice = self._choice(plan_xp, key._replace(step=step))
        return plan_xp.switch(choice, [branch(layer) for layer in self.layers])

    def constants(self):
        own, layers = super().constants(), [layer.constants() for layer in self.layers]
        return None if own is None or None in layers else repr((self.probabilities, self.seed, self.depth, layers))

    def _choice(self, xp, key):
        return sample_choice(key.seed_of(self), key.step, self.probabilities, depth=self.depth, xp=xp)

    def arguments(self):
        arguments = super().arguments()
        for name in ("passthrough", *_SHARED, *self.target_arguments):
            arguments.pop(name, None)
        return {**arguments, "layers": list(self.layers), "weights": list(self.probabilities)}


def _disagree(setting, given):
    if setting == "target_arguments":
        setting = next(name for name in given[0] if any(each[name] != given[0][name] for each in given))
        given = [each[setting] for each in given]
    _checks.fail(
        f"All `layers` must agree on `{setting}`, since every batch has the same labels.", f"{setting} {given}"
    )
