"""The mixing layers, and the class on which to build your own."""

from kmix.layers.cut_mix import CutMix
from kmix.layers.embedding_mixup import EmbeddingMixup
from kmix.layers.mix_layer import MixLayer
from kmix.layers.mix_up import MixUp
from kmix.layers.mosaic import Mosaic
from kmix.layers.random_choice import RandomChoice

__all__ = ["CutMix", "EmbeddingMixup", "MixLayer", "MixUp", "Mosaic", "RandomChoice"]
