"""What a layer or a trainer mixes with, told by repeating its plan, without counting batches.

Everything that diagnostics know of layers, trainers and plans is in this file.
"""

from typing import Any, NamedTuple

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.batch import INPUTS, Batch, Reading
from kmix.diagnostics.data import read_batch
from kmix.layers import MixLayer, RandomChoice
from kmix.pairing import Pairing
from kmix.training.manifold import placed_layers
from kmix.training.trainer import MixTrainer

tree = keras.tree

# Rounding puts mass at 0 and at 1, and little lies within this of them in a test of the rest.
_EDGE = 1e-3


class BatchPlan(NamedTuple):
    """The plan of one batch, as far as a report needs it.

    Attributes:
        lam: float64 `(B,)`.
        own_partner: bool `(B,)`: whether a sample was to be mixed, and is its own partner.
        alpha: Alpha of the Beta distribution of lam; None if lam follows another distribution, as of a paste.
        low: The smallest lam that may be drawn.
        without_candidate: bool `(B,)`: whether the rule of pairing has no partner for a sample, which is not mixed
            then; None for a rule that does not tell.
    """

    lam: np.ndarray
    own_partner: Any
    alpha: float | None
    low: float
    without_candidate: Any = None


def is_mixer(value: Any) -> bool:
    """Whether `value` mixes: a mixing layer or a `MixTrainer`."""
    return isinstance(value, (MixLayer, MixTrainer))


def check_mixer(mixer: Any) -> Any:
    """Return `mixer` if it is a mixing layer, a `MixTrainer` or None, or raise."""
    if mixer is not None and not is_mixer(mixer):
        _checks.fail("`mixer` must be a mixing layer or a MixTrainer.", f"a {type(mixer).__name__}", error=TypeError)
    return mixer


class PlanReplay:
    """Mixes batches as a layer or trainer would.

    Args:
        mixer: A mixing layer or a `MixTrainer`.

    Attributes:
        start: The step to begin with: 0 for a layer, the next step of a trainer.
        keeps_range: Whether mixed values of the inputs lie between theirs.
        inputs_key: The key of the inputs in a dictionary batch; a trainer takes no dictionaries.
    """

    def __init__(self, mixer: Any) -> None:
        self.mixer, self.start, self._layer = mixer, 0, mixer
        self.inputs_key = getattr(mixer, "inputs_key", INPUTS)
        if isinstance(mixer, MixTrainer):
            self.start = int(_backend.values(mixer.step))
            self._layer = mixer.mixer if mixer.mixer is not None else placed_layers(mixer.model)[0]
        self.keeps_range = self._layer.input_mixing._keeps_range

    def mix(self, step: int, batch: Any) -> tuple[Any, BatchPlan]:
        """The batch mixed as in a step, and its `BatchPlan`."""
        x, targets, _ = read_batch(batch, self.inputs_key)
        size, mixing = len(tree.flatten(x)[0]), self._layer.input_mixing
        sizes = mixing.spatial_shape(x) if mixing.pastes else None
        y = targets if len(targets) > 1 else next(iter(targets.values()))
        plan = self.mixer.plan(step, size, spatial_shape=sizes, targets=y)
        layer = self._layer.layers[int(plan.choice)] if isinstance(self._layer, RandomChoice) else self._layer
        in_trainer = self._layer is not self.mixer
        mixed = self._mix_in_training(batch, plan, layer) if in_trainer else self.mixer.at_step(step, batch)
        lam = np.asarray(plan.lam, "float64")
        own = _backend.NUMPY.rows(plan.permutation) == np.arange(size)
        # By a score, a sample that may not be its own partner is, for want of another.
        alone = own if _draws_others_by_score(layer._pairing) else None
        own = own & (lam < 1)
        if len(tree.flatten(read_batch(mixed, self.inputs_key)[0])[0]) == 2 * size:
            # The clean samples come first.
            none = np.zeros(size, bool)
            lam, own = np.concatenate([np.ones(size), lam]), np.concatenate([none, own])
            alone = None if alone is None else np.concatenate([none, alone])
        # Of several partners, lam follows another distribution.
        blends = not plan.pastes and plan.partners is None
        low = 0.5 if layer.lam_at_least_half else 0.0
        return mixed, BatchPlan(lam, own, _alpha_of(layer, step) if blends else None, low, alone)

    def alpha(self, step: int) -> float | None:
        """Alpha in a step; None if the mixer has none of its own."""
        return _alpha_of(self._layer, step)

    def _mix_in_training(self, batch, plan, layer):
        """The batch of a training step. Hidden layers mix the inputs later."""
        trainer, step_mixer = self.mixer, self.mixer._step_mixer
        x, y, sample_weight = (*batch, None)[:3]
        # Where losses are mixed, any loss may compare with class ids.
        loss = trainer.loss if trainer.compiled and not trainer.mix_losses else None
        y, target = step_mixer._labels.read(y, loss)
        y = tree.map_structure(_backend.values, y)
        early = layer.input_mixing if trainer.mixer is not None and not trainer.places else None
        read = Batch.read((x, y, sample_weight), Reading(target, input_mixing=early, partners=layer._partners))
        encoded = read.check_values().encode()
        plan = plan if early is None else layer.resolve(plan, encoded)
        mixed = encoded.mix(plan, early, layer.include_clean).write(layer.include_clean)
        if early is not None:
            return mixed
        copies = 2 if layer.include_clean else 1
        return tree.map_structure(lambda leaf: np.concatenate([_backend.values(leaf)] * copies), x), *mixed[1:]


def _draws_others_by_score(rule):
    return type(rule).partners is Pairing.partners and not rule.allow_self


def _alpha_of(layer, step):
    alpha = getattr(layer, "alpha", None)
    return alpha if alpha is None else float(_backend.values(alpha(step) if callable(alpha) else alpha))


def share_without_candidate(plans: list[BatchPlan]) -> float | None:
    """The share of samples for which the rule of pairing has no partner; None if no rule tells."""
    if all(plan.without_candidate is None for plan in plans):
        return None
    found = [0 if plan.without_candidate is None else int(plan.without_candidate.sum()) for plan in plans]
    return sum(found) / sum(len(plan.lam) for plan in plans)


def p_value_of_lam(plans: list[BatchPlan]) -> float | None:
    """The p-value of lam under the Beta distributions that it was to follow; None if there is nothing to test."""
    with _checks.installed("SciPy", "diagnostics"):
        from scipy import stats

    parts = [np.array([])]
    for plan in plans:
        lam, alpha, low = plan.lam, plan.alpha, plan.low
        if alpha:
            # A batch may share one lam.
            lam = np.unique(lam[lam < 1]) if len(np.unique(lam[lam < 1])) == 1 else lam
            low, high = max(low, _EDGE), 1 - _EDGE
            inside, cdf = lam[(lam > low) & (lam < high)], stats.beta(alpha, alpha).cdf
            parts.append((cdf(inside) - cdf(low)) / (cdf(high) - cdf(low)))
    uniform = np.concatenate(parts)
    return float(stats.kstest(uniform, "uniform").pvalue) if len(uniform) else None
