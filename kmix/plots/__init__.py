"""Plots of what enters the network, of how training goes, and of how well a model is calibrated.

A plot imports Matplotlib when it is drawn; importing kmix does not.
"""

from kmix.plots.batches import mixed_batch
from kmix.plots.predictions import decision_boundary, reliability_diagram
from kmix.plots.training import alpha_schedule, training_curves

__all__ = ["alpha_schedule", "decision_boundary", "mixed_batch", "reliability_diagram", "training_curves"]
