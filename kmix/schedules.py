"""Schedules: callables of the step, on Python numbers and on tensors of any framework.

Arguments are named as in optax. Pass a schedule as `alpha` or `rate` of a layer, or among the `probabilities` of a
`RandomChoice`, which evaluate it for each batch inside the data pipeline; or pass it to
`kmix.callbacks.AlphaScheduler`. All also accept Keras' own `LearningRateSchedule`s and plain functions of the step.

Steps are counted from 0. A schedule in a layer counts the batches that the layer draws. The schedules are right up to
step 2**32 - 1, in tensors, too.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any, Self, SupportsIndex

import keras
import numpy as np

from kmix import _backend, _checks
from kmix._settings import deserialize, serialize

__all__ = ["Constant", "Cosine", "Join", "Linear", "Piecewise", "Polynomial"]


class Schedule:
    """Base class: a subclass lists its arguments and implements `_value(xp, step)` for an array namespace."""

    _arguments: tuple[str, ...] = ()

    def __call__(self, step: Any) -> Any:
        """The value at `step`: a float for a Python number, else a float32 tensor of the step's framework."""
        xp = _backend.namespace(step)
        if not hasattr(step, "dtype"):
            return float(self._value(xp, step))
        if "int" in _backend.dtype(step):
            # JAX has no integers of 64 bits.
            step = xp.cast(step, "uint32" if xp.integer == "int32" else "int64")
        value = self._value(xp, step)
        # NumPy 1 makes float64 of a scalar of float32 and a number.
        return value if _backend.dtype(value) == "float32" else xp.cast(value, "float32")

    def _value(self, xp, step):
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._arguments)
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="kmix")
class Constant(Schedule):
    """The same value at every step.

    Args:
        value: A number >= 0.

    Raises:
        ValueError: if the value is negative or not finite.

    Example:
        >>> kmix.schedules.Constant(0.4)(1000)
        0.4
    """

    _arguments = ("value",)

    def __init__(self, value: float) -> None:
        self.value: float = _checks.real(value, "value")

    def _value(self, xp, step):
        return xp.cast(self.value, "float32") if hasattr(step, "dtype") else self.value


@keras.saving.register_keras_serializable(package="kmix")
class Polynomial(Schedule):
    """From `init_value` to `end_value` along `(1 - t) ** power`.

    Args:
        init_value: Value up to step `transition_begin`, a number >= 0.
        end_value: Value from step `transition_begin + transition_steps` on, a number >= 0.
        transition_steps: Length of the transition in steps, an integer >= 1.
        transition_begin: Step at which it begins. Defaults to 0.
        power: Exponent >= 0. Defaults to 1, the straight line.

    Raises:
        ValueError: if a value is negative, or the steps are not as described.

    Example:
        >>> kmix.schedules.Polynomial(1.0, 0.0, transition_steps=10, power=2.0)(5)
        0.25
    """

    _arguments: tuple[str, ...] = ("init_value", "end_value", "transition_steps", "transition_begin", "power")

    def __init__(
        self,
        init_value: float,
        end_value: float,
        transition_steps: SupportsIndex,
        *,
        transition_begin: SupportsIndex = 0,
        power: float = 1.0,
    ) -> None:
        self.init_value: float = _checks.real(init_value, "init_value")
        self.end_value: float = _checks.real(end_value, "end_value")
        self.transition_steps: int = _checks.integer(transition_steps, "transition_steps", 1)
        self.transition_begin: int = _checks.integer(transition_begin, "transition_begin")
        self.power: float = _checks.real(power, "power")

    def _value(self, xp, step):
        left = self._remaining(xp, _progress(xp, step, self.transition_begin, self.transition_steps))
        return self.end_value + (self.init_value - self.end_value) * left

    def _remaining(self, xp, progress):
        """The remaining share of the transition, 1 to 0, at a progress of 0 to 1."""
        return (1.0 - progress) ** self.power


@keras.saving.register_keras_serializable(package="kmix")
class Linear(Polynomial):
    """A straight line from `init_value` to `end_value`.

    Args:
        init_value: Value up to step `transition_begin`, a number >= 0.
        end_value: Value from step `transition_begin + transition_steps` on, a number >= 0.
        transition_steps: Length of the transition in steps, an integer >= 1.
        transition_begin: Step at which it begins. Defaults to 0.

    Example:
        >>> warm_up = kmix.schedules.Linear(0.0, 0.4, transition_steps=10)
        >>> [round(warm_up(step), 2) for step in (0, 5, 10, 20)]
        [0.0, 0.2, 0.4, 0.4]
    """

    _arguments = ("init_value", "end_value", "transition_steps", "transition_begin")

    def __init__(
        self,
        init_value: float,
        end_value: float,
        transition_steps: SupportsIndex,
        *,
        transition_begin: SupportsIndex = 0,
    ) -> None:
        super().__init__(init_value, end_value, transition_steps, transition_begin=transition_begin)


@keras.saving.register_keras_serializable(package="kmix")
class Cosine(Linear):
    """Half a cosine wave from `init_value` to `end_value`: slow, fast, slow.

    Args:
        init_value: Value up to step `transition_begin`, a number >= 0.
        end_value: Value from step `transition_begin + transition_steps` on, a number >= 0.
        transition_steps: Length of the transition in steps, an integer >= 1.
        transition_begin: Step at which it begins. Defaults to 0.

    Reference:
        I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
        https://arxiv.org/abs/1608.03983

    Example:
        >>> kmix.schedules.Cosine(1.0, 0.0, transition_steps=10)(5)
        0.5
    """

    def _remaining(self, xp, progress):
        return 0.5 * (1.0 + xp.math.cos(math.pi * progress))


@keras.saving.register_keras_serializable(package="kmix")
class Join(Schedule):
    """One schedule after another. Each counts its steps from the boundary at which it begins.

    Args:
        schedules: Schedules (any callables of the step) or plain numbers, at least one.
        boundaries: The steps at which the second, third, ... schedule begins, in increasing order.

    Raises:
        ValueError: if there is not exactly one boundary fewer than schedules, or the boundaries do not increase.

    Example:
        Warm up for 5 epochs, hold, and train on clean data from epoch 90.

    >>> alpha = kmix.schedules.Join([kmix.schedules.Linear(0.0, 0.4, 5), 0.4, 0.0], boundaries=[5, 90])
    >>> [round(alpha(epoch), 2) for epoch in (0, 4, 5, 89, 90)]
    [0.0, 0.32, 0.4, 0.4, 0.0]
    """

    _arguments = ("schedules", "boundaries")

    def __init__(self, schedules: Sequence[float | Callable[[Any], Any]], boundaries: Sequence[SupportsIndex]) -> None:
        given = [_checks.scalar_or_schedule(one, "schedules") for one in _checks.sequence(schedules, "schedules")]
        self.schedules: list[Any] = [schedule if callable(schedule) else Constant(schedule) for schedule in given]
        given = _checks.sequence(boundaries, "boundaries")
        self.boundaries: list[int] = [_checks.integer(boundary, "boundaries", 1) for boundary in given]
        if len(self.boundaries) != len(self.schedules) - 1 or self.boundaries != sorted(set(self.boundaries)):
            _checks.fail(
                "`boundaries` must be increasing steps, one fewer than the values or schedules.",
                f"{len(self.schedules)} values or schedules with boundaries={self.boundaries}",
            )

    def _value(self, xp, step):
        starts = [0, *self.boundaries]
        if not hasattr(step, "dtype"):
            due = bisect.bisect(self.boundaries, step)
            value = self.schedules[due](step - starts[due])
            return _checks.real(_backend.values(value) if hasattr(value, "dtype") else value, "value")
        value = None
        for start, schedule in zip(starts, self.schedules, strict=True):
            elapsed = _elapsed(xp, step, start)
            later = schedule._value(xp, elapsed) if isinstance(schedule, Schedule) else xp.evaluate(schedule, elapsed)
            if value is None:
                value = later
            elif start <= _largest(step):
                value = xp.where(step < _constant(xp, start, step), value, later)
        return value

    def get_config(self) -> dict[str, Any]:
        return {"schedules": serialize(self.schedules), "boundaries": self.boundaries}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**deserialize(config))


@keras.saving.register_keras_serializable(package="kmix")
class Piecewise(Join):
    """Constant pieces: `values[i]` until step `boundaries[i]`, then the next.

    Args:
        values: Numbers >= 0, at least one.
        boundaries: The steps at which the second, third, ... value begins, in increasing order.

    Raises:
        ValueError: if a value is negative, or the steps are not as described.

    Example:
        >>> alpha = kmix.schedules.Piecewise([0.2, 0.4, 0.0], boundaries=[10, 20])
        >>> [alpha(step) for step in (9, 10, 20)]
        [0.2, 0.4, 0.0]
    """

    _arguments = ("values", "boundaries")

    def __init__(self, values: Sequence[float], boundaries: Sequence[SupportsIndex]) -> None:
        self.values: list[float] = [_checks.real(value, "values") for value in _checks.sequence(values, "values")]
        super().__init__(self.values, boundaries)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values, "boundaries": self.boundaries}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)


def _progress(xp, step, begin, steps):
    """The progress of `step` from `begin` to `begin + steps`, in [0, 1]."""
    elapsed = _elapsed(xp, step, begin)
    if not hasattr(step, "dtype"):
        return min(elapsed / steps, 1.0)
    return xp.math.minimum(xp.cast(elapsed, "float32") / float(steps), 1.0)


def _elapsed(xp, step, begin):
    """Steps since `begin`, or 0 before, in integers: floats would round.

    With operators, since `keras.ops.maximum` makes int32 of int64 on PyTorch. A difference without a sign may wrap.
    """
    if not hasattr(step, "dtype"):
        return max(step - begin, 0)
    begin = _constant(xp, begin, step)
    return (step - begin) * xp.cast(step > begin, _backend.dtype(step))


def _constant(xp, number, step):
    """A number, or the largest step if that is less, as a tensor of the dtype of `step`."""
    return xp.cast(np.array(min(number, _largest(step))), _backend.dtype(step))


def _largest(step):
    """The largest step of the dtype of `step`."""
    return np.iinfo(_backend.dtype(step)).max if "int" in _backend.dtype(step) else math.inf
