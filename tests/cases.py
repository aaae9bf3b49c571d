"""The old name of `helpers`, for files that still use it."""

from helpers import REFUSALS, assert_near, data, ids, native, raises, refused, ways

__all__ = ["REFUSALS", "assert_near", "data", "ids", "native", "raises", "refused", "ways"]
