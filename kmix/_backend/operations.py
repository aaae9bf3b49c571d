"""What an array namespace offers: the few operations that the rest of kmix is written with."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kmix import _checks
from kmix._backend import arrays

MASK = 0xFFFFFFFF
# TensorFlow and XLA take float32 numbers below it for 0. NumPy and PyTorch do not.
SMALLEST_NORMAL = float(np.finfo("float32").smallest_normal)


class Namespace(abc.ABC):
    """The operations on arrays of a framework. `B` is the batch size.

    A namespace that lacks an abstract operation cannot be instantiated. The others are correct for every framework;
    a namespace overrides them where it can do better.
    """

    # What kmix uses of `math`. The first argument of each function is an array.
    MATH = ("cos", "exp", "expm1", "floor", "log", "maximum", "minimum", "sin", "sqrt", "square")

    # Creating and casting arrays.

    @property
    @abc.abstractmethod
    def math(self) -> Any:
        """An object with the elementwise functions that `MATH` names: `(...)` to `(...)`."""

    @property
    @abc.abstractmethod
    def integer(self) -> str:
        """The name of the widest dtype of signed integers."""

    @abc.abstractmethod
    def asarray(self, x: Any) -> Any:
        """`x`, an array of any framework or Python numbers, as an array of this framework."""

    @abc.abstractmethod
    def cast(self, x: Any, dtype: str) -> Any:
        """`x` `(...)`, an array or a Python number, as an array `(...)` of the named dtype."""

    @abc.abstractmethod
    def arange(self, n: Any) -> Any:
        """The int32 numbers 0, 1, ..., n - 1 as `(n,)`, for an int or a scalar `n`."""

    # 32-bit words for random numbers.

    @abc.abstractmethod
    def word(self, x: Any) -> Any:
        """Integers `x` `(...)` modulo 2**32. A Python int in `[0, 2**32)` gives a number to combine with words."""

    @abc.abstractmethod
    def words(self, n: Any) -> Any:
        """The words 0, 1, ..., n - 1 as `(n,)`, for an int or a scalar `n`."""

    @abc.abstractmethod
    def shift(self, x: Any, n: int) -> Any:
        """Words `x` `(...)` shifted right by `n` bits and filled with zeros."""

    # Elementwise.

    @abc.abstractmethod
    def power(self, x: Any, y: Any) -> Any:
        """`x ** y` for an array `x` `(...)` and a Python number `y`."""

    @abc.abstractmethod
    def sigmoid(self, x: Any) -> Any:
        """`1 / (1 + exp(-x))` `(...)`, without a warning where `exp` overflows."""

    @abc.abstractmethod
    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """`x` where the boolean `condition` holds, else `y`; all three broadcast, Python numbers included."""

    # Whole arrays.

    @abc.abstractmethod
    def all(self, x: Any) -> Any:
        """Whether all values of a boolean array hold, as a scalar."""

    @abc.abstractmethod
    def any(self, x: Any, axis: int | None = None) -> Any:
        """Whether any value of a boolean array holds: as a scalar, or along an axis."""

    @abc.abstractmethod
    def sum(self, x: Any, axis: int) -> Any:
        """The sum of `x` along an axis."""

    @abc.abstractmethod
    def reshape(self, x: Any, shape: Any) -> Any:
        """`x` in this shape. Its sizes may be scalars, and one of them may be -1."""

    @abc.abstractmethod
    def transpose(self, x: Any) -> Any:
        """The columns of `x` `(n, m)` as rows `(m, n)`."""

    @abc.abstractmethod
    def stack(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        """Arrays `(...)` of one shape, stacked along a new axis."""

    @abc.abstractmethod
    def concat(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        """Arrays of one dtype that differ in the size of this axis alone, joined along it."""

    @abc.abstractmethod
    def argsort(self, x: Any) -> Any:
        """The int32 indices `(..., n)` that sort the last axis of `x` `(..., n)`, whose values never tie."""

    @abc.abstractmethod
    def argmax(self, x: Any) -> Any:
        """The int32 index `(...)` of the largest value along the last axis of `x` `(..., n)`, the first if some tie."""

    @abc.abstractmethod
    def take(self, x: Any, indices: Any) -> Any:
        """Rows `(n, ...)` of `x` `(B, ...)` at indices `(n,)`. Indices `(shards, n)` count within each shard."""

    @abc.abstractmethod
    def pick(self, x: Any, ids: Any) -> Any:
        """The entries `ids` `(..., k)` along the last axis of `x` `(..., C)`, as `(..., k)`."""

    @abc.abstractmethod
    def gram(self, x: Any) -> Any:
        """The sums of products `(n, n)` of each two rows of a float `x` `(n, C)`. An accelerator may round them."""

    # Functions.

    @abc.abstractmethod
    def custom_gradient(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward(x, *others)` as a function whose gradient by `x` is `backward(upstream, *others)`.

        `forward` is linear in `x`. `others` are arrays without a gradient. Neither function may hold an array in a
        closure: it may be a tracer of another transformation than that which differentiates.
        """

    # Optional: these are correct for every framework whose shapes and values are known.

    def size(self, x: Any, axis: int) -> Any:
        """The size of an axis: an int if it is known, else a scalar."""
        return x.shape[axis]

    def unstack(self, x: Any) -> Any:
        """The rows of `x` `(n, ...)`, in a form to slice and to index with Python ints."""
        return x

    def along(self, coefficients: Any, like: Any) -> Any:
        """`coefficients` `(B, ...)` with axes of size 1 appended, up to the rank of `like` `(B, ..., ...)`."""
        return coefficients.reshape((*coefficients.shape, *(1,) * (like.ndim - coefficients.ndim)))

    def switch(self, index: Any, branches: Sequence[Callable[[], Any]]) -> Any:
        """`branches[index]()` for an int or a scalar. All branches return the same shape and dtype."""
        return branches[int(index)]()

    def apply_if(self, condition: Any, function: Callable[..., Any], x: Any) -> Any:
        """`function(x)`, of the shape and dtype of `x` `(...)`, if the scalar condition holds, else `x`."""
        return function(x) if condition else x

    def hash(self, x: Any) -> Any:
        """Words `(...)` of words, or of their sums and products, `x` `(...)` with at least one axis: "lowbias32".

        A bijection of 32-bit words in which every bit of the input flips half of the bits of the output.
        """
        x = self.word(x)
        x = x ^ self.shift(x, 16)
        x = self.word(x * self.word(0x7FEB352D))
        x = x ^ self.shift(x, 15)
        x = self.word(x * self.word(0x846CA68B))
        return x ^ self.shift(x, 16)

    def rows(self, indices: Any) -> Any:
        """Indices `(B,)` of rows. Indices `(shards, n)` within the shards become indices into the whole batch."""
        if len(indices.shape) == 1:
            return indices
        first = self.size(indices, 1) * self.reshape(self.arange(self.size(indices, 0)), (-1, 1))
        return self.reshape(indices + self.cast(first, arrays.dtype(indices)), (-1,))

    def interpolate(self, own: Any, partner: Any, weight: Any) -> Any:
        """`weight * own + (1 - weight) * partner`, exactly `own` where both are equal. May overwrite `partner`."""
        return self.where(own == partner, own, weight * own + (1.0 - weight) * partner)

    def evaluate(self, schedule: Callable[[Any], Any], step: Any, high: float = float("inf")) -> Any:
        """The value of a schedule at a step, as a float32 scalar.

        Args:
            schedule: Takes the step, exactly up to `2**32`: a Python int, or where the step is symbolic a scalar in
                which arithmetic is exact. Returns a number or a scalar tensor.
            step: An integer >= 0 or an integer scalar.
            high: The largest value that it may have.

        Raises:
            ValueError: if the schedule raises, or the value is not one finite number in `[0, high]`. Where it cannot be
                read, it becomes NaN.
        """
        symbolic = arrays.is_symbolic(step)
        try:
            value = self.evaluate_symbol(schedule, step) if symbolic else schedule(int(step))
        except Exception as error:
            hint = (
                " In a graph, a schedule must be arithmetic on the step, without Python's `if`, `min` or `max`. The "
                "schedules in `kmix.schedules` work everywhere; `Join` combines them."
            )
            raise ValueError(
                f"The schedule {schedule!r} could not be evaluated at a step of type {type(step).__name__}: "
                f"{str(error).rstrip('.')}." + hint * symbolic
            ) from error
        if arrays.is_symbolic(value):
            number, valid = self.cast(value, "float32"), arrays.static_shape(value) in ((), None)
            valid = valid and arrays.dtype(value) != "bool"
            number = self.where((number >= 0) & (number < math.inf) & (number <= high), number, math.nan)
        else:
            value = arrays.values(value) if arrays.kind(value).framework else value
            try:
                number = _checks.real(value, "schedule")
            except (TypeError, ValueError):
                number = math.nan
            # In float32, as in a graph: 1 + 1e-9 is 1.
            valid = bool(np.float32(number) <= high)
            number = self.cast(number, "float32")
        if not valid:
            _checks.fail(
                f"A schedule must return one finite number {_checks.bounds(0.0, high)}.",
                f"{value!r} from {schedule!r} at step {step!r}",
            )
        return number

    def evaluate_symbol(self, schedule: Callable[[Any], Any], step: Any) -> Any:
        """`schedule(step)` for a symbolic step, in a dtype that is exact up to `2**32`."""
        return schedule(step)

    def by_rows(self, function: Callable[..., Any], x: Any) -> Any:
        """`function(x)`, of the shape of `x`, for a function that treats all values of a sample alike."""
        return function(x)

    def run(self, bound: Callable[..., Any], arrays: Any) -> Any:
        """`bound(*arrays)` for a kernel, see `execution.py`, on eager arrays of this framework or NumPy's."""
        return bound(*arrays)

    def fused(
        self,
        function: Callable[..., Any],
        *structures: Any,
        key: Callable[[], Any] | None = None,
        padded: Sequence[Any] = (),
    ) -> Any:
        """`function(*structures)` in one pass over the memory, if the framework does this only on request.

        `key()` is what else the function depends on; calls with an equal key share a program.
        The sizes of tensors that are `padded` may not be known.
        """
        return function(*structures)

    def require(self, condition: Any, message: str) -> None:
        """Raise unless all of `condition` holds, if that can be read without waiting for an accelerator."""
        if arrays.on_host(condition) and not arrays.values(condition).all():
            raise ValueError(message)

    def require_equal_sizes(self, axes: Sequence[tuple[Any, int]], message: str) -> None:  # noqa: B027
        """Raise unless all `(array, axis)` have the same size. Static sizes have been compared before."""
