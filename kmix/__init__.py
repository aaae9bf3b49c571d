"""kmix: mixup-type training for Keras 3, on TensorFlow, JAX and PyTorch."""

from kmix import callbacks, data, losses, metrics, plots, schedules
from kmix.layers import CutMix, EmbeddingMixup, MixUp, RandomChoice
from kmix.plan import MixPlan

__version__ = "0.1.0"

__all__ = [
    "CutMix",
    "EmbeddingMixup",
    "MixPlan",
    "MixUp",
    "RandomChoice",
    "callbacks",
    "data",
    "losses",
    "metrics",
    "plots",
    "schedules",
]
