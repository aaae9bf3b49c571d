"""The mixing layers, and the classes on which to build your own."""

from kmix.layers.audio_mix import AudioMix
from kmix.layers.base import MixLayer
from kmix.layers.copy_paste import CopyPaste
from kmix.layers.cutmix import CutMix
from kmix.layers.embedding_mixup import EmbeddingMixup
from kmix.layers.input_mixing import AddWaves, Blend, BlendEmbeddings, InputMixing, Paste, PasteImages
from kmix.layers.mixup import MixUp
from kmix.layers.mosaic import Mosaic
from kmix.layers.random_choice import RandomChoice

__all__ = [
    "AddWaves",
    "AudioMix",
    "Blend",
    "BlendEmbeddings",
    "CopyPaste",
    "CutMix",
    "EmbeddingMixup",
    "InputMixing",
    "MixLayer",
    "MixUp",
    "Mosaic",
    "Paste",
    "PasteImages",
    "RandomChoice",
]
