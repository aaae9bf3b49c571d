"""Change alpha during training, and watch what mixing does."""

from kmix.callbacks.alpha_scheduler import AlphaScheduler
from kmix.callbacks.watching import Diagnostics

__all__ = ["AlphaScheduler", "Diagnostics"]
