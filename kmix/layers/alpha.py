"""Alpha of a layer: a number that can be set, or a schedule of the step."""

from collections.abc import Callable
from typing import Any

from kmix import _backend, _checks
from kmix.typing import ScalarOrSchedule


class Alpha:
    """A number >= 0 that compiled functions and worker processes read for each batch, or a schedule.

    Args:
        value: The number, or a callable of the step.
        memory: The shared memory that holds the number in a worker process, from `pickled`.
    """

    def __init__(self, value: ScalarOrSchedule, memory: Any = None) -> None:
        value = _checks.scalar_or_schedule(value, "alpha")
        self._schedule: Any = value if callable(value) else None
        self._cell: Any = None if callable(value) else _backend.Cell(value if memory is None else memory.value, memory)
        # Whether a graph reads it; whether a function compiled by `jax.jit` holds it as a constant.
        self._traced = self._constant = False

    @property
    def value(self) -> ScalarOrSchedule:
        """The number, or the schedule."""
        return self._schedule or self._cell.value

    def set(self, value: ScalarOrSchedule) -> None:
        """Set it: takes effect with the next batch drawn."""
        value = self.check(value)
        if callable(value):
            self._schedule, self._cell = value, None
        else:
            self._cell.assign(value)

    def check(self, value: ScalarOrSchedule) -> ScalarOrSchedule:
        """Return `value` as the alpha to set, or raise."""
        value = _checks.scalar_or_schedule(value, "alpha")
        if self._schedule is not None:
            _checks.fail(
                "`alpha` of this layer follows a schedule, which sets it for each step.",
                f"alpha={value!r}",
                "To set alpha yourself, build the layer with a number.",
            )
        if callable(value):
            if self._traced:
                _checks.fail(
                    "A schedule must be given before the layer is first used in a compiled function.",
                    f"alpha={value!r}",
                    "Pass it when the layer is built: `alpha=schedule`.",
                )
        elif self._constant and value != self._cell.value:
            _checks.fail(
                "A function compiled by `jax.jit` holds alpha as a constant and would not see the new value.",
                f"alpha={value!r} instead of {self._cell.value!r}",
                "Build the layer with a schedule of the step, or call `at_step` outside `jax.jit`.",
            )
        else:
            self._cell.check(value)
        return value

    def at(self, xp: _backend.Namespace, step: Any, symbolic: bool, in_jax: bool) -> Any:
        """The number for a step, in the namespace of the plan."""
        self._traced |= symbolic
        self._constant |= in_jax and self._schedule is None
        return self._cell.read(xp) if self._schedule is None else xp.evaluate(self._schedule, step)

    def share(self, weight: Any, refresh: Callable[[], Any]) -> None:
        """Keep the number in a weight of a trainer as well. `refresh` brings that weight up to date."""
        # A schedule would come too late for a compiled training step.
        self._traced = True
        self._cell.share(weight, refresh)

    def pickled(self) -> Any:
        """What a pickle holds beside the value, for `memory`."""
        return None if self._cell is None else self._cell.pickled()
