"""kmix: mixup-type training for Keras 3, on TensorFlow, JAX and PyTorch."""

from kmix import data, layers, losses, metrics, mixing, pairing, plan, schedules, targets, typing
from kmix.layers import CutMix, EmbeddingMixup, MixUp, Mosaic, RandomChoice
from kmix.plan import MixPlan

__version__ = "0.1.0"

__all__ = [
    "CutMix",
    "EmbeddingMixup",
    "MixPlan",
    "MixUp",
    "Mosaic",
    "RandomChoice",
    "callbacks",
    "data",
    "layers",
    "losses",
    "metrics",
    "pairing",
    "plan",
    "plots",
    "schedules",
    "targets",
    "typing",
]
