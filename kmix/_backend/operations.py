"""What a twin must implement: the few array operations that the rest of kmix uses."""

import abc

from kmix._backend.arrays import dtype, on_host, values

MASK = 0xFFFFFFFF


class Namespace(abc.ABC):
    """The operations of a twin, on arrays of its framework. `B` is the batch size.

    A twin that lacks an abstract operation cannot be instantiated. The others (`rows`, `by_rows`, `run`,
    `between`, `fused`, `require`) are correct for every framework; a twin overrides them where it can do better.
    """

    # What kmix uses of `math`. The first argument of each function is an array.
    MATH = (
        "cos",
        "exp",
        "expm1",
        "floor",
        "log",
        "maximum",
        "minimum",
        "sin",
        "sqrt",
        "square",
    )

    # Creating and casting arrays.

    @property
    @abc.abstractmethod
    def math(self):
        """An object with the elementwise functions that `MATH` names: `(...)` to `(...)`."""

    @property
    @abc.abstractmethod
    def integer(self):
        """The name of the widest dtype of signed integers."""

    @abc.abstractmethod
    def asarray(self, x):
        """`x`, an array of any framework or Python numbers, as an array of this framework."""

    @abc.abstractmethod
    def cast(self, x, dtype):
        """`x` `(...)`, an array or a Python number, as an array `(...)` of the named dtype."""

    @abc.abstractmethod
    def arange(self, n):
        """The int32 numbers 0, 1, ..., n - 1 as `(n,)`, for an int or a scalar `n`."""

    # 32-bit words for random numbers. Pass the sum or product of two words through `word` before you use it.

    @abc.abstractmethod
    def word(self, x):
        """Integers `x` `(...)` modulo 2**32. A Python int in `[0, 2**32)` gives a number to combine with words."""

    @abc.abstractmethod
    def words(self, n):
        """The words 0, 1, ..., n - 1 as `(n,)`, for an int or a scalar `n`."""

    @abc.abstractmethod
    def shift(self, x, n):
        """Words `x` `(...)` shifted right by `n` bits and filled with zeros."""

    # Elementwise.

    @abc.abstractmethod
    def power(self, x, y):
        """`x ** y` for an array `x` `(...)` and a Python number `y`."""

    @abc.abstractmethod
    def sigmoid(self, x):
        """`1 / (1 + exp(-x))` `(...)`, without a warning where `exp` overflows."""

    @abc.abstractmethod
    def where(self, condition, x, y):
        """`x` where the boolean `condition` holds, else `y`; all three broadcast, Python numbers included."""

    # Whole arrays.

    @abc.abstractmethod
    def all(self, x):
        """Whether all values of a boolean array hold, as a scalar."""

    @abc.abstractmethod
    def any(self, x):
        """Whether any value of a boolean array holds, as a scalar."""

    @abc.abstractmethod
    def sum(self, x, axis):
        """The sum of `x` along an axis."""

    @abc.abstractmethod
    def size(self, x, axis):
        """The size of an axis: an int if it is known, else a scalar."""

    @abc.abstractmethod
    def reshape(self, x, shape):
        """`x` in this shape. Its sizes may be scalars, and one of them may be -1."""

    @abc.abstractmethod
    def stack(self, arrays, axis=0):
        """Arrays `(...)` of one shape, stacked along a new axis."""

    @abc.abstractmethod
    def unstack(self, x):
        """The rows of `x` `(n, ...)`, in a form to slice and to index with Python ints."""

    @abc.abstractmethod
    def concat(self, arrays, axis=0):
        """Arrays of one dtype that differ in the size of this axis alone, joined along it."""

    @abc.abstractmethod
    def along(self, coefficients, like):
        """`coefficients` `(B, ...)` with axes of size 1 appended, up to the rank of `like` `(B, ..., ...)`."""

    @abc.abstractmethod
    def argsort(self, x):
        """The int32 indices `(..., n)` that sort the last axis of `x` `(..., n)`, whose values never tie."""

    @abc.abstractmethod
    def argmax(self, x):
        """The int32 index `(...)` of the largest value along the last axis of `x` `(..., n)`, the first if some tie."""

    @abc.abstractmethod
    def take(self, x, indices):
        """Rows `(n, ...)` of `x` `(B, ...)` at indices `(n,)`. Indices `(shards, n)` count within each shard."""

    @abc.abstractmethod
    def pick(self, x, ids):
        """The entries `ids` `(..., k)` along the last axis of `x` `(..., C)`, as `(..., k)`."""

    # Functions.

    @abc.abstractmethod
    def custom_gradient(self, function):
        """A function that returns the result of `function`, and has the gradient that `function` returns beside it.

        That is `gradient(*arguments, upstream=None)`: the upstream gradient is `upstream`, or the only argument.
        """

    @abc.abstractmethod
    def switch(self, index, branches):
        """`branches[index]()` for an int or a scalar. All branches return the same shape and dtype."""

    @abc.abstractmethod
    def apply_if(self, condition, function, x):
        """`function(x)`, of the shape and dtype of `x` `(...)`, if the scalar condition holds, else `x`."""

    @abc.abstractmethod
    def evaluate(self, function, step):
        """A schedule at a scalar `step`, as a float32 scalar. It may return a number or a tensor of any framework."""

    @abc.abstractmethod
    def require_equal_sizes(self, axes, message):
        """Raise unless all `(array, axis)` have the same size. Static sizes have been compared before."""

    # Optional: these are correct for every framework.

    def hash(self, x):
        """Words `(...)` of words, or their sums and products, `x` `(...)`, at least one axis: "lowbias32".

        A bijection of 32-bit words in which every bit of the input flips half of the bits of the output.
        """
        x = self.word(x)
        x = x ^ self.shift(x, 16)
        x = self.word(x * self.word(0x7FEB352D))
        x = x ^ self.shift(x, 15)
        x = self.word(x * self.word(0x846CA68B))
        return x ^ self.shift(x, 16)

    def rows(self, indices):
        """Indices `(B,)` of rows. Indices `(shards, n)` within the shards become indices into the whole batch."""
        if len(indices.shape) == 1:
            return indices
        first = self.size(indices, 1) * self.reshape(self.arange(self.size(indices, 0)), (-1, 1))
        return self.reshape(indices + self.cast(first, dtype(indices)), (-1,))

    def by_rows(self, function, x):
        """`function(x)`, of the shape of `x`, for a function that treats all values of a sample alike."""
        return function(x)

    def run(self, function, arrays, static):
        """`function(self, *arrays, **static)` for a kernel, see `kernels.py`, on arrays of this framework."""
        return function(self, *arrays, **static)

    def between(self, own, partner, weight):
        """`weight * own + (1 - weight) * partner`, exactly `own` where both are equal. May overwrite `partner`."""
        return self.where(own == partner, own, weight * own + (1.0 - weight) * partner)

    def fused(self, function, *structures, key=None, padded=()):
        """`function(*structures)` in one pass over the memory, if the framework does this only on request.

        `key()` is what the function depends on besides its arguments; calls with an equal key share a program.
        The sizes of tensors that are `padded` may not be known.
        """
        return function(*structures)

    def require(self, condition, message):
        """Raise unless all of `condition` holds, if that can be read without waiting for an accelerator."""
        if on_host(condition) and not values(condition).all():
            raise ValueError(message)
