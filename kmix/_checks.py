"""Validation, and the wording of every error: what was expected, what was received, what to write instead."""

import contextlib
import math
import numbers
import operator
import os
import sys
import warnings
from typing import NoReturn

_HERE = os.path.dirname(__file__) + os.sep
# What has `__float__` or `__index__`, or is a number for Python, and still none to calculate with.
_NO_NUMBERS = (bool, str, bytes, type)


def fail(expected, received, hint="", error: type[Exception] = ValueError) -> NoReturn:
    """Raise `error` with the wording that all of kmix shares."""
    raise error(f"{expected} Received: {received}." + (f" {hint}" if hint else ""))


def warn(message):
    """Give a `UserWarning` that names the line of the user's code, outside kmix and Keras, that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back and (frame.f_code.co_filename.startswith(_HERE) or _module(frame) == "keras"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _module(frame):
    return frame.f_globals.get("__name__", "").split(".")[0]


@contextlib.contextmanager
def installed(package, extra):
    """A scope that imports an optional package: where it is missing, the error names the extra of kmix that has it."""
    try:
        yield
    except ImportError as error:
        hint = f'`pip install "kmix[{extra}]"`, or in a checkout `pip install ".[{extra}]"`'
        raise ImportError(f"This needs {package}. Install it: {hint}.") from error


def real(value, name, low=0.0, high=math.inf, *, positive=False, hint=""):
    """Return `value` as a Python float within `[low, high]`, and above 0 if it must be `positive`, or raise."""
    expected = f"`{name}` must be a finite number {bounds(low, high, positive)}."
    is_number = hasattr(value, "__float__") and not isinstance(value, _NO_NUMBERS)
    if not is_number or getattr(value, "shape", ()) != () or str(getattr(value, "dtype", "")).endswith("bool"):
        fail(expected, f"{name}={value!r} of type {type(value).__name__}", hint, TypeError)
    try:
        number = float(value)
    except (ValueError, TypeError):  # an array of texts, or of complex numbers
        fail(expected, f"{name}={value!r}", hint, TypeError)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not low <= number <= high or (positive and number == 0):
        fail(expected, f"{name}={number!r}", hint)
    return number


def bounds(low, high, positive=False):
    """The bounds of a number, for an error."""
    return ("> 0" if positive else f">= {low:g}") + (f" and <= {high:g}" if high < math.inf else "")


def scalar_or_schedule(value, name, high=math.inf):
    """Return `value` as a float within `[0, high]`, or unchanged if it is a schedule (a callable of the step)."""
    if isinstance(value, (str, type)) or not (callable(value) or hasattr(value, "__float__")):
        fail(
            f"`{name}` must be a number {bounds(0.0, high)} or a schedule (a callable of the step).",
            f"{name}={value!r} of type {type(value).__name__}",
            f"For example, write `{name}=0.2` or `{name}=kmix.schedules.Linear(0.0, 0.4, 1000)`.",
            TypeError,
        )
    return value if callable(value) else real(value, name, 0.0, high)


def integer(value, name, low=0, high=None):
    """Return `value` as a Python int within `[low, high)`, or below `2**63` without `high`, or raise."""
    expected = f"`{name}` must be an integer >= {low}" + (f" and < {high}." if high is not None else ".")
    known = isinstance(value, numbers.Integral) or (hasattr(value, "__index__") and getattr(value, "shape", ()) == ())
    if isinstance(value, _NO_NUMBERS) or not known:
        fail(expected, f"{name}={value!r} of type {type(value).__name__}", error=TypeError)
    try:
        number = operator.index(value)
    except TypeError:  # an array of other values
        fail(expected, f"{name}={value!r}", error=TypeError)
    if number >= 2**63:
        fail(f"`{name}` must be an integer below 2**63.", f"an integer of {number.bit_length()} bits")
    if number < low or (high is not None and number >= high):
        fail(expected, f"{name}={number}")
    return number


def boolean(value, name):
    """Return `value` if it is True or False, or raise."""
    if not isinstance(value, bool):
        fail(f"`{name}` must be True or False.", f"{name}={value!r}", error=TypeError)
    return value


def one_of(value, name, options):
    """Return `value` if it is one of `options`, or raise."""
    if not isinstance(value, str) or value not in options:
        fail(f"`{name}` must be one of {', '.join(map(repr, options))}.", f"{name}={value!r}")
    return value


def seed(value):
    """Return `value` as an int in `[0, 2**32)`, or raise."""
    return integer(value, "seed", 0, 2**32)


def names(value, name):
    """Return `value` as a tuple of strings, or raise."""
    if isinstance(value, str):
        fail(f"`{name}` must be a list of names.", f"{name}={value!r}", f"Write `{name}=[{value!r}]`.", TypeError)
    items = sequence(value, name)
    if not all(isinstance(item, str) for item in items):
        fail(f"`{name}` must be a list of names.", f"{name}={value!r}", error=TypeError)
    return tuple(items)


def sequence(value, name):
    """Return `value` as a list, or raise."""
    has_order = hasattr(value, "__iter__") and not isinstance(value, (str, bytes, type, set, frozenset, dict))
    if not has_order or getattr(value, "shape", None) == ():
        fail(f"`{name}` must be a list.", f"{name}={value!r}", f"Write `{name}=[...]`.", TypeError)
    return list(value)


def probabilities(given, count=None):
    """Return probabilities as floats, in any scale, or raise.

    `count` says how many a layer needs; it takes schedules, too, which stay as they are.
    """
    values = [
        value if count is not None and callable(value) and not isinstance(value, type) else real(value, "probabilities")
        for value in sequence(given, "probabilities")
    ]
    constant = not any(map(callable, values))
    if count not in (None, len(values)) or (constant and not 0 < sum(values) < math.inf):
        many = "one or more numbers >= 0" if count is None else f"{count} numbers >= 0 or schedules, one for each layer"
        fail(f"`probabilities` must be {many}, with a finite sum > 0.", f"probabilities={values}")
    return values
