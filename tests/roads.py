"""The old name of `helpers`, for files that still use it."""

from helpers import CODE_PATHS as ROADS
from helpers import at_step, at_steps, call, pipeline, to_native, to_numpy

__all__ = ["ROADS", "at_step", "at_steps", "call", "pipeline", "to_native", "to_numpy"]
