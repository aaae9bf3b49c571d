"""Number the batches of any loader, so that every batch of every epoch has a plan of its own."""

from kmix.data.mixed_batches import MixedBatches
from kmix.data.numbering import Numbering

__all__ = ["MixedBatches", "Numbering"]
