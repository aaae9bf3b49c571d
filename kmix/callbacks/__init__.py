"""Change alpha during training, and measure what mixing does."""

from kmix.callbacks.alpha_scheduler import AlphaScheduler
from kmix.callbacks.diagnostics import Diagnostics

__all__ = ["AlphaScheduler", "Diagnostics"]
