"""What a layer or a trainer draws for batches, without counting them."""

from typing import Any, NamedTuple

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.batch import Batch
from kmix.diagnostics.seen import parts
from kmix.layers import RandomChoice
from kmix.layers.batch_layer import BatchLayer
from kmix.layers.mix_layer import MixLayer
from kmix.training.manifold import placed_layers
from kmix.training.trainer import MixTrainer

tree = keras.tree

# Rounding puts mass at 0 and at 1, and little lies within this of them in a test of the rest.
_EDGE = 1e-3


class Drawn(NamedTuple):
    """What was drawn for one batch.

    Attributes:
        lam: float64 `(B,)`.
        own: bool `(B,)`: whether a sample is its own partner.
        alpha: Alpha of the Beta distribution of lam; None if a paste has changed lam since.
        low: The smallest lam that may be drawn.
    """

    lam: Any
    own: Any
    alpha: float | None
    low: float


def check_mixer(mixer):
    """Return `mixer` if it is a mixing layer, a `MixTrainer` or None, or raise."""
    if mixer is not None and not isinstance(mixer, (BatchLayer, MixTrainer)):
        _checks.fail("`mixer` must be a mixing layer or a MixTrainer.", f"a {type(mixer).__name__}", error=TypeError)
    return mixer


class Mixer:
    """Mixes batches as a layer or trainer would.

    Args:
        mixer: A mixing layer or a `MixTrainer`.

    Attributes:
        start: The step to begin with: 0 for a layer, the next step of a trainer.
    """

    def __init__(self, mixer):
        self.mixer, self.start, self.layer = mixer, 0, mixer
        if isinstance(mixer, MixTrainer):
            self.start = int(_backend.values(mixer.step))
            self.layer = mixer.mixer if mixer.mixer is not None else placed_layers(mixer.model)[0]

    def mix(self, step, batch):
        """The batch mixed as in a step, and what was `Drawn` for it."""
        x, targets, _ = parts(batch)
        size, sizes = len(tree.flatten(x)[0]), self.layer.inputs.pasted(x)
        plan = self.mixer.plan(step, size, sizes, labels=targets if len(targets) > 1 else next(iter(targets.values())))
        layer = self.layer.layers[int(plan.choice)] if isinstance(self.layer, RandomChoice) else self.layer
        in_trainer = self.layer is not self.mixer
        mixed = self._train(batch, plan, layer.inputs, sizes) if in_trainer else self.layer.at_step(step, batch)
        lam = np.asarray(plan.lam, "float64")
        own = (_backend.NUMPY.rows(plan.permutation) == np.arange(size)) & (lam < 1)
        if len(tree.flatten(parts(mixed)[0])[0]) == 2 * size:
            # The clean samples come first.
            lam, own = np.concatenate([np.ones(size), lam]), np.concatenate([np.zeros(size, bool), own])
        blends = plan.box is None and plan.region is None and isinstance(layer, MixLayer)
        return mixed, Drawn(
            lam, own, alpha_of(layer, step) if blends else None, 0.5 * getattr(layer, "dominant", False)
        )

    def _train(self, batch, plan, inputs, sizes):
        """The batch of a training step. Hidden layers mix the inputs later."""
        trainer = self.mixer
        settings = trainer.step_mixer.settings
        classes = settings.num_classes
        if classes is None and not tree.is_nested(trainer.model.output_shape[-1]):
            classes = trainer.model.output_shape[-1]
        early = trainer.mixer is not None and not trainer.places
        read = Batch.read(batch, settings._replace(num_classes=classes), self.layer.inputs if early else None)
        values = read.encode(_backend.NUMPY, read.check(_backend.NUMPY))
        return read.write(read.mix(_backend.NUMPY, values, plan, inputs if early else None, sizes))


def alpha_of(layer, step):
    """Alpha of a layer in a step, as a float; None if it has none of its own."""
    alpha = getattr(layer, "alpha", None)
    return alpha if alpha is None else float(_backend.values(alpha(step) if callable(alpha) else alpha))


def p_value_of_lam(batches):
    """The p-value of lam under the Beta distributions that it was to follow; None if there is nothing to test.

    Args:
        batches: The `Drawn` of each batch.
    """
    with _checks.installed("SciPy", "diagnostics"):
        from scipy import stats

    parts = [np.array([])]
    for lam, _, alpha, low in batches:
        if alpha:
            # A batch may share one lam.
            lam = np.unique(lam[lam < 1]) if len(np.unique(lam[lam < 1])) == 1 else lam
            low, high = max(low, _EDGE), 1 - _EDGE
            inside, cdf = lam[(lam > low) & (lam < high)], stats.beta(alpha, alpha).cdf
            parts.append((cdf(inside) - cdf(low)) / (cdf(high) - cdf(low)))
    uniform = np.concatenate(parts)
    return float(stats.kstest(uniform, "uniform").pvalue) if len(uniform) else None
