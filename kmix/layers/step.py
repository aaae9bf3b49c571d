"""The training step that is running: the whole contract between a `MixTrainer` and the layers inside its model.

The trainer opens the step with the plan it drew. A layer asks `running()` for the step, mixes with its `plan`, and
notes that it did. Closing the step raises an error if the labels were mixed and the inputs were not.
"""

import contextlib
import contextvars
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks

# Above, replicas would share streams of random numbers.
REPLICAS = 2**16


class StepKey(NamedTuple):
    """What the plan of one batch depends on, besides the settings of the layer that draws it.

    Attributes:
        step: Number of the batch, an int or an integer scalar tensor.
        replica: Index of the replica under data parallelism.
        seed: Seed that replaces the layer's own.
        shards: Number of equal parts of the batch within which partners stay.
        alphas: Alpha by layer in this step, for layers that do not hold it themselves.
        pairing: Settings that replace those of the layer: `pairing`, `bandwidth`, `pairing_by`.
        targets: The targets of the batch by name, for partners by label.
        joined: Whether the second half of the batch holds the partners of the first.
        clean: Whether nothing is to be mixed.
    """

    step: Any
    replica: Any = 0
    seed: int | None = None
    shards: int = 1
    alphas: Mapping[keras.layers.Layer, Any] = {}
    pairing: Mapping[str, Any] = {}
    targets: Mapping[str, Any] = {}
    joined: bool = False
    clean: bool = False

    def seed_of(self, layer):
        """The seed that a layer draws with."""
        return layer.seed if self.seed is None else self.seed


class Step:
    """A training step that is running.

    Attributes:
        plan: The plan to mix with inside the model. None if the inputs of the model are already mixed.
        places: Number of places of Manifold Mixup. The model must pass all of them. 0 if layers inside the model mix.
        label_plan: The plan by which the losses mix. None if the labels are already mixed.
        several: Whether labels may be mixed from more than two.
    """

    def __init__(self, plan=None, places=0, label_plan=None, several=False):
        self.plan, self.places, self.label_plan, self.several = plan, places, label_plan, several
        self._noted = set()

    def note(self, place=None):
        """Note that a tensor of the model, not just a mask, was mixed by a layer, or passed the place `place`."""
        self._noted.add(place)

    def has_mixed(self):
        """Whether the model mixed with the plan that mixed its labels."""
        if self.plan is None:
            return True
        return self._noted >= set(range(self.places)) if self.places else bool(self._noted)


_RUNNING: contextvars.ContextVar[Step | None] = contextvars.ContextVar("kmix_step", default=None)


def running():
    """The training step that is running, or None."""
    return _RUNNING.get()


@contextlib.contextmanager
def run(step):
    """Run a training step. Raises at the end if the labels were mixed and the inputs of the model were not."""
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


def check_number(value, name, high=None):
    """Return an integer, or an integer scalar tensor without a value yet, or raise."""
    if hasattr(value, "dtype"):
        if "int" not in _backend.dtype(value) or len(value.shape):
            _checks.fail(f"`{name}` must be an integer scalar.", f"dtype {_backend.dtype(value)}, shape {value.shape}")
        if _backend.is_symbolic(value):
            return value
        value = int(value)
    return _checks.integer(value, name, 0, high)
