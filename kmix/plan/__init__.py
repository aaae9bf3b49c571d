"""The mix plan: everything random about one batch, drawn once. Only this package draws random numbers."""

from kmix.plan.record import MixPlan, View
from kmix.plan.samplers import sample_choice, sample_cutmix, sample_mixup, sample_mosaic
from kmix.plan.streams import reserve

__all__ = ["MixPlan", "View", "reserve", "sample_choice", "sample_cutmix", "sample_mixup", "sample_mosaic"]
