"""The training step that is running: the whole contract between a `MixTrainer` and the layers inside its model.

The trainer opens the step with the plan that it drew. A layer asks `running()`, mixes with its `plan`, and notes that
it did. The trainer closes the step, which raises if the labels were mixed and the inputs were not.
"""

import contextlib
import contextvars
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from kmix import _checks


class StepKey(NamedTuple):
    """What the plan of one batch is a function of, besides the settings of the layer that draws it.

    Attributes:
        step: Number of the batch, an int or an integer scalar tensor.
        replica: Index of the replica under data parallelism.
        seed: Seed that replaces the layer's own.
        shards: Number of equal parts of the batch within which partners stay.
        alphas: The alpha of layers in this step, where something else than the layer itself holds it.
    """

    step: Any
    replica: Any = 0
    seed: int | None = None
    shards: int = 1
    alphas: Mapping[keras.layers.Layer, Any] = {}

    def seed_of(self, layer):
        """The seed that counts for a layer."""
        return layer.seed if self.seed is None else self.seed


class Step:
    """A training step that is running.

    Attributes:
        plan: The plan to mix with inside the model. None where the inputs of the model are mixed already.
        places: Number of the places of Manifold Mixup, all of which the model must pass. 0 where layers inside the
            model mix.
    """

    def __init__(self, plan=None, places=0):
        self.plan, self.places = plan, places
        self._noted = set()

    def note(self, place=None):
        """Say that a tensor of the model, not just a mask, was mixed: by a layer, or in the places `place`."""
        self._noted.add(place)

    def has_mixed(self):
        """Whether the model mixed what its labels are mixed with."""
        if self.plan is None:
            return True
        return self._noted >= set(range(self.places)) if self.places else bool(self._noted)


_RUNNING: contextvars.ContextVar[Step | None] = contextvars.ContextVar("kmix_step", default=None)


def running():
    """The training step that is running, or None."""
    return _RUNNING.get()


@contextlib.contextmanager
def run(step):
    """Run a training step. Raises at its end if its labels were mixed and the inputs of the model were not."""
    token = _RUNNING.set(step)
    try:
        yield
    finally:
        _RUNNING.reset(token)
    if not step.has_mixed():
        _checks.fail(
            "The labels of this training step were mixed, the inputs were not.",
            "a model that does not call its mixing layers in training",
            "Call them in `call`, and do not pass `training=False` to them.",
        )
