"""The training step that is running: the whole contract between a `MixTrainer` and the layers inside its model.

The trainer opens the step with the plan it drew. A layer asks `current_step()` for the step, mixes with its `plan`, and
records that it did. Closing the step raises an error if the labels were mixed and the inputs were not.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from kmix import _checks
from kmix.plan import MixPlan


class TrainingStep:
    """A training step that is running.

    Attributes:
        plan: The plan to mix with inside the model. None if the inputs of the model are already mixed.
        places: Number of places of Manifold Mixup. The model must pass all of them. 0 if layers inside the model mix.
        label_plan: The plan by which the losses mix. None if the labels are already mixed.
        several: Whether labels may be mixed from more than two.
    """

    def __init__(
        self, plan: MixPlan | None = None, places: int = 0, label_plan: MixPlan | None = None, several: bool = False
    ) -> None:
        self.plan: MixPlan | None = plan
        self.places: int = places
        self.label_plan: MixPlan | None = label_plan
        self.several: bool = several
        self._mixed_at: set[Any] = set()

    def record(self, place: Any = None) -> None:
        """Record that a tensor of the model, not just a mask, was mixed by a layer, or passed the place `place`."""
        self._mixed_at.add(place)

    def has_mixed(self) -> bool:
        """Whether the model mixed with the plan that mixed its labels."""
        if self.plan is None:
            return True
        return self._mixed_at >= set(range(self.places)) if self.places else bool(self._mixed_at)


_CURRENT: contextvars.ContextVar[TrainingStep | None] = contextvars.ContextVar("kmix_step", default=None)


def current_step() -> TrainingStep | None:
    """The training step that is running, or None."""
    return _CURRENT.get()


@contextlib.contextmanager
def run_step(step: TrainingStep) -> Iterator[None]:
    """Run a training step. Raises at the end if the labels were mixed and the inputs of the model were not."""
    token = _CURRENT.set(step)
    try:
        yield
    finally:
        _CURRENT.reset(token)
    if not step.has_mixed():
        _checks.fail(
            "The labels of this training step were mixed, the inputs were not.",
            "a model that does not call its mixing layers in training",
            "Call them in `call`, and do not pass `training=False` to them.",
        )
