"""kmix: mixup-type training for Keras 3, on TensorFlow, JAX and PyTorch."""

from kmix import callbacks, data, diagnostics, layers, losses, metrics, pairing, plan, plots, schedules, targets, typing
from kmix.layers import AudioMix, CopyPaste, CutMix, EmbeddingMixup, MixUp, Mosaic, RandomChoice
from kmix.plan import MixPlan
from kmix.training.trainer import MixTrainer

__version__ = "0.1.0"

__all__ = [
    "AudioMix",
    "CopyPaste",
    "CutMix",
    "EmbeddingMixup",
    "MixPlan",
    "MixTrainer",
    "MixUp",
    "Mosaic",
    "RandomChoice",
    "callbacks",
    "data",
    "diagnostics",
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
