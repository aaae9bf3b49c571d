"""Change alpha during training, measure what mixing does, and compare the processes of a training."""

from kmix.callbacks.alpha_scheduler import AlphaScheduler
from kmix.callbacks.diagnostics import Diagnostics
from kmix.callbacks.fingerprint import Fingerprint

__all__ = ["AlphaScheduler", "Diagnostics", "Fingerprint"]
