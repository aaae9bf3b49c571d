"""A number that tells whether two processes mix alike."""

import json
import numbers
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

# These change how a batch is computed, not what is drawn.
_NOT_DRAWN = ("name", "dtype", "jit_compile")


def fingerprint(settings: Sequence[Any], *integers: Any) -> int:
    """32 bits of a checksum, the same in every process and framework.

    Args:
        settings: What shapes the plans: numbers, strings, objects with settings, and structures of these. Of a
            function, the name counts.
        integers: Integers and integer arrays that were drawn; None is left out.
    """
    checksum = zlib.crc32(json.dumps(_described(settings)).encode())
    for drawn in integers:
        if drawn is not None:
            checksum = zlib.crc32(np.asarray(drawn).astype("<i8").tobytes(), checksum)
    return checksum


def _described(value):
    """A setting as JSON can hold it."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Real):
        # An alpha of 1 draws what 1.0 draws.
        return float(value)
    if isinstance(value, dict):
        return [[str(key), _described(item)] for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    arguments: Any = getattr(value, "_arguments", None)
    settings = arguments() if callable(arguments) else getattr(value, "get_config", dict)()
    drawn = {name: setting for name, setting in settings.items() if name not in _NOT_DRAWN}
    return [getattr(value, "__qualname__", type(value).__qualname__), _described(drawn)]
