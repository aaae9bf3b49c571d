"""RandomChoice: one of several mixing layers for each batch."""

import math
from collections.abc import Sequence

import keras

from kmix import _backend, _checks
from kmix.layers.base import MixLayer
from kmix.layers.input_mixing import InputMixing, OneOf
from kmix.plan import sample_choice
from kmix.typing import ScalarOrSchedule

tree = keras.tree


@keras.saving.register_keras_serializable(package="kmix")
class RandomChoice(MixLayer):
    """Mixes each batch with one of several layers, drawn at random.

    Args:
        layers: Mixing layers of kmix that agree on `num_classes`, `target`, `include_clean` and `inputs_key`. To leave
            some batches unmixed, add `kmix.MixUp(0.0)`.
        probabilities: Numbers >= 0, one for each layer, in proportion to the probabilities; each may be a schedule (a
            callable of the step) instead. Equal by default.
        jit_compile: Whether the mixing may be compiled and use several threads, see `MixUp`. That of the layers is
            ignored.
        seed: Integer in `[0, 2**32)` for the choice alone: each layer keeps its own seed. Drawn from
            Python's `random` by default.
        name: Name of the layer.

    Call arguments:
        x, y, sample_weight, training: As for the layers.

    Returns:
        The batch in the same structure. If the layers return different dtypes (`CutMix` keeps uint8,
        `MixUp` does not), they are promoted, so that every batch has the same dtype.

    Raises:
        ValueError: if there are no layers, the probabilities do not match them, or the layers disagree; and as for the
            layers.
        TypeError: if one of `layers` is not a mixing layer.

    Example:
        >>> layer = kmix.RandomChoice([kmix.MixUp(0.2, num_classes=2), kmix.CutMix(1.0, num_classes=2)], seed=1)
        >>> x, y = layer(np.zeros((2, 8, 8, 3), "float32"), np.array([0, 1]))
        >>> y.shape
        (2, 2)
    """

    _has_alpha = False

    def __init__(
        self,
        layers: Sequence[MixLayer],
        probabilities: Sequence[ScalarOrSchedule] | None = None,
        *,
        jit_compile: bool = True,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        layers = _checks.sequence(layers, "layers")
        for layer in layers:
            if not isinstance(layer, MixLayer):
                _checks.fail("`layers` must be mixing layers of kmix.", f"a {type(layer).__name__}", error=TypeError)
        if not layers:
            _checks.fail("`layers` must hold at least one mixing layer.", "an empty list")
        agreed = {}
        for setting in ("num_classes", "target", "include_clean", "inputs_key"):
            given = [layer._target if setting == "target" else getattr(layer, setting) for layer in layers]
            if any(value != given[0] for value in given):
                _checks.fail(
                    f"All `layers` must agree on `{setting}`, since every batch has the same labels.", f"{given}"
                )
            agreed[setting] = getattr(layers[0], setting)
        within = {layer._within for layer in layers}
        if len(within) > 1:
            _checks.fail("All `layers` must agree on `within` of their pairing.", f"{sorted(map(str, within))}")
        self._partners = max(layer._partners for layer in layers)
        super().__init__(**agreed, jit_compile=jit_compile, seed=seed, name=name)
        self.layers = layers
        self._draw_within(layers[0]._within)
        # A choice among choices draws from a separate stream, so that both may share one seed.
        self._depth = 1 + max(getattr(layer, "_depth", 0) for layer in layers)
        values = _checks.probabilities([1.0] * len(layers) if probabilities is None else probabilities, len(layers))
        as_given = None if probabilities is None else list(probabilities)
        self._store(probabilities=as_given, _probabilities=values)

    @property
    def input_mixing(self) -> InputMixing:
        return OneOf([layer.input_mixing for layer in self.layers])

    def _choice(self, xp, key, values):
        seed = self.seed if key.seed is None else key.seed
        return sample_choice(seed, key.step, values["probabilities"], depth=self._depth, xp=xp)

    def _draw(self, xp, key, values, batch_size, spatial_shape, targets):
        choice = self._choice(xp, key, values)
        layer, own = self.layers[int(choice)], values["layers"][int(choice)]
        return layer._draw(xp, key, own, batch_size, spatial_shape, targets)._replace(choice=choice)

    def _integers(self, key, batch_size):
        values = self._values_at(_backend.NUMPY, key.step, None)
        choice = int(self._choice(_backend.NUMPY, key, values))
        return [choice, *self.layers[choice]._integers(key, batch_size)]

    def _draw_and_mix(self, plan_xp, key, values, batch, include_clean):
        dtype = self.input_mixing.dtype

        def branch(layer, own):
            def run():
                mixed = layer._draw_and_mix(plan_xp, key, own, batch, include_clean)
                promoted = [
                    batch.xp.cast(new, dtype(leaf))
                    for new, leaf in zip(tree.flatten(mixed.inputs), tree.flatten(batch.inputs), strict=True)
                ]
                return mixed._replace(inputs=tree.pack_sequence_as(batch.inputs, promoted)).arrays

            return run

        branches = [branch(*pair) for pair in zip(self.layers, values["layers"], strict=True)]
        return batch.with_arrays(plan_xp.switch(self._choice(plan_xp, key, values), branches))

    def _values_at(self, xp, step, leaf, given=None):
        layers = [layer._values_at(xp, step, leaf, given) for layer in self.layers]
        if not any(map(callable, self._probabilities)):
            return {"probabilities": self._probabilities, "layers": layers}
        drawn = [xp.evaluate(value, step) if callable(value) else value for value in self._probabilities]
        probabilities = [xp.cast(value, "float32") for value in drawn]
        total = sum(probabilities)
        valid = (total > 0) & (total < math.inf)
        if _backend.is_symbolic(total):
            layers = [_or_nan(xp, valid, own) for own in layers]
        elif not valid:
            _checks.fail(
                "`probabilities` must have a finite sum > 0 at every step.",
                f"{list(map(float, probabilities))} at step {int(step)}",
                "To leave batches unmixed, add `kmix.MixUp(0.0)`.",
            )
        return {"probabilities": probabilities, "layers": layers}

    def _check_targets(self, batch):
        for layer in self.layers:
            layer._check_targets(batch)

    def _kept_for_pairing(self, batch):
        parts = [layer._kept_for_pairing(batch) for layer in self.layers]
        return {key: value for part in parts for key, value in part.items()}

    def _check_takes_second_batch(self):
        for layer in self.layers:
            layer._check_takes_second_batch()

    def _constants(self):
        own, layers = super()._constants(), [layer._constants() for layer in self.layers]
        return None if own is None or None in layers else f"{own} {self._depth} {layers}"

    def _without_alpha(self):
        names = ", ".join(f"`layers[{i}]` ({layer.name})" for i, layer in enumerate(self.layers))
        return f"Its layers have: {names}. Set `choice.layers[0].alpha`, or `AlphaScheduler(choice.layers, schedule)`."

    def _arguments(self):
        return {**super()._arguments(), "layers": list(self.layers)}


def _or_nan(xp, valid, values):
    """The values of a layer, with a rate of NaN unless `valid`: no branch must be drawn in silence."""
    if "layers" in values:
        return {**values, "layers": [_or_nan(xp, valid, own) for own in values["layers"]]}
    return {**values, "rate": xp.where(valid, xp.cast(values["rate"], "float32"), math.nan)}
